//! How a routing key is read. Prepared at `build()`, so that reading it costs one look at the headers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use crate::{
    codegen::{OnMissingKey, Routes, Strategy},
    error::ConfigError,
    metadata,
    status::Answer,
};

/// A call's routing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoutingKey {
    /// The call names none: any instance will do.
    Absent,
    /// These bytes, as an instance claims them.
    Value(Bytes),
}

/// Reads the routing key of the calls of one method.
#[derive(Debug)]
pub(super) enum KeyReader {
    /// Calls carry none.
    None,
    /// A metadata entry.
    Metadata {
        entry: HeaderName,
        /// A `-bin` entry: its value is compared as the raw bytes.
        binary: bool,
        on_missing: OnMissingKey,
    },
}

impl KeyReader {
    /// # Errors
    /// The options ask for what this version does not serve, or cannot be meant. `of` names who carries them.
    pub(super) fn new(of: &str, routes: &Routes) -> Result<Self, ConfigError> {
        if routes.strategy != Strategy::MetadataBased {
            return Err(ConfigError::UnsupportedOption {
                service: of.to_owned(),
                option: "strategy",
                value: routes.strategy.name().to_owned(),
                served: "METADATA_BASED",
            });
        }
        let Some(key) = routes.routing_key else {
            if routes.on_missing_key == OnMissingKey::Reject {
                return Err(invalid(of, "on_missing_key", "REJECT", "there is no routing_key that a call could carry"));
            }
            return Ok(Self::None);
        };
        let entry = HeaderName::from_bytes(key.as_bytes())
            .map_err(|_| invalid(of, "routing_key", key, "a metadata key has only a-z, 0-9, '_', '-' and '.'"))?;
        if key.starts_with("grpc-") || key.starts_with("x-grpcrouter-") || NOT_METADATA.contains(&entry.as_str()) {
            return Err(invalid(of, "routing_key", key, "this name is reserved, no client can set it as metadata"));
        }
        let binary = entry.as_str().ends_with("-bin");
        Ok(Self::Metadata { entry, binary, on_missing: routes.on_missing_key })
    }

    /// The name under which messages speak of the key.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::None => "",
            Self::Metadata { entry, .. } => entry.as_str(),
        }
    }

    /// Reads the key of one call to `service`. Of several values the first counts.
    pub(super) fn read(&self, service: &str, headers: &HeaderMap) -> Result<RoutingKey, Answer> {
        let Self::Metadata { entry, binary, on_missing } = self else { return Ok(RoutingKey::Absent) };
        let Some(value) = headers.get(entry) else {
            return match on_missing {
                OnMissingKey::Balance => Ok(RoutingKey::Absent),
                OnMissingKey::Reject => {
                    Err(Answer::missing_key(service, entry.as_str(), Strategy::MetadataBased.name()))
                }
            };
        };
        if value.is_empty() {
            // As from a variable that was never set: no instance can ever have it, so trying again would not help.
            let strategy = Strategy::MetadataBased.name();
            return Err(Answer::malformed_key(service, entry.as_str(), strategy, "it is empty"));
        }
        if !binary {
            return Ok(RoutingKey::Value(Bytes::copy_from_slice(value.as_bytes())));
        }
        let first = value.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
        let raw = metadata::decode_bin(first.trim_ascii()).ok_or_else(|| {
            Answer::malformed_key(service, entry.as_str(), Strategy::MetadataBased.name(), "its value is not base64")
        })?;
        Ok(RoutingKey::Value(Bytes::from(raw)))
    }
}

fn invalid(of: &str, option: &'static str, value: &str, why: &str) -> ConfigError {
    ConfigError::InvalidOption { service: of.to_owned(), option, value: value.to_owned(), why: why.to_owned() }
}

/// HTTP's own headers, which are not metadata.
const NOT_METADATA: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use http::HeaderValue;
    use tonic::Code;

    use super::*;
    use crate::codegen::{Kind, MethodSpec, ServiceSpec};

    const METHOD: MethodSpec = MethodSpec::new("shop.Orders", "Buy", "/shop.Orders/Buy", Kind::Unary);
    const SPEC: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.Orders");

    fn reader(spec: ServiceSpec) -> Result<KeyReader, ConfigError> {
        KeyReader::new("shop.Orders", &spec.routes(&METHOD))
    }

    fn headers(key: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(key), HeaderValue::from_static(value))])
    }

    fn value(bytes: &'static [u8]) -> RoutingKey {
        RoutingKey::Value(Bytes::from_static(bytes))
    }

    #[test]
    fn a_key_is_read_from_its_metadata_entry() {
        let reader = reader(SPEC.routing_key("instanceid")).unwrap();

        assert_eq!(reader.read("shop.Orders", &headers("instanceid", "a")).unwrap(), value(b"a"));
        assert_eq!(reader.read("shop.Orders", &headers("other", "a")).unwrap(), RoutingKey::Absent);
    }

    #[test]
    fn a_binary_key_is_its_raw_bytes_padded_or_not() {
        let reader = reader(SPEC.routing_key("shard-bin")).unwrap();

        assert_eq!(reader.read("shop.Orders", &headers("shard-bin", "AP8=")).unwrap(), value(b"\x00\xff"));
        assert_eq!(reader.read("shop.Orders", &headers("shard-bin", "AP8")).unwrap(), value(b"\x00\xff"));
    }

    #[test]
    fn a_binary_key_that_is_no_base64_is_an_invalid_argument() {
        let reader = reader(SPEC.routing_key("shard-bin")).unwrap();

        let answer = reader.read("shop.Orders", &headers("shard-bin", "!")).unwrap_err();

        assert_eq!(answer.code, Code::InvalidArgument);
    }

    #[test]
    fn an_empty_key_is_an_invalid_argument() {
        let reader = reader(SPEC.routing_key("instanceid")).unwrap();

        let answer = reader.read("shop.Orders", &headers("instanceid", "")).unwrap_err();

        assert_eq!(answer.code, Code::InvalidArgument);
        assert!(answer.message.contains("instanceid") && answer.message.ends_with("it is empty"), "{}", answer.message);
    }

    #[test]
    fn a_missing_key_is_refused_where_the_option_says_so() {
        let reader = reader(SPEC.routing_key("instanceid").on_missing_key(OnMissingKey::Reject)).unwrap();

        let answer = reader.read("shop.Orders", &HeaderMap::new()).unwrap_err();

        assert_eq!(answer.code, Code::InvalidArgument);
        assert!(answer.message.contains("instanceid (METADATA_BASED)"), "{}", answer.message);
    }

    #[test]
    fn a_strategy_that_is_not_served_is_refused_by_name() {
        let error = reader(SPEC.strategy(Strategy::FieldBased)).unwrap_err().to_string();

        assert!(error.starts_with("service shop.Orders: the option strategy = FIELD_BASED is not served"), "{error}");
    }

    #[test]
    fn a_key_that_no_client_can_set_is_refused() {
        for key in ["grpc-timeout", "te", "x-grpcrouter-principal", "two words"] {
            assert!(matches!(reader(SPEC.routing_key(key)), Err(ConfigError::InvalidOption { .. })), "{key}");
        }
    }
}
