//! The request as bytes and the descriptors as a pool: prost's own structs would drop the custom options.
//! Nothing past this gate holds a name that is not a protobuf name, or a file that another one lacks.

use std::{
    collections::{BTreeMap, HashSet},
    panic,
};

use prost::Message;
use prost_reflect::{DescriptorPool, FileDescriptor};

use crate::{
    error::{Error, Fault, Faults, Position, Problem},
    names,
};

/// A `CodeGeneratorRequest` whose files stay bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RawRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) file_to_generate: Vec<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) parameter: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub(crate) proto_file: Vec<Vec<u8>>,
}

/// A `FileDescriptorSet` whose files stay bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RawSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) file: Vec<Vec<u8>>,
}

/// What must be known of a file before the pool takes it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Head {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) package: Option<String>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) dependency: Vec<String>,
    #[prost(string, optional, tag = "12")]
    syntax: Option<String>,
}

/// The descriptors of all files, linked and with their options.
pub(crate) fn build(files: Vec<Vec<u8>>) -> Result<DescriptorPool, Error> {
    let set = RawSet { file: complete(files)? };
    let bytes = set.encode_to_vec();
    // prost-reflect 0.16.5 panics (an index out of bounds) while it words some of its errors.
    let pool = panic::catch_unwind(|| DescriptorPool::decode(bytes.as_slice()))
        .map_err(|_| Problem::DescriptorsPanicked)?
        .map_err(|error| Problem::Descriptors(Box::new(error)))?;
    check_names(&pool)?;
    Ok(pool)
}

/// The files, if each import is among them.
fn complete(mut files: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Error> {
    let mut faults = Faults::default();
    let mut heads = Vec::new();
    for file in &mut files {
        let head = Head::decode(file.as_slice()).map_err(Problem::FileDescriptor)?;
        // prost-reflect knows proto2 and proto3. Nothing that is read here depends on the edition, and of a field
        // that comes twice the last one counts.
        if head.syntax.as_deref() == Some("editions") {
            file.extend_from_slice(SYNTAX_PROTO2);
        }
        heads.push(head);
    }
    let mut names: HashSet<&str> = HashSet::new();
    for name in heads.iter().map(|head| head.name.as_deref().unwrap_or_default()) {
        if !is_file_name(name) {
            faults.push(Problem::FileName { name: name.to_owned() });
        } else if !names.insert(name) {
            faults.push(Problem::FileTwice { name: name.to_owned() });
        }
    }
    for head in &heads {
        let at = Position { file: head.name.clone().unwrap_or_default(), line_and_column: None };
        for import in head.dependency.iter().filter(|import| !names.contains(import.as_str())) {
            let problem = if import.ends_with("options.proto") {
                Problem::OptionsProtoMissing { name: import.clone() }
            } else {
                Problem::MissingFile { name: import.clone() }
            };
            faults.push(Fault::at(at.clone(), problem));
        }
    }
    if let Some(circle) = circle(&heads) {
        let name = circle.first().cloned().unwrap_or_default();
        faults.push(Problem::ImportCircle { name, circle: circle.join(" -> ") });
    }
    faults.or(files)
}

/// Files that import each other, the first once more at the end.
fn circle(heads: &[Head]) -> Option<Vec<String>> {
    // What is left when all goes that imports only what is gone already, and names that are not there.
    let mut left: BTreeMap<&str, &[String]> =
        heads.iter().map(|head| (head.name.as_deref().unwrap_or_default(), head.dependency.as_slice())).collect();
    loop {
        let stays = |imports: &&[String]| imports.iter().any(|import| left.contains_key(import.as_str()));
        let next: BTreeMap<_, _> = left.iter().filter(|(_, imports)| stays(imports)).map(|(k, v)| (*k, *v)).collect();
        if next.len() == left.len() {
            break;
        }
        left = next;
    }
    let mut way: Vec<&str> = Vec::new();
    let mut file = *left.keys().next()?;
    while !way.contains(&file) {
        way.push(file);
        file = left.get(file)?.iter().map(String::as_str).find(|import| left.contains_key(import))?;
    }
    let circle = way.into_iter().skip_while(|start| *start != file).chain([file]);
    Some(circle.map(str::to_owned).collect())
}

/// A name as protoc gives it to a file. Others would leave the output directory, or the comment that holds them.
fn is_file_name(name: &str) -> bool {
    !name.contains(|c: char| c == '\\' || c.is_control())
        && name.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

/// Refuses names that are none: they would break out of the code or of the output directory.
fn check_names(pool: &DescriptorPool) -> Result<(), Error> {
    let mut faults = Faults::default();
    for file in pool.files() {
        let mut check = |what: &'static str, name: &str, fine: bool, path: &[i32]| {
            if !fine {
                faults.push(Fault::at(position(&file, &[path]), Problem::NotAName { what, name: name.to_owned() }));
            }
        };
        let package = file.package_name();
        check("package", package, package.is_empty() || names::is_full_ident(package), PACKAGE);
        for service in file.services() {
            check("service", service.name(), names::is_ident(service.name()), service.path());
            for method in service.methods() {
                check("method", method.name(), names::is_ident(method.name()), method.path());
                for message in [method.input(), method.output()] {
                    check("message", message.full_name(), names::is_full_ident(message.full_name()), method.path());
                }
            }
        }
    }
    faults.or(())
}

/// Where the first of these elements that the source info knows stands; without any, the file.
pub(crate) fn position(file: &FileDescriptor, paths: &[&[i32]]) -> Position {
    let locations = file.file_descriptor_proto().source_code_info.as_ref().map(|info| info.location.as_slice());
    let span = paths.iter().find_map(|path| {
        let locations = locations?;
        // An option that is set field by field only has places below its own path.
        let exact = locations.iter().find(|location| location.path == *path);
        let below = || locations.iter().find(|location| !path.is_empty() && location.path.starts_with(path));
        exact.or_else(below).map(|location| location.span.as_slice())
    });
    let line_and_column = match span {
        Some([line, column, ..]) => u32::try_from(*line).ok().zip(u32::try_from(*column).ok()),
        _ => None,
    };
    Position {
        file: file.name().to_owned(),
        // The compiler counts from 0, editors from 1.
        line_and_column: line_and_column.map(|(line, column)| (line.saturating_add(1), column.saturating_add(1))),
    }
}

/// `FileDescriptorProto.package`.
const PACKAGE: &[i32] = &[2];

/// `syntax = "proto2"` (field 12, six bytes) as protobuf writes it.
const SYNTAX_PROTO2: &[u8] = b"\x62\x06proto2";
