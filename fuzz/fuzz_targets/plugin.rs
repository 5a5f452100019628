//! Any request to the plugin: no panic, and an answer that is an error or Rust, the same when asked again.
//! An input is a request as it is, or changes of a request that is fine: random bytes rarely get far alone.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use prost_types::FileDescriptorProto;

#[path = "../../protoc-gen-grpcrouter/tests/generate/property.rs"]
mod property;

fuzz_target!(
    init: {
        // libFuzzer's hook ends the process, and the plugin catches some panics of a library on purpose.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |input: &[u8]| {
        let outcome = std::panic::catch_unwind(|| once(input));
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<String>().cloned();
            eprintln!("panicked: {}", text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default());
            std::process::abort();
        }
    }
);

fn once(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    if how % 4 == 0 {
        property::answer(rest);
        return;
    }
    let bases = bases();
    let Some(base) = bases.get(usize::from(*how) % bases.len()) else { return };
    let mut request = base.clone();
    // Bits 2 and 3: change the parameter, or the user's file; the library's files are not the subject.
    if how & 4 == 0 {
        request.parameter = Some(String::from_utf8_lossy(rest).into_owned());
    } else if let Some(file) = request.proto_file.last_mut() {
        for change in rest.chunks_exact(3) {
            let [high, low, byte] = [change[0], change[1], change[2]];
            let at = usize::from(u16::from_be_bytes([high, low])) % file.len();
            file[at] = byte;
        }
        if how & 8 != 0 {
            // What comes after is merged: more services, other options.
            file.extend_from_slice(rest);
        }
    }
    property::answer(&request.encode_to_vec());
}

/// Requests that are fine, made once.
fn bases() -> &'static [property::Request] {
    static BASES: OnceLock<Vec<property::Request>> = OnceLock::new();
    BASES.get_or_init(|| {
        let cases = [("bare", "gateway"), ("kinds", "paths=source_relative"), ("gateway", "insert_include")];
        cases.map(|(case, parameter)| base(case, parameter)).to_vec()
    })
}

fn base(case: &str, parameter: &str) -> property::Request {
    let mut request = property::Request { parameter: Some(parameter.to_owned()), ..property::request(case) };
    if let Some((_users, libraries)) = request.proto_file.split_last_mut() {
        for file in libraries {
            *file = small(file);
        }
    }
    request
}

/// A library's file without comments and positions, and descriptor.proto with little more than the messages that the
/// options extend: most of the time went there.
fn small(file: &[u8]) -> Vec<u8> {
    let Ok(mut file) = FileDescriptorProto::decode(file) else { return file.to_vec() };
    file.source_code_info = None;
    if file.name() == "google/protobuf/descriptor.proto" {
        file.enum_type.clear();
        file.message_type.retain(|message| matches!(message.name(), "ServiceOptions" | "MethodOptions"));
        for message in &mut file.message_type {
            message.field.retain(|field| field.type_name.is_none());
            message.enum_type.clear();
        }
    }
    file.encode_to_vec()
}
