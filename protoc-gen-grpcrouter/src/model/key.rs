//! Checks of `routing_key`, `path_prefix` and of the settings that need a key.
//! What a key may be depends on the strategy; a field path is checked against the request's descriptors.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use super::{Field, Place};
use crate::{
    error::{Error, Faults, Problem},
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

/// The field that FIELD_BASED reads, which must be one scalar of this method's request.
pub(super) fn find_field(
    settings: &Settings,
    method: &MethodDescriptor,
    place: &Place,
    faults: &mut Faults,
) -> Option<Field> {
    if settings.strategy() != Strategy::FieldBased {
        return None;
    }
    // A path that is none has been told with the settings.
    let path = settings.routing_key.as_deref().filter(|path| names::is_full_ident(path))?;
    faults.take(find_path(path, &method.input(), method.name()).map_err(|problem| Error::from(place.fault(problem))))
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

fn find_path(path: &str, input: &MessageDescriptor, method: &str) -> Result<Field, Problem> {
    let mut found = Field { numbers: Vec::new(), rivals: Vec::new(), kind: "", presence: false };
    let mut message = input.clone();
    let mut segments = path.split('.').peekable();
    while let Some(segment) = segments.next() {
        let Some(field) = message.get_field_by_name(segment) else {
            let (field, message) = (path.to_owned(), input.full_name().to_owned());
            return Err(Problem::FieldNotFound { field, message, method: method.to_owned() });
        };
        if let Some(what) = unfit(&field, segments.peek().is_none()) {
            return Err(Problem::FieldNotScalar { field: path.to_owned(), method: method.to_owned(), what });
        }
        found.numbers.push(field.number());
        found.rivals.push(rivals(&field));
        match field.kind() {
            Kind::Message(next) => message = next,
            last => (found.kind, found.presence) = (type_name(&last), field.supports_presence()),
        }
    }
    Ok(found)
}

/// The other fields of the same oneof.
fn rivals(field: &FieldDescriptor) -> Vec<u32> {
    let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
    let others = oneof.iter().flat_map(|oneof| oneof.fields()).map(|other| other.number());
    let mut others: Vec<u32> = others.filter(|other| *other != field.number()).collect();
    others.sort_unstable();
    others
}

/// As the runtime calls the type of a key.
fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "String",
        Kind::Bool => "Bool",
        Kind::Enum(_) => "Enum",
        Kind::Int32 => "Int32",
        Kind::Int64 => "Int64",
        Kind::Uint32 => "Uint32",
        Kind::Uint64 => "Uint64",
        Kind::Sint32 => "Sint32",
        Kind::Sint64 => "Sint64",
        Kind::Fixed32 => "Fixed32",
        Kind::Fixed64 => "Fixed64",
        Kind::Sfixed32 => "Sfixed32",
        Kind::Sfixed64 => "Sfixed64",
        // The rest is unfit.
        Kind::Bytes | Kind::Float | Kind::Double | Kind::Message(_) => "Bytes",
    }
}

/// Why a field cannot be where it stands in the path.
fn unfit(field: &FieldDescriptor, is_last: bool) -> Option<&'static str> {
    match (field.kind(), is_last) {
        _ if field.is_map() => Some("a map"),
        _ if field.is_list() => Some("repeated"),
        (Kind::Message(_), true) => Some("a message"),
        (Kind::Float | Kind::Double, true) => Some("a floating-point number and has no one text"),
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
