//! The scan against wire bytes by hand, and against prost-reflect, which decodes, over any message.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a failing test may panic")]
use std::collections::HashSet;

use proptest::prelude::*;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind as FieldKind, Value as Decoded};

use super::*;

const ID: FieldPath<'static> = FieldPath::new(&[1], FieldType::String);
const NESTED: FieldPath<'static> = FieldPath::new(&[2, 1], FieldType::String);

fn read(message: &[u8], path: &FieldPath<'_>) -> Result<Option<Bytes>, &'static str> {
    super::read(message, &(*path).into())
}

fn key(message: &[u8], path: &FieldPath<'_>) -> Result<Option<String>, &'static str> {
    read(message, path).map(|key| key.map(|key| String::from_utf8(key.to_vec()).unwrap()))
}

#[test]
fn the_last_value_wins_and_messages_are_merged() {
    assert_eq!(key(b"\x0a\x01a\x10\x05\x0a\x01b", &ID), Ok(Some("b".into())));
    // { customer { id: "a" } } then { customer { name: "x" } }: one customer with both.
    assert_eq!(key(b"\x12\x03\x0a\x01a\x12\x03\x12\x01x", &NESTED), Ok(Some("a".into())));
    // As a group, where the proto file says so.
    assert_eq!(key(b"\x13\x0a\x01a\x14", &NESTED), Ok(Some("a".into())));
}

#[test]
fn a_zero_or_empty_value_is_a_key_only_where_it_has_a_presence() {
    let number = FieldPath::new(&[2], FieldType::Int32);
    assert_eq!(key(b"", &ID), Ok(None));
    assert_eq!(key(b"\x0a\x00", &ID), Ok(None));
    assert_eq!(key(b"\x0a\x00", &ID.presence()), Ok(Some(String::new())));
    assert_eq!(key(b"\x10\x05\x10\x00", &number), Ok(None));
    assert_eq!(key(b"\x10\x05\x10\x00", &number.presence()), Ok(Some("0".into())));
}

#[test]
fn another_field_of_the_oneof_takes_its_place() {
    let path = FieldPath::new(&[1], FieldType::String).presence().rivals(&[&[2]]);
    assert_eq!(key(b"\x0a\x01a\x10\x05", &path), Ok(None));
    assert_eq!(key(b"\x10\x05\x0a\x01a", &path), Ok(Some("a".into())));
}

#[test]
fn each_type_has_its_text() {
    for (kind, wire, text) in [
        (FieldType::Bool, &b"\x08\x01"[..], "true"),
        (FieldType::Int32, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "-1"),
        (FieldType::Enum, b"\x08\x02", "2"),
        (FieldType::Int64, b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "-9223372036854775808"),
        (FieldType::Uint32, b"\x08\xff\xff\xff\xff\x0f", "4294967295"),
        (FieldType::Uint64, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "18446744073709551615"),
        (FieldType::Sint32, b"\x08\x03", "-2"),
        (FieldType::Sint64, b"\x08\x04", "2"),
        (FieldType::Fixed32, b"\x0d\xff\xff\xff\xff", "4294967295"),
        (FieldType::Sfixed32, b"\x0d\xff\xff\xff\xff", "-1"),
        (FieldType::Fixed64, b"\x09\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
        (FieldType::Sfixed64, b"\x09\xff\xff\xff\xff\xff\xff\xff\xff", "-1"),
    ] {
        assert_eq!(key(wire, &FieldPath::new(&[1], kind)), Ok(Some(text.into())), "{kind:?}");
    }
    assert_eq!(key(b"\x08\x00", &FieldPath::new(&[1], FieldType::Bool).presence()), Ok(Some("false".into())));
    assert_eq!(read(b"\x0a\x01\xff", &FieldPath::new(&[1], FieldType::Bytes)), Ok(Some(b"\xff"[..].into())));
    assert_eq!(key(b"\x0a\x01\xff", &ID), Err("it is not UTF-8"));
}

#[test]
fn what_is_no_protobuf_or_of_another_type_is_refused() {
    for wire in [
        &b"\x0a"[..],
        b"\x0a\x02a",
        b"\x00",
        b"\x0f",
        b"\x14",
        b"\x1b\x24",
        b"\x1b",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ] {
        assert_eq!(key(wire, &ID), Err(NOT_PROTOBUF), "{wire:?}");
    }
    assert_eq!(key(b"\x08\x01", &ID), Err(OTHER_TYPE));
    assert_eq!(key(b"\x10\x01", &NESTED), Err(OTHER_TYPE));
    let deep = [vec![0x1b; 200], vec![0x1c; 200]].concat();
    assert_eq!(key(&deep, &ID), Err(NOT_PROTOBUF));
}

const PROTO: &str = r#"syntax = "proto2"; package t;
enum Color { RED = 0; BLUE = -5; }
message Leaf {
  optional string s = 1; optional bytes b = 2; optional bool t = 3; optional Color e = 4;
  optional int32 i32 = 5; optional int64 i64 = 6; optional uint32 u32 = 7; optional uint64 u64 = 8;
  optional sint32 s32 = 9; optional sint64 s64 = 10; optional fixed32 f32 = 11; optional fixed64 f64 = 12;
  optional sfixed32 sf32 = 13; optional sfixed64 sf64 = 14;
  oneof one { string a = 15; int64 n = 16; Leaf l = 17; }
  repeated string other = 18; optional double d = 19; map<string, int32> m = 20;
  optional Leaf leaf = 21;
}"#;

fn pool() -> DescriptorPool {
    let file = protox::file::File::from_source("t.proto", PROTO).unwrap();
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_proto(file.file_descriptor_proto().clone()).unwrap();
    pool
}

fn kind_of(field: &FieldDescriptor) -> Option<FieldType> {
    Some(match field.kind() {
        FieldKind::String => FieldType::String,
        FieldKind::Bytes => FieldType::Bytes,
        FieldKind::Bool => FieldType::Bool,
        FieldKind::Enum(_) => FieldType::Enum,
        FieldKind::Int32 => FieldType::Int32,
        FieldKind::Int64 => FieldType::Int64,
        FieldKind::Uint32 => FieldType::Uint32,
        FieldKind::Uint64 => FieldType::Uint64,
        FieldKind::Sint32 => FieldType::Sint32,
        FieldKind::Sint64 => FieldType::Sint64,
        FieldKind::Fixed32 => FieldType::Fixed32,
        FieldKind::Fixed64 => FieldType::Fixed64,
        FieldKind::Sfixed32 => FieldType::Sfixed32,
        FieldKind::Sfixed64 => FieldType::Sfixed64,
        _ => return None,
    })
}

/// Each scalar field of `Leaf`, alone and below one and two others, as the generator would write it.
fn paths(pool: &DescriptorPool) -> Vec<FieldPath<'static>> {
    let leaf = pool.get_message_by_name("t.Leaf").unwrap();
    let rivals = |number: u32| -> &'static [u32] {
        match number {
            15 => &[16, 17],
            16 => &[15, 17],
            17 => &[15, 16],
            _ => &[],
        }
    };
    let mut paths = Vec::new();
    for above in [&[][..], &[21], &[17], &[17, 21], &[21, 21, 17]] {
        for field in leaf.fields().filter(|field| !field.is_list()) {
            let Some(kind) = kind_of(&field) else { continue };
            let numbers = [above, &[field.number()]].concat();
            let rivals: Vec<&'static [u32]> = numbers.iter().map(|number| rivals(*number)).collect();
            paths.push(FieldPath::new(numbers.leak(), kind).presence().rivals(rivals.leak()));
        }
    }
    paths
}

/// What prost-reflect, which decodes the whole message, has there.
fn decoded(message: &DynamicMessage, path: &FieldPath<'_>) -> Option<Vec<u8>> {
    let (last, above) = path.numbers.split_last().unwrap();
    let mut message = message.clone();
    for number in above {
        if !message.has_field_by_number(*number) {
            return None;
        }
        message = message.get_field_by_number(*number)?.as_message()?.clone();
    }
    if !message.has_field_by_number(*last) {
        return None;
    }
    Some(match &*message.get_field_by_number(*last)? {
        Decoded::String(text) => text.clone().into_bytes(),
        Decoded::Bytes(bytes) => bytes.to_vec(),
        Decoded::Bool(value) => value.to_string().into_bytes(),
        Decoded::EnumNumber(value) | Decoded::I32(value) => value.to_string().into_bytes(),
        Decoded::I64(value) => value.to_string().into_bytes(),
        Decoded::U32(value) => value.to_string().into_bytes(),
        Decoded::U64(value) => value.to_string().into_bytes(),
        other => panic!("{other:?} is no key"),
    })
}

/// A field of a `Leaf` on the wire: of a known number or not, its own type most often, in any order and number.
fn fields(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let varint = |value: u64| {
        let mut out = Vec::new();
        let mut left = value;
        while left >= 0x80 {
            out.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
        out
    };
    let tag = move |number: u64, kind: u64| varint(number << 3 | kind);
    let number =
        prop_oneof![Just(0_u64), Just(1), Just(u64::MAX), 0..300_u64, any::<u64>(), (0..=u32::MAX).prop_map(u64::from)];
    let varints = (
        prop_oneof![Just(3_u64), Just(4), Just(5), Just(6), Just(7), Just(8), Just(9), Just(10), Just(16), Just(100)],
        number,
    )
        .prop_map(move |(field, value)| [tag(field, 0), varint(value)].concat());
    let fixed32 = (prop_oneof![Just(11_u64), Just(13), Just(101)], any::<u32>())
        .prop_map(move |(field, value)| [tag(field, 5), value.to_le_bytes().to_vec()].concat());
    let fixed64 = (prop_oneof![Just(12_u64), Just(14), Just(19), Just(102)], any::<u64>())
        .prop_map(move |(field, value)| [tag(field, 1), value.to_le_bytes().to_vec()].concat());
    let text = (prop_oneof![Just(1_u64), Just(2), Just(15), Just(18), Just(103)], "[a-zü]{0,3}")
        .prop_map(move |(field, text)| [tag(field, 2), varint(text.len() as u64), text.into_bytes()].concat());
    let mut one = vec![varints.boxed(), fixed32.boxed(), fixed64.boxed(), text.boxed()];
    if depth > 0 {
        let nested = (prop_oneof![Just(17_u64), Just(21)], fields(depth - 1))
            .prop_map(move |(field, inner)| [tag(field, 2), varint(inner.len() as u64), inner].concat());
        let group = fields(depth - 1).prop_map(move |inner| [tag(104, 3), inner, tag(104, 4)].concat());
        one.extend([nested.clone().boxed(), nested.boxed(), group.boxed()]);
    }
    proptest::collection::vec(proptest::strategy::Union::new(one), 0..8).prop_map(|fields| fields.concat()).boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_message_has_the_key_that_decoding_it_gives(wire in fields(3)) {
        let pool = pool();
        let message = DynamicMessage::decode(pool.get_message_by_name("t.Leaf").unwrap(), wire.as_slice()).unwrap();
        for path in paths(&pool) {
            let found = read(&wire, &path).unwrap().map(|key| key.to_vec());
            prop_assert_eq!(found, decoded(&message, &path), "{:?}", path);
        }
    }

    #[test]
    fn any_bytes_give_a_key_or_an_error(wire in proptest::collection::vec(any::<u8>(), 0..64)) {
        let pool = pool();
        let leaf = pool.get_message_by_name("t.Leaf").unwrap();
        let is_message = DynamicMessage::decode(leaf, wire.as_slice()).is_ok();
        for path in paths(&pool) {
            let found = read(&wire, &path);
            // What decodes is never called broken.
            prop_assert!(!is_message || found != Err(NOT_PROTOBUF), "{:?}", path);
        }
    }
}

#[test]
fn the_property_meets_every_path_with_and_without_a_value() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let (pool, mut runner) = (pool(), TestRunner::deterministic());
    let mut seen = HashSet::new();
    for _ in 0..512 {
        let wire = fields(3).new_tree(&mut runner).unwrap().current();
        for path in paths(&pool).iter().filter(|path| path.numbers.len() < 3) {
            seen.insert((path.numbers, read(&wire, path).unwrap().is_some()));
        }
    }
    let shallow = paths(&pool).iter().filter(|path| path.numbers.len() < 3).count();
    assert_eq!(seen.len(), 2 * shallow);
}
