//! The generator of grpcrouter: from services with the option `(grpcrouter.routes_to)` to typed routers in Rust.
//! Two front ends, one text: [`run`] is the protoc plugin, [`configure`] the builder for `build.rs`, which needs no protoc.
//!
//! A straight pipe: bytes, then parameters and options, then a checked model, then text.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), protoc_gen_grpcrouter::Error> {
//!     protoc_gen_grpcrouter::configure().compile_protos(&["proto/service.proto"], &["."])
//! }
//! ```
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod builder;
mod descriptors;
mod emit;
mod error;
mod layout;
mod model;
mod names;
mod options;
mod params;
mod pool;
#[cfg(test)]
mod prosts;
mod resolve;
mod routes;

use prost::Message;

pub use builder::{Builder, configure};
pub use error::{Error, Fault};

use crate::{
    descriptors::Descriptors,
    error::Problem,
    layout::OutputFile,
    model::{Model, Wanted},
    params::Params,
    pool::RawRequest,
};

/// The text of `proto/options.proto`, which proto files import as `"proto/options.proto"`.
///
/// The builder has it inside. For protoc and buf, `protoc-gen-grpcrouter --print-options-proto` prints it.
pub const OPTIONS_PROTO: &str = include_str!("../proto/options.proto");

/// The protoc plugin: an encoded `CodeGeneratorRequest` in, an encoded `CodeGeneratorResponse` out.
///
/// What is wrong with proto files or parameters is in the response, as protoc wants it. Warnings go to stderr.
///
/// # Errors
///
/// Only if `request` is not a request at all.
pub fn run(request: &[u8]) -> Result<Vec<u8>, Error> {
    let request = RawRequest::decode(request).map_err(Problem::NotARequest)?;
    let mut response = Response {
        error: None,
        supported_features: Some(FEATURE_PROTO3_OPTIONAL | FEATURE_SUPPORTS_EDITIONS),
        minimum_edition: Some(EDITION_PROTO2),
        maximum_edition: Some(EDITION_2024),
        file: Vec::new(),
    };
    match generate(request) {
        Ok(generated) => {
            for warning in generated.warnings {
                eprintln!("protoc-gen-grpcrouter: warning: {warning}");
            }
            response.file = generated.files;
        }
        Err(error) => response.error = Some(error.to_string()),
    }
    Ok(response.encode_to_vec())
}

struct Generated {
    files: Vec<OutputFile>,
    warnings: Vec<String>,
}

fn generate(request: RawRequest) -> Result<Generated, Error> {
    let params = Params::parse(request.parameter.as_deref().unwrap_or_default())?;
    let descriptors = Descriptors::new(&request.proto_file);
    let pool = pool::build(request.proto_file)?;
    let wanted = Wanted::Files(request.file_to_generate.iter().map(String::as_str).collect());
    let mut model = Model::check(&pool, &wanted, &params.resolver, &params.routes)?;
    descriptors.give(&mut model);
    let mut warnings = std::mem::take(&mut model.warnings);
    warnings.extend(layout::warnings(&model, &params.layout, &params.style));
    Ok(Generated { files: layout::write(&model, &params.layout, &params.style)?, warnings })
}

/// `CodeGeneratorResponse`; the one of prost-types 0.14 lacks the editions.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(string, optional, tag = "1")]
    error: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    supported_features: Option<u64>,
    #[prost(int32, optional, tag = "3")]
    minimum_edition: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    maximum_edition: Option<i32>,
    #[prost(message, repeated, tag = "15")]
    file: Vec<OutputFile>,
}

/// Values of google/protobuf/compiler/plugin.proto and descriptor.proto.
const FEATURE_PROTO3_OPTIONAL: u64 = 1;
const FEATURE_SUPPORTS_EDITIONS: u64 = 2;
const EDITION_PROTO2: i32 = 998;
const EDITION_2024: i32 = 1001;

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn the_packaged_options_proto_is_the_projects() {
        let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/options.proto");
        // Not there when the packaged crate is tested alone.
        if let Ok(text) = std::fs::read_to_string(shared) {
            assert!(text == OPTIONS_PROTO, "copy proto/options.proto to protoc-gen-grpcrouter/proto/options.proto");
        }
    }

    #[test]
    fn what_is_no_request_is_the_only_error() {
        let error = run(b"hello, plugin").expect_err("not a request");
        assert!(error.to_string().starts_with("the input is not a CodeGeneratorRequest"), "{error}");
    }

    #[test]
    fn a_request_for_a_file_that_it_does_not_hold_is_answered_with_an_error() {
        let request = RawRequest { file_to_generate: vec!["a.proto".into()], ..RawRequest::default() };
        let response =
            Response::decode(run(&request.encode_to_vec()).expect("a request").as_slice()).expect("a response");
        assert_eq!(response.error.as_deref(), Some("the request names a.proto but does not hold it"));
    }

    #[test]
    fn an_empty_request_gives_no_files_and_no_error() {
        let response = Response::decode(run(&[]).expect("a request").as_slice()).expect("a response");
        assert_eq!((response.error, response.file.len()), (None, 0));
    }
}
