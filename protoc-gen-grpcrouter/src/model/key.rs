//! Checks of `routing_key`, `path_prefix` and of the settings that need a key.
//! What a key may be depends on the strategy; a field path is checked against the request's descriptors.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use super::Place;
use crate::{
    error::{Faults, Problem},
    names,
    options::{LoadBalancing, OnMissingKey, Settings, Strategy},
};

/// All but the field path, which needs a method.
pub(super) fn check(settings: &Settings, place: &Place, faults: &mut Faults) {
    if let Some(problem) = check_key(settings) {
        faults.push(place.fault(problem));
    }
    if let Some(prefix) = &settings.path_prefix
        && !is_prefix(prefix)
    {
        faults.push(place.fault(Problem::PathPrefix { found: prefix.clone() }));
    }
    // With PATH_BASED the key is in the path, whatever it is called; HEADER and FIELD have been told already.
    if settings.routing_key.is_none() && settings.strategy() == Strategy::MetadataBased {
        let needing = [
            (settings.on_missing_key == Some(OnMissingKey::Reject), "on_missing_key: REJECT"),
            (settings.load_balancing == Some(LoadBalancing::ConsistentHash), "load_balancing: CONSISTENT_HASH"),
        ];
        for (_, setting) in needing.into_iter().filter(|(set, _)| *set) {
            faults.push(place.fault(Problem::SettingNeedsKey { setting }));
        }
    }
}

/// The field that FIELD_BASED reads must be one scalar of this method's request.
pub(super) fn check_field(settings: &Settings, method: &MethodDescriptor, place: &Place, faults: &mut Faults) {
    if settings.strategy() != Strategy::FieldBased {
        return;
    }
    // A path that is none has been told with the settings.
    if let Some(path) = settings.routing_key.as_deref().filter(|path| names::is_full_ident(path))
        && let Some(problem) = check_path(path, &method.input(), method.name())
    {
        faults.push(place.fault(problem));
    }
}

fn check_key(settings: &Settings) -> Option<Problem> {
    let strategy = settings.strategy();
    let Some(key) = &settings.routing_key else {
        let missing = |strategy, what| Some(Problem::KeyMissing { strategy, what });
        return match strategy {
            Strategy::MetadataBased | Strategy::PathBased => None,
            Strategy::HeaderBased => missing("HEADER_BASED", "a header name, \":authority\" or \"cookie:NAME\""),
            Strategy::FieldBased => missing("FIELD_BASED", "a field of the request, such as \"customer_id\""),
        };
    };
    let found = key.clone();
    match strategy {
        Strategy::MetadataBased if !is_metadata_key(key) => Some(Problem::MetadataKey { found }),
        Strategy::MetadataBased if is_reserved(key) => Some(Problem::ReservedKey { found }),
        Strategy::PathBased if !key.bytes().all(|b| b.is_ascii_graphic()) => Some(Problem::PathKey { found }),
        Strategy::HeaderBased if !is_header_key(key) => Some(Problem::HeaderKey { found }),
        Strategy::HeaderBased if key.starts_with(OWN_HEADERS) || HOP_BY_HOP.contains(&key.as_str()) => {
            Some(Problem::ReservedKey { found })
        }
        Strategy::FieldBased if !names::is_full_ident(key) => Some(Problem::FieldPath { found }),
        _ => None,
    }
}

