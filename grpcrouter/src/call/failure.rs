//! A gRPC status as people read it: its code, its message, its trailers, and its details as JSON.

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Code, Status};

/// `google.rpc.Status`, as far as it is shown.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The lines of `status`, the first of them the one that counts. Details whose types are in one of `pools` are JSON.
pub(super) fn lines(status: &Status, pools: &[&DescriptorPool]) -> Vec<String> {
    let mut lines = vec![format!("{}: {}", name(status.code()), plain(status.message()))];
    let details = RpcStatus::decode(status.details()).map(|status| status.details).unwrap_or_default();
    lines.extend(details.iter().map(|detail| format!("  detail {}", shown(detail, pools))));
    lines.extend(metadata(status.metadata()).into_iter().map(|entry| format!("  trailer {entry}")));
    lines
}

/// Each entry as `key: value`; binary values in base64, as they travel.
pub(super) fn metadata(map: &MetadataMap) -> Vec<String> {
    map.iter()
        .filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => {
                let key = key.as_str();
                let is_ours = ["content-type", "date"].contains(&key) || key.starts_with("grpc-");
                (!is_ours).then(|| format!("{key}: {}", plain(&String::from_utf8_lossy(value.as_encoded_bytes()))))
            }
            KeyAndValueRef::Binary(key, value) => {
                let is_ours = key.as_str() == "grpc-status-details-bin";
                (!is_ours).then(|| format!("{}: {}", key.as_str(), String::from_utf8_lossy(value.as_encoded_bytes())))
            }
        })
        .collect()
}

fn shown(detail: &prost_types::Any, pools: &[&DescriptorPool]) -> String {
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    let json = pools.iter().find_map(|pool| {
        let message = DynamicMessage::decode(pool.get_message_by_name(name)?, &*detail.value).ok()?;
        serde_json::to_string(&message).ok()
    });
    match json {
        Some(json) => format!("{name} {json}"),
        None => format!("{} ({} bytes of a type that is not known here)", plain(name), detail.value.len()),
    }
}

/// As gRPC's own page of codes writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What comes from elsewhere may hold anything; a terminal gets no control characters.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
