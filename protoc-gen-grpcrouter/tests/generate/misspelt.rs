//! What a user sees who writes the option wrongly: protoc's own words and the builder's, for those are the first that
//! are read. Each names the place, and what stands there or may stand there.

use protoc_gen_grpcrouter::configure;

use crate::protoc::{Protoc, crate_dir, directory};

/// The option as it is written, what protoc says, and what the builder says.
const MISSPELT: &[(&str, &str, &str)] = &[
    (
        "(grpcrouter.routes_to) = { strategy: METADATA }",
        r#"a.proto:3:35: Error while parsing option value for "routes_to": Unknown enumeration value of "METADATA" for field "strategy"."#,
        VALUE,
    ),
    (
        r#"(grpcrouter.routes_to) = { routing_ke: "id" }"#,
        r#"a.proto:3:35: Error while parsing option value for "routes_to": Message type "grpcrouter.RoutingOptions" has no field named "routing_ke"."#,
        VALUE,
    ),
    (
        r#"(grpcrouter.routes_to) = { strategy: "METADATA_BASED" }"#,
        r#"a.proto:3:35: Error while parsing option value for "routes_to": Expected integer or identifier, got: "METADATA_BASED""#,
        VALUE,
    ),
    (
        "(grpcrouter.routes_to) = { routing_key: id }",
        r#"a.proto:3:35: Error while parsing option value for "routes_to": Expected string, got: id"#,
        VALUE,
    ),
    (
        r#"(grpcrouter.routes_to) = { routing_key: "a", routing_key: "b" }"#,
        r#"a.proto:3:35: Error while parsing option value for "routes_to": Non-repeated field "routing_key" is specified multiple times."#,
        VALUE,
    ),
    (
        "(grpcrouter.routes_to) = { wait_for_instance: yes }",
        r#"a.proto:3:35: Error while parsing option value for "routes_to": Invalid value for boolean field "wait_for_instance". Value: "yes"."#,
        VALUE,
    ),
    (
        r#"(grpcrouter.routes_to) = "id""#,
        r#"a.proto:3:35: Option "grpcrouter.routes_to" is a message. To set the entire message, use syntax like "routes_to = { <proto text format> }". To set fields within it, use syntax like "routes_to.foo = value"."#,
        r#"a.proto:3:3: expected a value of type 'grpcrouter.RoutingOptions' for option '(grpcrouter.routes_to)', but found '"id"'; MAY_BE"#,
    ),
    (
        r#"(grpcrouter.route_to) = { routing_key: "id" }"#,
        r#"a.proto:3:10: Option "(grpcrouter.route_to)" unknown. Ensure that your proto definition file imports the proto which defines the option (i.e. via import option after edition 2024)."#,
        r#"a.proto:3:3: 'grpcrouter.route_to' resolves to 'grpcrouter.route_to', which is not defined; there are (grpcrouter.routes_to) for services and (grpcrouter.method_routes_to) for methods"#,
    ),
    (
        r#"grpcrouter.routes_to = { routing_key: "id" }"#,
        r#"a.proto:3:10: Option "grpcrouter" unknown. Ensure that your proto definition file imports the proto which defines the option (i.e. via import option after edition 2024)."#,
        "a.proto:3:3: option field 'grpcrouter' is not defined; write it in parentheses: (grpcrouter.routes_to)",
    ),
    (
        r#"(grpcrouter.method_routes_to) = { routing_key: "id" }"#,
        r#"a.proto:3:10: Option field "(grpcrouter.method_routes_to)" is not a field or extension of message "ServiceOptions"."#,
        "a.proto:3:3: expected an extension to type 'google.protobuf.ServiceOptions', but 'grpcrouter.method_routes_to' extends 'google.protobuf.MethodOptions'",
    ),
];

const VALUE: &str =
    "a.proto:3:3: invalid value of type 'grpcrouter.RoutingOptions' for option '(grpcrouter.routes_to)'; MAY_BE";

const MAY_BE: &str = "it is written { routing_key: \"id\" strategy: METADATA_BASED }, each field at most once: service, routing_key, path_prefix \
    (texts in quotes), strategy (METADATA_BASED, PATH_BASED, HEADER_BASED, FIELD_BASED), load_balancing (ROUND_ROBIN, WEIGHTED_ROUND_ROBIN, \
    LEAST_REQUEST, PEAK_EWMA, CONSISTENT_HASH, RANDOM), on_missing_key (BALANCE, REJECT), wait_for_instance (true, false)";

fn proto(option: &str) -> String {
    format!(
        "syntax = \"proto3\"; package a; import \"proto/options.proto\"; message M {{}}\n\
         service S {{\n  option {option};\n  rpc Get(M) returns (M);\n}}\n"
    )
}

#[test]
fn protoc_tells_an_option_that_is_written_wrongly_with_its_place() {
    for (option, said, _) in MISSPELT {
        let protos = directory(&[("a.proto", &proto(option))]);

        let error = Protoc::new(protos.path()).with_options_proto().run(&["a.proto"]).err();

        assert_eq!(error.unwrap_or_default().trim_end(), *said, "{option}");
    }
}

#[test]
fn the_builder_tells_what_may_stand_in_the_option() {
    for (option, _, said) in MISSPELT {
        let protos = directory(&[("a.proto", &proto(option))]);
        let out = tempfile::tempdir().unwrap();

        let built = configure()
            .out_dir(out.path())
            .emit_rerun_if_changed(false)
            .compile_protos(&["a.proto"], &[protos.path().to_owned(), crate_dir()]);

        assert_eq!(built.unwrap_err().to_string(), said.replace("MAY_BE", MAY_BE), "{option}");
    }
}
