//! Against what protox compiles: the option is read as the generator reads it, and refused as it refuses it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failing test may panic")]
use prost_reflect::prost::Message as _;

use super::types::Found;
use super::*;
use crate::codegen::{FieldType, LoadBalancing, MethodSpec, OnMissingKey, ServiceSpec};

/// Compiled with all that it imports.
fn compiled(proto: &str) -> Bytes {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shop.proto"), proto).unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut compiler = protox::Compiler::new([directory.path(), root]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_file("shop.proto").unwrap();
    compiler.encode_file_descriptor_set().into()
}

/// A service of this option, and of these methods beside `Buy`.
fn shop(option: &str, methods: &str) -> String {
    format!(
        r#"syntax = "proto3"; package shop.v1; import "proto/options.proto";
        message Order {{
            message Customer {{ string id = 1; map<string, string> tags = 2; optional bytes mark = 3; }}
            Customer customer = 2; repeated string lines = 3; double price = 4;
            oneof to {{ string street = 5; sint64 box = 6; Customer other = 7; }}
        }}
        message Receipt {{}}
        service Plain {{ rpc Buy(Order) returns (Receipt); rpc Sell(Receipt) returns (Order); }}
        service Orders {{ {option} rpc Buy(Order) returns (Receipt); {methods} }}"#
    )
}

fn refused(option: &str, methods: &str) -> String {
    services(&compiled(&shop(option, methods))).unwrap_err().to_string()
}

#[test]
fn what_the_options_say_is_what_generated_code_would_say() {
    static METHODS: &[MethodSpec] = &[
        MethodSpec::new("shop.v1.Orders", "Buy", "", Kind::Unary),
        MethodSpec::new("shop.v1.Orders", "Watch", "", Kind::ServerStreaming).routes(
            MethodRoutes::new()
                .routing_key("cookie:shelf")
                .load_balancing(LoadBalancing::Random)
                .wait_for_instance(false),
        ),
        MethodSpec::new("shop.v1.Orders", "Put", "", Kind::ClientStreaming),
        MethodSpec::new("shop.v1.Orders", "Talk", "", Kind::Bidi),
    ];
    static SPEC: ServiceSpec = ServiceSpec::new("shop.v1.Orders", "shop.v1.Orders")
        .routing_key("x-tenant")
        .strategy(Strategy::HeaderBased)
        .path_prefix("/api")
        .load_balancing(LoadBalancing::PeakEwma)
        .on_missing_key(OnMissingKey::Reject)
        .wait_for_instance(true)
        .methods(METHODS);
    let option = r#"option (grpcrouter.routes_to) = { routing_key: "x-tenant" strategy: HEADER_BASED path_prefix: "/api"
        load_balancing: PEAK_EWMA on_missing_key: REJECT wait_for_instance: true };"#;
    let methods = r#"rpc Watch(Order) returns (stream Receipt) {
            option (grpcrouter.method_routes_to) =
                { routing_key: "cookie:shelf" load_balancing: RANDOM wait_for_instance: false };
        }
        rpc Put(stream Order) returns (Receipt);
        rpc Talk(stream Order) returns (stream Receipt);"#;

    let found = services(&compiled(&shop(option, methods))).unwrap();

    let generated = ServiceRoutes::generated(&SPEC);
    assert_eq!(found.iter().map(ServiceRoutes::name).collect::<Vec<_>>(), ["shop.v1.Orders"]);
    assert_eq!(found[0].options(), generated.options());
    assert!(found[0].methods().eq(generated.methods()));
}

#[test]
fn methods_that_may_be_executed_twice_are_those_that_say_so_or_whose_target_does() {
    let level = |level: &str| format!("option idempotency_level = {level};");
    let file = |own: &str, others: &str| {
        format!(
            r#"syntax = "proto3"; import "proto/options.proto"; message M {{}}
            service Plain {{ rpc Buy(M) returns (M) {{ {others} }} }}
            service Front {{ option (grpcrouter.routes_to) = {{ service: "Plain" }}; rpc Buy(M) returns (M) {{ {own} }} }}"#
        )
    };
    for (own, others, expected) in [
        ("", "", false),
        ("NO_SIDE_EFFECTS", "", true),
        ("IDEMPOTENT", "", true),
        ("", "IDEMPOTENT", true),
        ("IDEMPOTENCY_UNKNOWN", "", false),
        ("", "IDEMPOTENCY_UNKNOWN", false),
    ] {
        let option = |said: &str| if said.is_empty() { String::new() } else { level(said) };
        let found = services(&compiled(&file(&option(own), &option(others)))).unwrap();
        assert_eq!(found[0].may_repeat("Buy"), expected, "{own} {others}");
    }
}

#[test]
fn the_fields_of_requests_are_found_by_their_numbers() {
    let set = compiled(&shop("", ""));
    let described = Described::read(&set).unwrap();
    let find = |path: &str| described.types.find(path, ".shop.v1.Order").unwrap();
    let found = |numbers: &[u32], rivals: &[&[u32]], kind, presence| Found {
        numbers: numbers.to_vec(),
        rivals: rivals.iter().map(|rivals| rivals.to_vec()).collect(),
        kind,
        presence,
    };

    assert_eq!(find("customer.id"), found(&[2, 1], &[&[], &[]], FieldType::String, false));
    assert_eq!(find("customer.mark"), found(&[2, 3], &[&[], &[]], FieldType::Bytes, true));
    assert_eq!(find("box"), found(&[6], &[&[5, 7]], FieldType::Sint64, true));
    assert_eq!(find("other.id"), found(&[7, 1], &[&[5, 6], &[]], FieldType::String, false));
}

