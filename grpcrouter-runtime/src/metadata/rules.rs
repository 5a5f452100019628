//! The one list of what a header is to a hop: a typed field, the user's metadata, or something that never crosses.

/// What a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ContentType,
    Encoding,
    AcceptEncoding,
    Timeout,
    Status,
    Message,
    Details,
    Pushback,
    PreviousAttempts,
    /// The user's, as it stands.
    Ascii,
    /// The user's, base64.
    Binary,
    /// Belongs to this hop, is reserved, or is no legal key.
    Dropped,
}

/// What the HTTP header `name` (lower case) is.
pub(super) fn kind(name: &str) -> Kind {
    let bytes = name.as_bytes();
    match bytes.first() {
        Some(b'g') if bytes.starts_with(b"grpc-") => return grpc_kind(name),
        Some(b'x') if bytes.starts_with(b"x-grpcrouter-") => return Kind::Dropped,
        Some(b'p') if bytes.starts_with(b"proxy-") => return Kind::Dropped,
        _ => {}
    }
    match name {
        "content-type" => return Kind::ContentType,
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "host"
        | "content-length" | "expect" | "http2-settings" => return Kind::Dropped,
        _ => {}
    }
    if !is_key(bytes) {
        Kind::Dropped
    } else if bytes.ends_with(b"-bin") {
        Kind::Binary
    } else {
        Kind::Ascii
    }
}

/// What the metadata key `key`, which came over a tunnel, is; `None` if it may not become a header.
pub(super) fn wire_kind(key: &[u8]) -> Option<Kind> {
    match kind(std::str::from_utf8(key).ok()?) {
        found @ (Kind::Ascii | Kind::Binary) => Some(found),
        Kind::Pushback | Kind::PreviousAttempts => Some(Kind::Ascii),
        _ => None,
    }
}

/// Of `grpc-*` only these mean something beyond one hop.
fn grpc_kind(name: &str) -> Kind {
    match name {
        "grpc-timeout" => Kind::Timeout,
        "grpc-encoding" => Kind::Encoding,
        "grpc-accept-encoding" => Kind::AcceptEncoding,
        "grpc-status" => Kind::Status,
        "grpc-message" => Kind::Message,
        "grpc-status-details-bin" => Kind::Details,
        "grpc-retry-pushback-ms" => Kind::Pushback,
        "grpc-previous-rpc-attempts" => Kind::PreviousAttempts,
        "grpc-trace-bin" | "grpc-tags-bin" => Kind::Binary,
        _ => Kind::Dropped,
    }
}

/// After gRPC over HTTP/2, "Custom-Metadata": `[0-9a-z_.-]`.
fn is_key(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_and_reserved_names_never_cross() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-authorization",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "host",
            "content-length",
            "expect",
            "x-grpcrouter-principal",
            "grpc-made-up",
            "grpc-internal-encoding-request",
            ":path",
            "with space",
            "UPPER",
            "",
        ] {
            assert_eq!(kind(name), Kind::Dropped, "{name}");
        }
    }

    #[test]
    fn the_users_own_names_cross() {
        for name in ["authorization", "user-agent", "instanceid", "x-request-id", "traceparent", "a_b.c-d", "grpcx"] {
            assert_eq!(kind(name), Kind::Ascii, "{name}");
        }
        for name in ["data-bin", "grpc-trace-bin", "grpc-tags-bin"] {
            assert_eq!(kind(name), Kind::Binary, "{name}");
        }
    }

    #[test]
    fn a_tunnel_cannot_bring_typed_or_reserved_headers_as_metadata() {
        for key in ["content-type", "grpc-status", "grpc-message", "grpc-timeout", "grpc-status-details-bin", "te"] {
            assert_eq!(wire_kind(key.as_bytes()), None, "{key}");
        }
        assert_eq!(wire_kind(b"k\xff"), None);
        assert_eq!(wire_kind(b"grpc-retry-pushback-ms"), Some(Kind::Ascii));
    }
}
