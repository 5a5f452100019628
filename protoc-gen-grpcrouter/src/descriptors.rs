//! The descriptors that a router carries: the proto file of its service with all that it imports, for reflection. As the
//! bytes that came, so that custom options stay; without source info, and without the files that every gateway has.

use std::collections::{BTreeMap, HashSet};

use prost::{
    Message,
    encoding::{DecodeContext, decode_key, skip_field},
};

use crate::{
    model::Model,
    pool::{Head, RawSet},
};

/// The files of a run, by name.
pub(crate) struct Descriptors {
    files: BTreeMap<String, File>,
}

struct File {
    bytes: Vec<u8>,
    imports: Vec<String>,
}

impl Descriptors {
    /// What cannot be read is left out here: the pool, which reads the same bytes, tells what is wrong with it.
    pub(crate) fn new(files: &[Vec<u8>]) -> Self {
        let file = |bytes: &Vec<u8>| {
            let head = Head::decode(bytes.as_slice()).ok()?;
            let name = head.name.unwrap_or_default();
            let known = KNOWN.contains(&name.as_str()) || head.package.as_deref() == Some(OPTIONS_PACKAGE);
            let bytes = without_source_info(bytes)?;
            (!known).then_some((name, File { bytes, imports: head.dependency }))
        };
        Self { files: files.iter().filter_map(file).collect() }
    }

    /// Hands each service an encoded `FileDescriptorSet`.
    pub(crate) fn give(&self, model: &mut Model) {
        for file in &mut model.files {
            let set = self.of(&file.name);
            for service in &mut file.services {
                service.descriptors.clone_from(&set);
            }
        }
    }

    /// The file and what it imports, each after its own imports.
    fn of(&self, name: &str) -> Vec<u8> {
        let mut set = RawSet::default();
        self.collect(name, &mut HashSet::new(), &mut set.file);
        set.encode_to_vec()
    }

    fn collect<'a>(&'a self, name: &'a str, seen: &mut HashSet<&'a str>, into: &mut Vec<Vec<u8>>) {
        let Some(file) = self.files.get(name).filter(|_| seen.insert(name)) else { return };
        for import in &file.imports {
            self.collect(import, seen, into);
        }
        into.push(file.bytes.clone());
    }
}

/// The same file, byte for byte, but for where things stand in its text.
fn without_source_info(file: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(file.len());
    let mut rest = file;
    while !rest.is_empty() {
        let before = rest;
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?;
        if tag != SOURCE_CODE_INFO {
            kept.extend_from_slice(before.get(..before.len() - rest.len())?);
        }
    }
    Some(kept)
}

/// `FileDescriptorProto.source_code_info`.
const SOURCE_CODE_INFO: u32 = 9;

/// Of the file with the routing options, wherever it lies.
const OPTIONS_PACKAGE: &str = "grpcrouter";

/// What the runtime has itself.
const KNOWN: &[&str] = &[
    "google/protobuf/any.proto",
    "google/protobuf/api.proto",
    "google/protobuf/descriptor.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/empty.proto",
    "google/protobuf/field_mask.proto",
    "google/protobuf/source_context.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/timestamp.proto",
    "google/protobuf/type.proto",
    "google/protobuf/wrappers.proto",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use prost_types::{FileDescriptorProto, SourceCodeInfo};

    use super::*;

    fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.to_owned()),
            dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
            ..FileDescriptorProto::default()
        }
    }

    #[test]
    fn a_set_holds_the_file_and_its_imports_each_once_and_before_those_that_import_it() {
        let files = [
            file("a.proto", &["b.proto", "c.proto", "google/protobuf/any.proto"]),
            file("google/protobuf/any.proto", &[]),
            file("b.proto", &["c.proto"]),
            file("c.proto", &[]),
            file("d.proto", &["a.proto"]),
        ];
        let bytes: Vec<_> = files.iter().map(Message::encode_to_vec).collect();

        let set = RawSet::decode(Descriptors::new(&bytes).of("a.proto").as_slice()).unwrap();

        let expected = [3, 2, 0].map(|index| bytes.get(index).cloned().unwrap());
        assert_eq!(set.file, expected);
    }

    #[test]
    fn source_info_goes_and_every_other_byte_stays() {
        let plain = file("a.proto", &[]);
        let told = FileDescriptorProto { source_code_info: Some(SourceCodeInfo::default()), ..plain.clone() };
        // A custom option that nobody here knows: field 8, options; in it field 50311.
        let option = [0x42, 0x05, 0xba, 0xc8, 0x18, 0x01, b'x'];

        let stripped = without_source_info(&[told.encode_to_vec(), option.to_vec()].concat()).unwrap();

        assert_eq!(stripped, [plain.encode_to_vec(), option.to_vec()].concat());
        assert_eq!(without_source_info(b"\x0a\xff"), None);
    }
}
