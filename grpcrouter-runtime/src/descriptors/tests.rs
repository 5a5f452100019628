//! What is found in descriptors, and what of them is not taken.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use prost::Message as _;
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto, SourceCodeInfo,
};

use super::*;

fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
        ..FileDescriptorProto::default()
    }
}

fn message(name: &str) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() }
}

fn read(file: Vec<FileDescriptorProto>) -> Result<Set, BadSet> {
    Set::read(&FileDescriptorSet { file }.encode_to_vec().into())
}

fn field(name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto { name: Some(name.to_owned()), number: Some(3), ..FieldDescriptorProto::default() }
}

#[test]
fn all_that_a_file_defines_is_found_by_its_full_name() {
    let colour = EnumDescriptorProto {
        name: Some("Colour".to_owned()),
        value: vec![EnumValueDescriptorProto { name: Some("RED".to_owned()), ..EnumValueDescriptorProto::default() }],
        ..EnumDescriptorProto::default()
    };
    let extension = |name: &str, of: &str| FieldDescriptorProto { extendee: Some(of.to_owned()), ..field(name) };
    let outer = DescriptorProto {
        field: vec![field("id")],
        oneof_decl: vec![OneofDescriptorProto { name: Some("kind".to_owned()), options: None }],
        nested_type: vec![DescriptorProto { enum_type: vec![colour.clone()], ..message("Inner") }],
        extension: vec![extension("inside", ".shop.Outer")],
        ..message("Outer")
    };
    let buy = MethodDescriptorProto { name: Some("Buy".to_owned()), ..MethodDescriptorProto::default() };
    let service = ServiceDescriptorProto { name: Some("Orders".to_owned()), method: vec![buy], options: None };
    let shop = FileDescriptorProto {
        package: Some("shop".to_owned()),
        message_type: vec![outer],
        enum_type: vec![colour],
        service: vec![service],
        extension: vec![extension("top", ".google.protobuf.FieldOptions")],
        ..file("shop.proto", &["other.proto"])
    };

    let set = read(vec![shop]).unwrap();

    let [found] = set.files.as_slice() else { panic!("one file: {set:?}") };
    assert_eq!(
        (&*found.name, found.package.as_str(), found.imports.as_slice()),
        ("shop.proto", "shop", &["other.proto".to_owned()][..])
    );
    let symbols: Vec<&str> = found.symbols.iter().map(|symbol| &**symbol).collect();
    let expected = [
        "shop.Outer",
        "shop.Outer.id",
        "shop.Outer.Inner",
        "shop.Outer.Inner.Colour",
        "shop.Outer.Inner.RED",
        "shop.Outer.inside",
        "shop.Outer.kind",
        "shop.Colour",
        "shop.RED",
        "shop.Orders",
        "shop.Orders.Buy",
        "shop.top",
    ];
    assert_eq!(symbols, expected);
    assert_eq!(set.services().map(|name| &**name).collect::<Vec<_>>(), ["shop.Orders"]);
    let extensions = [("shop.Outer".to_owned(), 3), ("google.protobuf.FieldOptions".to_owned(), 3)];
    assert_eq!(found.extensions, extensions);
}

#[test]
fn source_info_goes_and_every_other_byte_stays() {
    let plain = file("a.proto", &[]).encode_to_vec();
    let told = FileDescriptorProto { source_code_info: Some(SourceCodeInfo::default()), ..file("a.proto", &[]) };
    // An option that nobody here knows.
    let option = [0x42, 0x05, 0xba, 0xc8, 0x18, 0x01, b'x'];
    let set = |file: Vec<u8>| {
        let mut bytes = vec![0x0a, u8::try_from(file.len()).unwrap()];
        bytes.extend_from_slice(&file);
        Set::read(&bytes.into()).unwrap()
    };

    let [with, without] = [told.encode_to_vec(), plain.clone()].map(|file| set([file, option.to_vec()].concat()));

    let (with, without) = (with.files.first().unwrap(), without.files.first().unwrap());
    assert_eq!(with.bytes, [plain, option.to_vec()].concat());
    assert_eq!((with.hash, &with.bytes), (without.hash, &without.bytes));
}

#[test]
fn what_is_no_set_is_told_as_such() {
    for garbage in [&b"\x0a\xff\xff\xff\xff\x0f"[..], b"\x0a\x05abc", b"not a set at all", b"\x0a\x02\x0a\x09"] {
        let error = Set::read(&Bytes::copy_from_slice(garbage)).unwrap_err().to_string();
        assert_eq!(error, "not a descriptor: no protobuf message");
    }
    let nameless = |file| read(vec![file]).unwrap_err().to_string();
    assert_eq!(nameless(file("", &[])), "a file without a name, or with one that is none");
    assert_eq!(nameless(file("a\nb.proto", &[])), "a file without a name, or with one that is none");
    let unnamed = FileDescriptorProto { message_type: vec![message("")], ..file("a.proto", &[]) };
    assert_eq!(nameless(unnamed), "not a descriptor: something has no name");
    assert!(read(Vec::new()).unwrap().files.is_empty());
}

#[test]
fn what_is_larger_than_anybody_needs_is_not_taken() {
    assert_eq!(Set::read(&vec![0; MAX_SET + 1].into()).unwrap_err(), BadSet::TooLong(MAX_SET + 1));
    let files = |count: usize| (0..count).map(|index| file(&format!("{index}.proto"), &[])).collect::<Vec<_>>();
    assert_eq!(read(files(MAX_FILES)).unwrap().files.len(), MAX_FILES);
    assert_eq!(read(files(10_000)).unwrap_err(), BadSet::TooManyFiles);
    // Many messages, each of them named in a package of a long name.
    let long = FileDescriptorProto {
        package: Some("p".repeat(100_000)),
        message_type: (0..100).map(|index| message(&format!("M{index}"))).collect(),
        ..file("a.proto", &[])
    };
    assert_eq!(read(vec![long]).unwrap_err(), BadSet::TooManySymbols);
    let deep = (0..100).fold(message("M"), |inner, _| DescriptorProto { nested_type: vec![inner], ..message("M") });
    let deep = FileDescriptorProto { message_type: vec![deep], ..file("a.proto", &[]) };
    assert!(read(vec![deep]).unwrap_err().to_string().contains("deeper than any compiler allows"));
}

#[test]
fn files_that_import_each_other_are_named() {
    let circle = vec![file("a", &["b"]), file("b", &["x", "c"]), file("c", &["d", "a"]), file("d", &[])];

    assert_eq!(read(circle).unwrap_err().to_string(), "files import each other: a -> b -> c -> a");
    assert_eq!(read(vec![file("a", &["a"])]).unwrap_err(), BadSet::Circle("a -> a".to_owned()));
    assert_eq!(read(vec![file("a", &[]), file("a", &[])]).unwrap_err(), BadSet::Twice("a".to_owned()));
    assert!(read(vec![file("a", &["b", "elsewhere"]), file("b", &["c"]), file("c", &[])]).is_ok());
}
