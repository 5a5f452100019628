//! What is said when something is wrong: file, line and column, what, and what to do. All at once, by both front ends.

use protoc_gen_grpcrouter::configure;

use crate::protoc::{Protoc, crate_dir, directory};

const HEAD: &str = "syntax = \"proto3\"; package a.b; import \"proto/options.proto\"; message M { string id = 1; repeated string tags = 2; M next = 3; }\n";

/// What protoc with the plugin says of `a.proto`, and what the builder says.
fn both(files: &[(&str, &str)]) -> (String, String) {
    let protos = directory(files);
    let plugin = Protoc::new(protos.path()).with_options_proto().run(&["a.proto"]).err().expect("the plugin refuses");
    let out = tempfile::tempdir().unwrap();
    let builder = configure()
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_protos(&["a.proto"], &[protos.path().to_owned(), crate_dir()])
        .expect_err("the builder refuses");
    (plugin, builder.to_string())
}

/// Both refuse with exactly these lines.
fn refused(proto: &str, lines: &[&str]) {
    let (plugin, builder) = both(&[("a.proto", &format!("{HEAD}{proto}"))]);
    assert_eq!(plugin, format!("--grpcrouter_out: {}\n", lines.join("\n")));
    assert_eq!(builder, lines.join("\n"));
}

