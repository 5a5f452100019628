//! Requests that no compiler would send: each is answered, with files that are Rust or with an error; none panics.

use std::fs;

use prost::Message;

use crate::protoc::{crate_dir, golden_dir};

/// `CodeGeneratorRequest` and `FileDescriptorSet`, whose files stay bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, repeated, tag = "1")]
    file_to_generate: Vec<String>,
    #[prost(string, optional, tag = "2")]
    parameter: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    proto_file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(string, optional, tag = "1")]
    error: Option<String>,
    #[prost(message, repeated, tag = "15")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "15")]
    content: Option<String>,
}

/// The request for a golden case.
fn request(case: &str) -> Request {
    let out = tempfile::tempdir().unwrap();
    let set = out.path().join("set.bin");
    protoc_gen_grpcrouter::configure()
        .out_dir(out.path())
        .file_descriptor_set_path(&set)
        .emit_rerun_if_changed(false)
        .compile_protos(&[golden_dir().join(format!("{case}.proto"))], &[golden_dir(), crate_dir()])
        .unwrap();
    let proto_file = Set::decode(fs::read(set).unwrap().as_slice()).unwrap().file;
    Request { file_to_generate: vec![format!("{case}.proto")], parameter: Some("gateway".to_owned()), proto_file }
}

fn answer(request: &Request) -> Response {
    let bytes = protoc_gen_grpcrouter::run(&request.encode_to_vec()).expect("it is a request");
    Response::decode(bytes.as_slice()).unwrap()
}

#[test]
fn changed_bytes_in_a_proto_file_give_rust_or_an_error() {
    let original = request("options");
    assert_eq!(answer(&original).error, None);

    let mut state = SEED;
    let mut below = |limit: usize| {
        // Knuth's MMIX generator: the same changes in every run.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % limit
    };
    let mut answered_with_files = 0;
    for round in 0..ROUNDS {
        let mut request = original.clone();
        let file = request.proto_file.last_mut().unwrap();
        for _ in 0..=below(3) {
            let at = below(file.len());
            match below(8) {
                0 => drop(file.remove(at)),
                1 => file.insert(at, b"./\"\x00a_"[below(6)]),
                2 => file[at] = b"./\"\x00a_"[below(6)],
                // Close to what was there: most lengths and tags survive, and names become others.
                _ => file[at] ^= 1 << below(3),
            }
        }
        let response = answer(&request);
        if response.error.is_none() {
            answered_with_files += 1;
            for file in response.file {
                let (name, content) = (file.name.unwrap(), file.content.unwrap());
                assert!(!name.starts_with('/') && !name.contains(".."), "round {round}: {name}");
                assert!(syn::parse_file(&content).is_ok(), "round {round}: {content}");
            }
        }
    }
    // Most bytes are in names, comments and positions, so the test is worth something only if many pass.
    assert!(answered_with_files > ROUNDS / 20, "{answered_with_files}");
}

#[test]
fn a_request_without_the_options_proto_says_where_it_comes_from() {
    let mut request = request("kinds");
    let options = request.proto_file.iter().position(|file| file.starts_with(b"\x0a\x13proto/options.proto")).unwrap();
    request.proto_file.remove(options);

    assert_eq!(
        answer(&request).error.as_deref(),
        Some(
            "kinds.proto: import \"proto/options.proto\" is not there; write it with \
             `protoc-gen-grpcrouter --print-options-proto > proto/options.proto`, or add the directory that holds \
             proto/options.proto to the include paths (-I)"
        )
    );
}

const SEED: u64 = 7;
const ROUNDS: usize = 400;
