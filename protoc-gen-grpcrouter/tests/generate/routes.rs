//! What parameters add to the code, out of protoc and, byte for byte, out of the builder: routes for services without
//! the option, attributes, and tonic's trait in its other shape.

use std::fs;

use protoc_gen_grpcrouter::{Builder, configure};

use crate::{
    golden::modules,
    protoc::{Protoc, crate_dir, directory, golden_dir},
};

/// What plugin and builder write for `kinds.proto`, which is the same.
fn both(parameters: &[&str], builder: Builder) -> String {
    let mut protoc = Protoc::new(&golden_dir()).with_options_proto().opt("paths=source_relative");
    for parameter in parameters {
        protoc = protoc.opt(parameter);
    }
    let plugin = protoc.run(&["kinds.proto"]).unwrap().text("kinds_router.rs");
    let out = tempfile::tempdir().unwrap();
    builder
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_protos(&["kinds.proto"], &[golden_dir(), crate_dir()])
        .unwrap();
    let built = fs::read_to_string(out.path().join("demo.v1.rs")).unwrap();
    let (plugins, built) = (modules(&plugin), modules(&built));
    assert_eq!(plugins.join("\n"), built.join("\n"));
    plugins.join("\n")
}

#[test]
fn a_route_serves_a_service_that_has_no_option() {
    let text = both(
        &[r#"route=demo.v1.Plain={routing_key: "shelf"\, on_missing_key: REJECT}"#],
        configure().route("demo.v1.Plain", r#"routing_key: "shelf" on_missing_key: REJECT"#),
    );
    assert!(text.contains("pub mod plain_router {"), "{text}");
    assert!(text.contains(r#".routing_key("shelf")"#) && text.contains("OnMissingKey::Reject"), "{text}");
}

#[test]
fn a_route_needs_no_options_proto() {
    let protos =
        directory(&[("a.proto", "syntax = \"proto3\"; package a; message M {} service S { rpc Go(M) returns (M); }")]);
    let written = Protoc::new(protos.path()).opt("route=a.S={}").run(&["a.proto"]).unwrap();
    assert_eq!(written.files(), ["a/a.grpcrouter.rs"]);
}

#[test]
fn attributes_stand_on_modules_and_routers_and_a_condition_on_the_gateway_too() {
    let text = both(
        &[
            r#"router_mod_attribute=.=#[cfg(feature = "router")]"#,
            "router_attribute=MyService=#[derive(PartialEq)]",
            "router_attribute=Plain=#[derive(Eq)]",
            "gateway",
        ],
        configure()
            .router_mod_attribute(".", r#"#[cfg(feature = "router")]"#)
            .router_attribute("MyService", "#[derive(PartialEq)]")
            .router_attribute("Plain", "#[derive(Eq)]")
            .gateway(true),
    );
    for part in [
        "/// Generated router implementations.\n#[cfg(feature = \"router\")]\npub mod my_service_router {",
        "    #[derive(PartialEq)]\n    #[derive(Debug, Clone)]\n    pub struct MyServiceRouter",
        "    #[cfg(feature = \"router\")]\n    let gateway = gateway.add_router::<my_service_router::MyServiceRouter>();\n    gateway\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("derive(Eq)"), "{text}");
}

#[test]
fn the_trait_is_implemented_as_tonic_was_told_to_write_it() {
    let text = both(
        &["use_arc_self,generate_default_stubs"],
        configure().tonic(|tonic| tonic.use_arc_self(true).generate_default_stubs(true)),
    );
    assert!(text.contains("self: ::std::sync::Arc<Self>,") && text.contains("::tonic::codegen::BoxStream"), "{text}");
}

/// What protoc with the plugin, and the builder, say of the golden file and this route.
fn refused(service: &str, route: &str, what: &str) {
    let protos = directory(&[("a.proto", SERVICES)]);
    let plugin = Protoc::new(protos.path())
        .with_options_proto()
        .opt(&format!("route={service}={route}"))
        .run(&["a.proto"])
        .err()
        .unwrap();
    assert_eq!(plugin, format!("--grpcrouter_out: {what}\n"));
    let out = tempfile::tempdir().unwrap();
    let builder = configure().out_dir(out.path()).emit_rerun_if_changed(false).route(service, route);
    assert_eq!(builder.compile_protos(&["a.proto"], &[protos.path()]).unwrap_err().to_string(), what);
}

const SERVICES: &str = "syntax = \"proto3\"; package a; import \"proto/options.proto\"; message M {}\n\
    service Routed { option (grpcrouter.routes_to) = {}; rpc Go(M) returns (M); }\n\
    service Plain { rpc Go(M) returns (M); }\n";

#[test]
fn a_route_of_a_service_that_is_not_there_is_refused() {
    refused(
        "a.Plan",
        "{}",
        "parameter route: no service \"a.Plan\" in the files to generate; give its full name (buf: set `strategy: all`, so that one run \
         sees all files)",
    );
}

#[test]
fn a_route_beside_an_option_is_refused_at_the_option() {
    refused(
        "a.Routed",
        "{}",
        "a.proto:2:18: service a.Routed: the route is set here and with the parameter route=a.Routed too; leave out one of them",
    );
}

#[test]
fn a_route_is_checked_as_the_option_is() {
    refused(
        "a.Plain",
        "{routing_key: \"te\" path_prefix: \"x\"}",
        "a.proto:3:1: route of service a.Plain: `routing_key` must not be \"te\", which gRPC or the gateway keeps for itself; name a metadata \
         key of your own\n\
         a.proto:3:1: route of service a.Plain: `path_prefix` must look like \"/api/v1\" (a leading '/', no trailing '/', segments of letters, \
         digits and -._~), found \"x\"",
    );
    refused(
        "a.Plain",
        "{wish: 1}",
        "parameter route=a.Plain: field 'wish' not found for message 'grpcrouter.RoutingOptions'",
    );
}