#[test]
fn every_file_says_itself_whether_its_fields_have_a_presence() {
    for (syntax, presence) in [("syntax = \"proto2\";", true), ("syntax = \"proto3\";", false)] {
        let field = if presence { "optional string id = 1;" } else { "string id = 1;" };
        let set = compiled(&format!("{syntax} message M {{ {field} }}"));
        assert_eq!(Described::read(&set).unwrap().types.find("id", "M").unwrap().presence, presence, "{syntax}");
    }
    // An edition, which this compiler does not read: explicit, in the file implicit, and in one field explicit again.
    let field = |options: &[u8]| [b"\x0a\x01f\x18\x01\x28\x09".as_slice(), options].concat();
    let message = |field: &[u8]| [&[0x0a, 1, b'M', 0x12, field.len() as u8], field].concat();
    let file = |options: &[u8], field: &[u8]| {
        let message = message(field);
        let file = [b"\x0a\x01a\x62\x08editions".as_slice(), options, &[0x22, message.len() as u8], &message].concat();
        Bytes::from([&[0x0a, file.len() as u8], &*file].concat())
    };
    let implicit = b"\x42\x05\x92\x03\x02\x08\x02";
    let explicit = b"\x42\x05\xaa\x01\x02\x08\x01";
    for (options, own, presence) in [(&b""[..], &b""[..], true), (implicit, b"", false), (implicit, explicit, true)] {
        let set = file(options, &field(own));
        assert_eq!(Described::read(&set).unwrap().types.find("f", "M").unwrap().presence, presence, "{options:?}");
    }
}

#[test]
fn what_cannot_be_a_key_is_refused_with_the_method_and_the_reason() {
    let by_field = |key: &str| {
        refused(&format!("option (grpcrouter.routes_to) = {{ strategy: FIELD_BASED routing_key: \"{key}\" }};"), "")
    };

    for (key, why) in [
        ("customers.id", "the message shop.v1.Order has no field \"customers\""),
        ("customer.name", "the message shop.v1.Order.Customer has no field \"name\""),
        ("customer", "is a message"),
        ("lines", "is repeated"),
        ("customer.tags", "is a map"),
        ("price", "is a floating-point number"),
        ("street.name", "is no message, so nothing is below it"),
    ] {
        let error = by_field(key);
        assert!(error.starts_with("service shop.v1.Orders/Buy: ") && error.contains(why), "{key}: {error}");
    }
}

#[test]
fn another_service_answers_only_if_it_has_the_same_methods() {
    let plain = r#"option (grpcrouter.routes_to) = { service: "Plain" };"#;
    let found = services(&compiled(&shop(plain, ""))).unwrap();
    assert_eq!(found[0].target_name(), "shop.v1.Plain");

    assert!(refused(plain, "rpc Count(Order) returns (Receipt);").contains("it has no method Count"));
    assert!(refused(plain, "rpc Sell(Order) returns (Receipt);").contains("its method Sell has other messages"));
    let nobody = refused(r#"option (grpcrouter.routes_to) = { service: "Nobody" };"#, "");
    assert!(nobody.contains("looked for shop.v1.Nobody, shop.Nobody, Nobody"), "{nobody}");
}

#[test]
fn an_option_of_a_method_alone_is_refused() {
    let alone = r#"rpc Sell(Order) returns (Receipt) { option (grpcrouter.method_routes_to).routing_key = "x"; }"#;

    assert!(refused("", alone).contains("its service has no option (grpcrouter.routes_to)"));
}

#[test]
fn what_is_newer_than_this_gateway_is_refused_and_not_guessed() {
    for (option, told) in [(&b"\x18\x09"[..], "field 3 = 9"), (b"\x40\x01", "field 8"), (b"\x4a\x01a", "field 9")] {
        let settings = [&[0xba, 0xc8, 0x18, option.len() as u8], option].concat();
        let settings = Settings::read(&settings, options::ROUTES_TO).unwrap().unwrap();
        let error = settings.check("a.S").unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("update the gateway"), "{error}");
    }
}

#[test]
fn reflection_is_given_the_routed_services_files_without_their_comments() {
    let set = compiled(&shop("option (grpcrouter.routes_to) = {};", ""));

    let found = services(&set).unwrap();

    let kept = prost_types::FileDescriptorSet::decode(found[0].descriptors().clone()).unwrap();
    let names: Vec<_> = kept.file.iter().map(|file| file.name().to_owned()).collect();
    assert_eq!(names, ["shop.proto", "proto/options.proto", "google/protobuf/descriptor.proto"]);
    assert!(kept.file.iter().all(|file| file.source_code_info.is_none()));
}

#[test]
fn what_is_no_descriptor_set_says_how_to_make_one() {
    for bytes in [&b""[..], b"\xff", b"syntax = \"proto3\";", b"\x0a\x05\x0a\x01a\x22\x09"] {
        let error = services(&Bytes::from_static(bytes)).unwrap_err().to_string();
        assert!(error.contains("--include_imports --descriptor_set_out=FILE"), "{error}");
    }
}