/// The service `S` with this option has one method, and this is wrong with it.
fn option_refused(option: &str, problems: &[&str]) {
    let proto =
        format!("service S {{\n  option (grpcrouter.routes_to) = {{ {option} }};\n  rpc Go(M) returns (M);\n}}\n");
    let lines: Vec<String> = problems.iter().map(|problem| format!("a.proto:3:3: service a.b.S: {problem}")).collect();
    refused(&proto, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn everything_wrong_with_an_option_is_told_at_its_line() {
    option_refused(
        r#"service: "my service" routing_key: "Instance ID" path_prefix: "api/v1/""#,
        &[
            "`routing_key` must be a metadata key (lower-case letters, digits, '-', '_' and '.'), found \"Instance ID\"",
            "`path_prefix` must look like \"/api/v1\" (a leading '/', no trailing '/', segments of letters, digits and -._~), found \"api/v1/\"",
            "`service` must be a protobuf name such as \"MyService\" or \"my.pkg.MyService\", found \"my service\"",
        ],
    );
}

#[test]
fn several_services_are_told_at_once() {
    refused(
        "service S {\n  option (grpcrouter.routes_to).routing_key = \"te\";\n  rpc Go(M) returns (M);\n}\n\
         service T {\n  option (grpcrouter.routes_to) = { on_missing_key: REJECT };\n  rpc Go(M) returns (M);\n}\n",
        &[
            "a.proto:3:3: service a.b.S: `routing_key` must not be \"te\", which gRPC or the gateway keeps for itself; name a metadata key of your own",
            "a.proto:7:3: service a.b.T: `on_missing_key: REJECT` needs a `routing_key`: without one no call has a key",
        ],
    );
}

#[test]
fn a_strategy_that_needs_a_key_says_which() {
    option_refused(
        "strategy: HEADER_BASED",
        &[
            "`routing_key` must be set when `strategy` is HEADER_BASED: a header name, \":authority\" or \"cookie:NAME\"",
        ],
    );
    option_refused(
        "strategy: FIELD_BASED",
        &["`routing_key` must be set when `strategy` is FIELD_BASED: a field of the request, such as \"customer_id\""],
    );
    option_refused(
        "load_balancing: CONSISTENT_HASH",
        &["`load_balancing: CONSISTENT_HASH` needs a `routing_key`: without one no call has a key"],
    );
}

#[test]
fn a_field_path_is_checked_against_the_request() {
    let cases = [
        (
            "nope",
            "`routing_key` names the field \"nope\", and a.b.M, the request of `Go`, has none; give that method its own (grpcrouter.method_routes_to)",
        ),
        ("tags", "`routing_key` names the field \"tags\" of `Go`, which is repeated; a key is one scalar value"),
        ("next", "`routing_key` names the field \"next\" of `Go`, which is a message; a key is one scalar value"),
        (
            "id.x",
            "`routing_key` names the field \"id.x\" of `Go`, which is not a message, so nothing is below it; a key is one scalar value",
        ),
        (
            "next..id",
            "`routing_key` must be a field path such as \"customer_id\" or \"order.customer_id\", found \"next..id\"",
        ),
    ];
    for (path, problem) in cases {
        option_refused(&format!("strategy: FIELD_BASED routing_key: \"{path}\""), &[problem]);
    }
}

#[test]
fn a_service_that_is_not_there_names_where_it_was_looked_for() {
    option_refused(
        r#"service: "Other""#,
        &[
            "`service` names \"Other\", and there is no such service; looked for a.b.Other, a.Other, Other; import the file that defines it",
        ],
    );
}

#[test]
fn another_service_must_have_each_method_with_the_same_types() {
    refused(
        "message N {}\n\
         service S {\n  option (grpcrouter.routes_to) = { service: \"T\" };\n  rpc One(M) returns (M);\n  rpc Two(M) returns (M);\n  rpc Three(M) returns (M);\n}\n\
         service T { rpc One(N) returns (N); rpc Two(M) returns (stream M); }\n",
        &[
            "a.proto:4:3: service a.b.S: `service` names a.b.T, whose method `One` takes a.b.N, not a.b.M",
            "a.proto:4:3: service a.b.S: `service` names a.b.T, whose method `One` returns a.b.N, not a.b.M",
            "a.proto:4:3: service a.b.S: `service` names a.b.T, whose method `Two` has a stream of answers, not no stream",
            "a.proto:4:3: service a.b.S: `service` names a.b.T, which has no method `Three`; backends of a.b.T could not answer it",
        ],
    );
}

#[test]
fn a_methods_own_option_is_told_at_its_own_line() {
    refused(
        "service S {\n  option (grpcrouter.routes_to) = { routing_key: \"id\" };\n  rpc Go(M) returns (M) {\n    option (grpcrouter.method_routes_to) = { strategy: HEADER_BASED routing_key: \"X-Id\" };\n  }\n}\n\
         service T {\n  rpc Go(M) returns (M) {\n    option (grpcrouter.method_routes_to) = { routing_key: \"id\" };\n  }\n}\n",
        &[
            "a.proto:5:5: method a.b.S.Go: `routing_key` must be a header name in lower case, \":authority\" or \"cookie:NAME\" when `strategy` is HEADER_BASED, found \"X-Id\"",
            "a.proto:10:5: method a.b.T.Go: (grpcrouter.method_routes_to) has no effect: a.b.T has no option (grpcrouter.routes_to); set that on the service",
        ],
    );
}

#[test]
fn names_that_become_one_in_rust_are_told_with_both_producers() {
    refused(
        "service S {\n  option (grpcrouter.routes_to) = {};\n  rpc GetFoo(M) returns (M);\n  rpc Get_Foo(M) returns (M);\n}\n",
        &[
            "a.proto:5:3: service a.b.S: the methods `GetFoo` and `Get_Foo` both become the Rust method `get_foo`; rename one",
        ],
    );
    refused(
        "service XGet { option (grpcrouter.routes_to) = {}; }\nservice X_Get { option (grpcrouter.routes_to) = {}; }\n",
        &[
            "a.proto:3:1: the router of service a.b.XGet (a.proto:2:1) and the router of service a.b.X_Get both become the Rust module `x_get_router`; rename one",
        ],
    );
    refused(
        "message ColRouter { message Inner {} }\nservice Col { option (grpcrouter.routes_to) = {}; }\n",
        &[
            "a.proto:3:1: the message a.b.ColRouter (a.proto:2:1) and the router of service a.b.Col both become the Rust module `col_router`; rename one",
        ],
    );
}

#[test]
fn an_enum_value_or_a_field_of_a_newer_options_proto_asks_for_a_newer_plugin() {
    let newer =
        protoc_gen_grpcrouter::OPTIONS_PROTO.replace("FIELD_BASED = 3;", "FIELD_BASED = 3; WISH_BASED = 9;").replace(
            "optional bool wait_for_instance = 7;",
            "optional bool wait_for_instance = 7; optional string wish = 8;",
        );
    let proto =
        format!("{HEAD}service S {{\n  option (grpcrouter.routes_to) = {{ strategy: WISH_BASED wish: \"x\" }};\n}}\n");
    let (plugin, builder) = both(&[("a.proto", &proto), ("proto/options.proto", &newer)]);
    let lines = "a.proto:3:3: service a.b.S: (grpcrouter.routes_to) has a field 8 that this plugin does not know; it is newer than the plugin: update protoc-gen-grpcrouter\n\
                 a.proto:3:3: service a.b.S: `strategy` has the value 9, which this plugin does not know: update protoc-gen-grpcrouter";
    assert_eq!(plugin, format!("--grpcrouter_out: {lines}\n"));
    assert_eq!(builder, lines);
}

#[test]
fn another_options_proto_is_not_taken_for_ours() {
    let foreign = protoc_gen_grpcrouter::OPTIONS_PROTO.replace("50311", "50999");
    let proto = format!("{HEAD}service S {{ option (grpcrouter.routes_to) = {{}}; }}\n");
    let (plugin, builder) = both(&[("a.proto", &proto), ("proto/options.proto", &foreign)]);
    for text in [plugin, builder] {
        assert!(
            text.contains(
                "(grpcrouter.routes_to) is not the option that this plugin reads: expected extension 50311 of \
                 google.protobuf.ServiceOptions, found 50999 of google.protobuf.ServiceOptions; use the file that \
                 `protoc-gen-grpcrouter --print-options-proto` prints"
            ),
            "{text}"
        );
        assert!(text.contains("proto/options.proto:"), "{text}");
    }
}

#[test]
fn an_unknown_parameter_is_protocs_error_and_names_the_known_ones() {
    let protos = directory(&[("a.proto", HEAD)]);
    let error =
        Protoc::new(protos.path()).with_options_proto().opt("path=source_relative").run(&["a.proto"]).err().unwrap();
    assert!(
        error.contains(
            "\n--grpcrouter_out: unknown parameter \"path\" (did you mean \"paths\"?); known: paths, gateway, "
        ),
        "{error}"
    );
}

fn builder_says(files: &[(&str, &str)], proto: &str) -> String {
    let protos = directory(files);
    let out = tempfile::tempdir().unwrap();
    let builder = configure().out_dir(out.path()).emit_rerun_if_changed(false);
    builder.compile_protos(&[proto], &[protos.path()]).expect_err("refused").to_string()
}

#[test]
fn an_option_without_its_import_says_which_import_is_missing() {
    let proto = "syntax = \"proto3\"; service S {\n  option (grpcrouter.routes_to) = {};\n}\n";
    assert_eq!(
        builder_says(&[("a.proto", proto)], "a.proto"),
        "a.proto:2:3: name 'grpcrouter.routes_to' is not defined; add import \"proto/options.proto\" to the proto file"
    );
}

#[test]
fn an_options_proto_by_another_name_says_how_to_import_it() {
    let proto = "syntax = \"proto3\";\nimport \"options.proto\";\n";
    assert_eq!(
        builder_says(&[("a.proto", proto)], "a.proto"),
        "a.proto:2:1: import 'options.proto' not found; write import \"proto/options.proto\": the builder has that file inside, so nothing need be on disk"
    );
}

#[test]
fn a_proto_file_that_is_not_there_says_where_it_must_be() {
    assert_eq!(
        builder_says(&[], "none.proto"),
        "file 'none.proto' is not in any include path; it must be there and lie under one of the include directories given to compile_protos"
    );
}
