//! Our names and types against those of prost-build, asked itself: each package gets a service that takes and gives
//! every message there is. With `PROTO_CORPUS` set to a directory, all proto files below it are compared as well.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};

use crate::{builder::compile, names, resolve::Resolver};

/// What prost-build says of one service.
type Seen = Rc<RefCell<Vec<prost_build::Service>>>;

struct Listener(Seen);

impl prost_build::ServiceGenerator for Listener {
    fn generate(&mut self, service: prost_build::Service, buf: &mut String) {
        self.0.borrow_mut().push(service);
        buf.push('\n');
    }
}

/// The full names of a message and all inside of it, map entries left out as in prost.
fn messages(prefix: &str, message: &DescriptorProto, into: &mut Vec<String>) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let name = format!("{prefix}.{}", message.name());
    for inner in &message.nested_type {
        messages(&name, inner, into);
    }
    into.push(name);
}

/// A service of every message, with method names that are awkward.
fn every_message(messages: &[String]) -> ServiceDescriptorProto {
    let awkward = ["Type", "Self", "listThings", "GetHTTP2Info", "Gen", "Crate", "async_call", "X1Y2", "A_B", "URL"];
    let method = |(index, message): (usize, &String)| MethodDescriptorProto {
        name: Some(awkward.get(index).map_or_else(|| format!("M{index}"), |name| (*name).to_owned())),
        input_type: Some(message.clone()),
        output_type: Some(message.clone()),
        ..MethodDescriptorProto::default()
    };
    let method = messages.iter().enumerate().map(method).collect();
    ServiceDescriptorProto { name: Some("HTTPEverythingV2API".to_owned()), method, options: None }
}

/// Compares over these files; how many methods were compared.
fn compare(protos: &[PathBuf], includes: &[PathBuf], extern_paths: &[(String, String)]) -> usize {
    let compiled = compile::protos(protos, includes).expect("the proto files are fine");
    let mut set = FileDescriptorSet::decode(compiled.descriptors.as_slice()).unwrap();
    let mut all = Vec::new();
    for file in &set.file {
        let prefix = if file.package().is_empty() { String::new() } else { format!(".{}", file.package()) };
        file.message_type.iter().for_each(|message| messages(&prefix, message, &mut all));
    }
    let names: Vec<String> = set.file.iter().map(|file| file.name().to_owned()).collect();
    let mut packages: BTreeSet<String> = set.file.iter().map(|file| file.package().to_owned()).collect();
    packages.insert("demo.type.super".to_owned());
    for (index, package) in packages.into_iter().enumerate() {
        set.file.push(FileDescriptorProto {
            name: Some(format!("everything{index}.proto")),
            package: Some(package).filter(|package| !package.is_empty()),
            dependency: names.clone(),
            service: vec![every_message(&all)],
            syntax: Some("proto3".to_owned()),
            ..FileDescriptorProto::default()
        });
    }

    let seen = Seen::default();
    let out = tempfile::tempdir().unwrap();
    let mut config = prost_build::Config::new();
    config.out_dir(out.path()).service_generator(Box::new(Listener(Rc::clone(&seen))));
    for (proto, rust) in extern_paths {
        config.extern_path(proto, rust);
    }
    config.compile_fds(set).unwrap();

    let resolver = Resolver::new(extern_paths, false).unwrap();
    let mut compared = 0;
    let mut differences = Vec::new();
    for service in seen.borrow().iter() {
        let mut same = |what: &str, theirs: &str, ours: &str| {
            compared += 1;
            if theirs != ours {
                differences.push(format!("{} {what}: prost-build {theirs}, ours {ours}", service.package));
            }
        };
        same(&service.proto_name, &service.name, &names::upper_camel(&service.proto_name));
        for method in &service.methods {
            same(&method.proto_name, &method.name, &names::snake(&method.proto_name));
            for (proto, rust) in
                [(&method.input_proto_type, &method.input_type), (&method.output_proto_type, &method.output_type)]
            {
                let proto = proto.trim_start_matches('.');
                same(proto, rust, &resolver.rust_type(&service.package, proto));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    compared
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden_protos() -> Vec<PathBuf> {
    ["kinds", "options", "names", "bare", "gateway"].map(|case| golden().join(format!("{case}.proto"))).to_vec()
}

/// Files that protox has inside.
const GOOGLE: &[&str] = &["descriptor", "compiler/plugin", "any", "api", "struct", "type", "wrappers", "field_mask"];

#[test]
fn names_and_types_are_those_of_prost_build() {
    let google = GOOGLE.iter().map(|name| PathBuf::from(format!("google/protobuf/{name}.proto")));
    let protos: Vec<PathBuf> = golden_protos().into_iter().chain(google).collect();

    assert!(compare(&protos, &[golden()], &[]) > 500);
}

#[test]
fn types_under_extern_paths_are_those_of_prost_build() {
    let paths = [
        (".common.v1", "::common_protos::v1"),
        (".demo.type.v1.Msg", "crate::special::Message"),
        (".shop.v1", "crate::mod_a::Type"),
        (".google.protobuf.Timestamp", "::time::Stamp"),
    ];
    let paths = paths.map(|(proto, rust)| (proto.to_owned(), rust.to_owned()));

    assert!(compare(&golden_protos(), &[golden()], &paths) > 100);
}

#[test]
fn names_and_types_of_a_corpus_are_those_of_prost_build() {
    // `make install-deps` brings Google's common protos, and `.ci/run` sets it to where they are.
    let Some(corpus) = std::env::var_os("PROTO_CORPUS").map(PathBuf::from) else { return };
    let mut protos = Vec::new();
    let mut directories = vec![corpus.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("PROTO_CORPUS is a directory") {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                protos.push(path);
            }
        }
    }
    protos.sort();
    assert!(protos.len() >= 50, "PROTO_CORPUS holds {} proto files", protos.len());
    let compared = compare(&protos, &[corpus], &[]);
    println!("corpus: {} proto files, {compared} names and types, no difference", protos.len());
}
