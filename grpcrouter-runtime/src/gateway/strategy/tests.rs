//! Each way to read a key, and what a key cannot be.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use http::HeaderValue;
use tonic::Code;

use super::*;
use crate::codegen::{FieldPath, FieldType, ServiceSpec};

const SPEC: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.Orders");
const ID: FieldPath<'static> = FieldPath::new(&[1], FieldType::String);

fn reader(spec: ServiceSpec) -> Result<KeyReader, ConfigError> {
    let ServiceSpec { routing_key, strategy, load_balancing, on_missing_key, .. } = spec;
    let field = spec.field.map(Field::from);
    let asked = Asked { routing_key, strategy, load_balancing, on_missing_key, field: field.as_ref() };
    KeyReader::new("shop.Orders", &asked)
}

fn refused(spec: ServiceSpec) -> String {
    reader(spec).unwrap_err().to_string()
}

fn headers(key: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(key), HeaderValue::from_static(value))])
}

fn read(reader: &KeyReader, headers: &HeaderMap) -> Result<Read, Answer> {
    reader.read("shop.Orders", &Head { headers, authority: "Acme.example.com:80", segment: Some("eu%2Fwest") })
}

fn value(bytes: &'static [u8]) -> RoutingKey {
    RoutingKey::Value(Bytes::from_static(bytes))
}

#[test]
fn each_strategy_reads_its_own_place() {
    for (spec, headers, key) in [
        (SPEC.routing_key("instanceid"), headers("instanceid", "a"), &b"a"[..]),
        (SPEC.routing_key("shard-bin"), headers("shard-bin", "AP8"), b"\x00\xff"),
        (SPEC.strategy(Strategy::PathBased), HeaderMap::new(), b"eu/west"),
        (SPEC.strategy(Strategy::HeaderBased).routing_key("user-agent"), headers("user-agent", "x/1"), b"x/1"),
        (SPEC.strategy(Strategy::HeaderBased).routing_key(":authority"), HeaderMap::new(), b"acme.example.com"),
        (SPEC.strategy(Strategy::HeaderBased).routing_key("cookie:SID"), headers("cookie", "SID=7"), b"7"),
    ] {
        assert_eq!(read(&reader(spec).unwrap(), &headers).unwrap(), Read::Key(value(key)), "{spec:?}");
    }
}

#[test]
fn a_call_without_the_key_is_balanced_or_refused_as_the_option_says() {
    for spec in [
        SPEC.routing_key("instanceid"),
        SPEC.routing_key("shard-bin"),
        SPEC.strategy(Strategy::HeaderBased).routing_key("x-tenant"),
        SPEC.strategy(Strategy::HeaderBased).routing_key("cookie:SID"),
        SPEC.strategy(Strategy::PathBased).routing_key("tenant"),
    ] {
        let empty = HeaderMap::new();
        let bare = Head { headers: &empty, authority: "", segment: None };
        let balanced = reader(spec).unwrap().read("shop.Orders", &bare);
        assert_eq!(balanced.unwrap(), Read::Key(RoutingKey::Absent), "{spec:?}");

        let reader = reader(spec.on_missing_key(OnMissingKey::Reject)).unwrap();
        let answer = reader.read("shop.Orders", &bare).unwrap_err();

        assert_eq!(answer.code, Code::InvalidArgument);
        let named = format!("{} ({})", spec.routing_key.unwrap(), spec.strategy.name());
        assert!(answer.message.contains(&named), "{}", answer.message);
    }
}

#[test]
fn a_key_that_nobody_can_have_is_an_invalid_argument_that_names_it() {
    let long = "x".repeat(MAX_KEY + 1);
    let long = HeaderMap::from_iter([(HeaderName::from_static("instanceid"), HeaderValue::from_str(&long).unwrap())]);
    for (key, headers, why) in [
        ("instanceid", headers("instanceid", ""), "it is empty"),
        ("instanceid", long, "it has 1025 bytes, at most 1024 are taken"),
        ("shard-bin", headers("shard-bin", "!"), "its value is not base64"),
    ] {
        let answer = read(&reader(SPEC.routing_key(key)).unwrap(), &headers).unwrap_err();

        assert_eq!(answer.code, Code::InvalidArgument);
        let text = format!("the routing key {key} (METADATA_BASED) of a call to shop.Orders is malformed: {why}");
        assert_eq!(answer.message, text);
    }
}

#[test]
fn a_field_is_read_once_the_first_message_is_there() {
    let spec = SPEC.strategy(Strategy::FieldBased).routing_key("id").field(ID);
    let reader = reader(spec.on_missing_key(OnMissingKey::Reject)).unwrap();
    assert_eq!(read(&reader, &HeaderMap::new()).unwrap(), Read::InMessage);
    let read = |come: &'static [u8], ended| reader.read_message("shop.Orders", std::iter::once(come), ended);

    assert_eq!(read(b"\0\0\0\0\x03\x0a", false).unwrap(), None);
    assert_eq!(read(b"\0\0\0\0\x03\x0a\x01a", false).unwrap(), Some(value(b"a")));
    let missing = read(b"\0\0\0\0\0", true).unwrap_err();
    assert!(missing.message.contains("need the routing key id (FIELD_BASED)"), "{}", missing.message);
    let compressed = read(b"\x01\0\0\0\x03", false).unwrap_err();
    assert_eq!(compressed.code, Code::InvalidArgument);
    assert!(compressed.message.contains("id (FIELD_BASED)") && compressed.message.contains("compressed"));
}

#[test]
fn a_key_that_no_client_can_set_is_refused() {
    for key in ["grpc-timeout", "te", "x-grpcrouter-principal", "two words"] {
        assert!(matches!(reader(SPEC.routing_key(key)), Err(ConfigError::InvalidOption { .. })), "{key}");
    }
    for key in ["X-Tenant", "te", "proxy-authorization", "x-grpcrouter-principal", "cookie:", "cookie:a b", ":path"] {
        let spec = SPEC.strategy(Strategy::HeaderBased).routing_key(key);
        assert!(matches!(reader(spec), Err(ConfigError::InvalidOption { .. })), "{key}");
    }
}

#[test]
fn options_that_cannot_go_together_are_refused() {
    assert!(refused(SPEC.on_missing_key(OnMissingKey::Reject)).contains("no routing_key that a call could carry"));
    assert!(refused(SPEC.load_balancing(LoadBalancing::ConsistentHash)).contains("CONSISTENT_HASH"));
    for strategy in [Strategy::HeaderBased, Strategy::FieldBased] {
        assert!(refused(SPEC.strategy(strategy)).contains("it needs a routing_key"), "{strategy:?}");
    }
    let by_field = SPEC.strategy(Strategy::FieldBased).routing_key("id");
    assert!(refused(by_field).contains("the field's numbers are not known"));
    for numbers in [&[][..], &[0], &[1 << 29]] {
        let error = refused(by_field.field(FieldPath::new(numbers, FieldType::String)));
        assert!(error.contains("must be field numbers"), "{error}");
    }
}
