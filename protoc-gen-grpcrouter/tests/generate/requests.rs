//! Requests made by hand: what is declared of the plugin, what does not depend on an order, and what protoc never sends.

use prost::Message;
use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

use crate::property::{Request, Response, answer, request};

fn ask(request: &Request) -> Response {
    answer(&request.encode_to_vec()).expect("a request")
}

fn refused(files: &[FileDescriptorProto]) -> String {
    let proto_file = files.iter().map(Message::encode_to_vec).collect();
    let file_to_generate = files.iter().take(1).map(|file| file.name().to_owned()).collect();
    ask(&Request { file_to_generate, parameter: None, proto_file }).error.expect("refused")
}

fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

#[test]
fn proto3_optional_and_the_editions_up_to_2024_are_declared() {
    let response = ask(&Request::default());

    // FEATURE_PROTO3_OPTIONAL and FEATURE_SUPPORTS_EDITIONS; EDITION_PROTO2 and EDITION_2024.
    assert_eq!(response.supported_features, Some(1 | 2));
    assert_eq!((response.minimum_edition, response.maximum_edition), (Some(998), Some(1001)));
}

#[test]
fn no_order_of_files_or_arguments_changes_the_answer() {
    let mut all = request("names");
    for case in ["kinds", "options", "gateway"] {
        let other = request(case);
        all.file_to_generate.extend(other.file_to_generate);
        // Imports that both have come once.
        let new = other.proto_file.into_iter().filter(|file| !all.proto_file.contains(file));
        all.proto_file.extend(new.collect::<Vec<_>>());
    }
    for parameter in ["gateway", "paths=source_relative", "insert_include"] {
        all.parameter = Some(parameter.to_owned());
        let expected = ask(&all);
        assert_eq!(expected.error, None);
        let mut permuted = all.clone();
        for _ in 0..all.proto_file.len() {
            permuted.proto_file.rotate_left(1);
            permuted.file_to_generate.rotate_left(1);
            assert_eq!(ask(&permuted), expected, "{parameter}");
        }
        permuted.proto_file.reverse();
        permuted.file_to_generate.reverse();
        assert_eq!(ask(&permuted), expected, "{parameter}");
    }
}

#[test]
fn a_request_without_the_options_proto_says_where_it_comes_from() {
    let mut request = request("kinds");
    let options = request.proto_file.iter().position(|file| file.starts_with(b"\x0a\x13proto/options.proto")).unwrap();
    request.proto_file.remove(options);

    assert_eq!(
        ask(&request).error.as_deref(),
        Some(
            "kinds.proto: import \"proto/options.proto\" is not there; write it with \
             `protoc-gen-grpcrouter --print-options-proto > proto/options.proto`, or add the directory that holds \
             proto/options.proto to the include paths (-I)"
        )
    );
}

#[test]
fn a_file_that_comes_twice_is_refused() {
    let mut other = file("a.proto", &[]);
    other.package = Some("b".to_owned());
    assert_eq!(refused(&[file("a.proto", &[]), other]), "the request holds a.proto twice");
}

#[test]
fn files_that_import_each_other_are_refused() {
    let error = refused(&[file("a.proto", &["b.proto"]), file("b.proto", &["a.proto"])]);
    assert_eq!(error, "a.proto imports itself: a.proto -> b.proto -> a.proto");
}

#[test]
fn an_import_that_is_not_there_is_named_with_the_file_that_wants_it() {
    assert_eq!(refused(&[file("a.proto", &["b.proto"])]), "a.proto: the request names b.proto but does not hold it");
}

#[test]
fn names_of_files_stay_in_the_output_directory_and_in_their_comment() {
    for name in ["../a.proto", "/a.proto", "a/./b.proto", "a//b.proto", "a\nfn main() {}.proto", r"a\b.proto", ""] {
        assert_eq!(
            refused(&[file(name, &[])]),
            format!(
                "the file name {name:?} is not that of a proto file: a relative path, parts joined by '/', none of them '.' or '..'"
            )
        );
    }
}

#[test]
fn a_name_that_is_no_protobuf_name_is_refused() {
    let method = MethodDescriptorProto {
        name: Some("a/b".to_owned()),
        input_type: Some(".M".to_owned()),
        output_type: Some(".M".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let service = ServiceDescriptorProto { name: Some("S".to_owned()), method: vec![method], options: None };
    let message = prost_types::DescriptorProto { name: Some("M".to_owned()), ..Default::default() };
    let file = FileDescriptorProto { service: vec![service], message_type: vec![message], ..file("a.proto", &[]) };
    assert_eq!(refused(&[file]), "a.proto: the method \"a/b\" is not a protobuf name");
}

#[test]
fn two_outputs_of_one_name_are_refused() {
    let parameter = Some("flat_output_dir,default_package_filename=two".to_owned());
    let (mut all, other) = (request("gateway"), request("bare"));
    all.file_to_generate.extend(other.file_to_generate);
    all.proto_file.extend(other.proto_file.into_iter().last());
    assert_eq!(
        ask(&Request { parameter, ..all }).error.as_deref(),
        Some(
            "what has no package and the package two both become the file two.grpcrouter.rs; \
             set default_package_filename to another name"
        )
    );
}