/// gRPC's own rule for metadata keys.
fn is_metadata_key(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_reserved(key: &str) -> bool {
    key.starts_with("grpc-") || key.starts_with(OWN_HEADERS) || HOP_BY_HOP.contains(&key) || KEPT.contains(&key)
}

fn is_header_key(key: &str) -> bool {
    match key.strip_prefix("cookie:") {
        Some(cookie) => !cookie.is_empty() && cookie.bytes().all(is_token_byte),
        None => key == ":authority" || (key.bytes().all(is_token_byte) && !key.bytes().any(|b| b.is_ascii_uppercase())),
    }
}

/// A `tchar` of RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_prefix(prefix: &str) -> bool {
    let segment = |segment: &str| {
        let plain = segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        !segment.is_empty() && segment != "." && segment != ".." && plain
    };
    prefix.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

fn check_path(path: &str, input: &MessageDescriptor, method: &str) -> Option<Problem> {
    let mut message = input.clone();
    let mut segments = path.split('.').peekable();
    while let Some(segment) = segments.next() {
        let Some(field) = message.get_field_by_name(segment) else {
            let (field, message) = (path.to_owned(), input.full_name().to_owned());
            return Some(Problem::FieldNotFound { field, message, method: method.to_owned() });
        };
        let is_last = segments.peek().is_none();
        let next = match field.kind() {
            Kind::Message(next) => Some(next),
            _ => None,
        };
        if let Some(what) = unfit(&field, is_last) {
            return Some(Problem::FieldNotScalar { field: path.to_owned(), method: method.to_owned(), what });
        }
        message = next?;
    }
    None
}

/// Why a field cannot be where it stands in the path.
fn unfit(field: &FieldDescriptor, is_last: bool) -> Option<&'static str> {
    match (field.kind(), is_last) {
        _ if field.is_map() => Some("a map"),
        _ if field.is_list() => Some("repeated"),
        (Kind::Message(_), true) => Some("a message"),
        (Kind::Enum(_), true) => Some("an enum"),
        (Kind::Message(_), false) | (_, true) => None,
        (_, false) => Some("not a message, so nothing is below it"),
    }
}

/// The gateway sets these itself and takes none from outside.
const OWN_HEADERS: &str = "x-grpcrouter-";

/// Headers of one hop, which HTTP/2 forbids or which never cross the gateway.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "content-length",
];

/// What every gRPC library sets itself.
const KEPT: &[&str] = &["content-type", "user-agent", "host", "accept-encoding", "content-encoding"];

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(strategy: Strategy, key: &str) -> Option<String> {
        let settings = Settings { strategy: Some(strategy), routing_key: Some(key.to_owned()), ..Settings::default() };
        check_key(&settings).map(|problem| problem.to_string())
    }

    #[test]
    fn each_strategy_takes_its_own_keys() {
        for (strategy, key) in [
            (Strategy::MetadataBased, "instanceid"),
            (Strategy::MetadataBased, "tenant-bin"),
            (Strategy::PathBased, "tenant"),
            (Strategy::HeaderBased, "x-tenant"),
            (Strategy::HeaderBased, ":authority"),
            (Strategy::HeaderBased, "cookie:SID"),
            (Strategy::HeaderBased, "user-agent"),
            (Strategy::FieldBased, "order.customer_id"),
        ] {
            assert_eq!(problem(strategy, key), None, "{key}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_is_refused_with_what_it_may_be() {
        for (strategy, key, text) in [
            (Strategy::MetadataBased, "Instance ID", "must be a metadata key"),
            (Strategy::MetadataBased, "grpc-timeout", "must not be \"grpc-timeout\""),
            (Strategy::MetadataBased, "x-grpcrouter-id", "must not be \"x-grpcrouter-id\""),
            (Strategy::PathBased, "a b", "must be a plain name"),
            (Strategy::HeaderBased, "X-Tenant", "must be a header name in lower case"),
            (Strategy::HeaderBased, ":path", "must be a header name in lower case"),
            (Strategy::HeaderBased, "cookie:", "must be a header name in lower case"),
            (Strategy::HeaderBased, "connection", "must not be \"connection\""),
            (Strategy::FieldBased, "order..id", "must be a field path"),
        ] {
            let problem = problem(strategy, key).unwrap_or_default();
            assert!(problem.contains(text), "{key}: {problem}");
        }
    }

    #[test]
    fn a_prefix_is_a_path_of_plain_segments() {
        for good in ["/api", "/api/v1", "/a-b/c.d/~e"] {
            assert!(is_prefix(good), "{good}");
        }
        for bad in ["", "/", "api", "/api/", "/a//b", "/a/../b", "/a b", "/{id}", "/%41"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }
}
