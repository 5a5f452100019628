//! The builder alone: what it writes, what it follows of tonic's own settings, and what needs no file on disk.

use std::fs;

use protoc_gen_grpcrouter::{Builder, configure};
use tempfile::TempDir;

use crate::protoc::directory;

const SERVICE: &str = r#"syntax = "proto3";
package p;
import "proto/options.proto";
message M {}
service S {
  option (grpcrouter.routes_to) = { routing_key: "id" };
  rpc Go(M) returns (M);
}
"#;

fn build(protos: &TempDir, builder: Builder) -> String {
    let out = tempfile::tempdir().unwrap();
    // A directory that is not there yet.
    let directory = out.path().join("gen");
    builder
        .out_dir(&directory)
        .emit_rerun_if_changed(false)
        .compile_protos(&[protos.path().join("a.proto")], &[protos.path()])
        .unwrap();
    assert!(!directory.join("grpcrouter.rs").exists(), "the options are no code for users");
    fs::read_to_string(directory.join("p.rs")).unwrap()
}

#[test]
fn one_file_holds_messages_client_server_and_router_with_no_options_proto_on_disk() {
    let text = build(&directory(&[("a.proto", SERVICE)]), configure());
    for part in ["pub struct M", "pub mod s_client {", "pub mod s_server {", "pub mod s_router {"] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("pub fn gateway()"));
}

#[test]
fn a_gateway_is_written_once_for_a_package_of_several_files() {
    let other = SERVICE.replace("message M {}", "import \"a.proto\";").replace("service S", "service T");
    let protos = directory(&[("a.proto", SERVICE), ("b.proto", &other)]);
    let out = tempfile::tempdir().unwrap();
    configure()
        .gateway(true)
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_protos(&["b.proto"], &[protos.path()])
        .unwrap();
    let text = fs::read_to_string(out.path().join("p.rs")).unwrap();
    assert_eq!(text.matches("pub fn gateway()").count(), 1);
    assert!(text.contains(".add_router::<s_router::SRouter>()\n        .add_router::<t_router::TRouter>()"), "{text}");
}

#[test]
fn without_client_and_server_the_router_stands_alone() {
    let text = build(&directory(&[("a.proto", SERVICE)]), configure().build_client(false).build_server(false));
    assert!(text.contains("pub mod s_router {"));
    for part in ["s_client", "s_server", "typed_client"] {
        assert!(!text.contains(part), "{part}");
    }
}

#[test]
fn the_router_follows_what_tonics_builder_was_told() {
    let configure_tonic =
        |tonic: tonic_prost_build::Builder| tonic.build_server(false).extern_path(".p.M", "::elsewhere::M");
    let text = build(&directory(&[("a.proto", SERVICE)]), configure().tonic(configure_tonic));
    assert!(!text.contains("s_server"), "{text}");
    assert!(text.contains("pub fn typed_client(&self)"), "{text}");

    let text = build(
        &directory(&[("a.proto", SERVICE)]),
        configure().tonic(|tonic| tonic.extern_path(".p.M", "::elsewhere::M").type_attribute(".", "#[derive(Eq)]")),
    );
    assert!(text.contains("request: ::tonic::Request<::elsewhere::M>"), "{text}");
}

#[test]
fn the_router_implements_the_trait_as_tonic_was_told_to_write_it() {
    let service = SERVICE.replace("returns (M)", "returns (stream M)");
    let text = build(
        &directory(&[("a.proto", &service)]),
        configure().tonic(|tonic| tonic.use_arc_self(true).generate_default_stubs(true)),
    );
    let router = text.split("pub mod s_router").nth(1).unwrap();
    assert!(router.contains("self: ::std::sync::Arc<Self>,"), "{router}");
    assert!(router.contains("as ::tonic::codegen::BoxStream<super::M>"), "{router}");
    assert!(!router.contains("type GoStream"), "{router}");
}

#[test]
fn a_package_with_nothing_but_a_service_is_written() {
    let service = r#"syntax = "proto3"; package p; import "google/protobuf/wrappers.proto";
        service S { rpc Go(google.protobuf.BoolValue) returns (google.protobuf.BoolValue); }"#;
    let text = build(&directory(&[("a.proto", service)]), configure().build_client(false).build_server(false));
    assert!(!text.contains("mod"), "{text}");
    let text = build(&directory(&[("a.proto", service)]), configure());
    assert!(text.contains("tonic::Request<bool>") && !text.contains("super::bool"), "{text}");
}

#[test]
fn the_descriptors_are_written_with_the_options_in_them() {
    let protos = directory(&[("a.proto", SERVICE)]);
    let set = protos.path().join("set.bin");
    build(&protos, configure().file_descriptor_set_path(&set));
    let bytes = fs::read(set).unwrap();
    // Field 50311, length-delimited, of length 4: routing_key (2) = "id".
    let option = [0xba, 0xc8, 0x18, 0x04, 0x12, 0x02, b'i', b'd'];
    assert!(bytes.windows(option.len()).any(|window| window == option));
}

#[test]
fn a_path_that_is_no_rust_path_is_told_before_anything_is_compiled() {
    let error = configure().runtime_path("a b").proto_path("").compile_protos(&["none.proto"], &["."]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "runtime_path must be a Rust path such as \"::grpcrouter_runtime\", found \"a b\"\n\
         proto_path must be a Rust path such as \"super\", found \"\""
    );
}
