//! What holds for any request, shared with the fuzz target: no panic, and an answer that is an error or is Rust.
//! Also the requests to begin with, made of the golden files.
#![allow(dead_code, reason = "two programs use it, each a part")]

use std::{collections::HashSet, fs, path::PathBuf};

use prost::Message;

/// `CodeGeneratorRequest`, whose files stay bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, repeated, tag = "1")]
    pub(crate) file_to_generate: Vec<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) parameter: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub(crate) proto_file: Vec<Vec<u8>>,
}

/// `FileDescriptorSet`, whose files stay bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// `CodeGeneratorResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(string, optional, tag = "1")]
    pub(crate) error: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) supported_features: Option<u64>,
    #[prost(int32, optional, tag = "3")]
    pub(crate) minimum_edition: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    pub(crate) maximum_edition: Option<i32>,
    #[prost(message, repeated, tag = "15")]
    pub(crate) file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct File {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) insertion_point: Option<String>,
    #[prost(string, optional, tag = "15")]
    pub(crate) content: Option<String>,
}

/// The request for a golden case.
pub(crate) fn request(case: &str) -> Request {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../protoc-gen-grpcrouter/tests/golden"));
    // The packaged crate is called otherwise.
    let golden = if root.is_dir() { root } else { PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")) };
    let out = tempfile::tempdir().expect("a place for the descriptors");
    let set = out.path().join("set.bin");
    protoc_gen_grpcrouter::configure()
        .out_dir(out.path())
        .file_descriptor_set_path(&set)
        .emit_rerun_if_changed(false)
        .compile_protos(&[golden.join(format!("{case}.proto"))], &[golden])
        .expect("the golden files are fine");
    let proto_file = Set::decode(fs::read(set).expect("written just now").as_slice()).expect("a set").file;
    Request { file_to_generate: vec![format!("{case}.proto")], parameter: None, proto_file }
}

/// What the plugin answers, after it was asked twice; `None` if it says that these bytes are no request.
pub(crate) fn answer(request: &[u8]) -> Option<Response> {
    let bytes = protoc_gen_grpcrouter::run(request).ok()?;
    assert_eq!(Some(&bytes), protoc_gen_grpcrouter::run(request).ok().as_ref(), "the same request, another answer");
    let response = Response::decode(bytes.as_slice()).expect("a response");
    if let Some(error) = &response.error {
        assert!(!error.is_empty() && response.file.is_empty(), "{response:?}");
    }
    let mut names = HashSet::new();
    for file in &response.file {
        let (name, content) = (file.name.as_deref().unwrap_or_default(), file.content.as_deref().unwrap_or_default());
        let clean = name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\\');
        assert!(clean, "the file name {name:?} leaves the output directory");
        assert!(names.insert((name, &file.insertion_point)), "the file {name:?} comes twice");
        assert!(syn::parse_file(content).is_ok(), "{name} does not parse:\n{content}");
    }
    Some(response)
}
