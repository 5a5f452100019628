//! How a routing key is read. Prepared at `build()`, so that reading it costs one look at the head of a call, or one scan
//! over the bytes of its first message.

mod field;
mod header;
mod message;
mod segment;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

pub(super) use self::field::Field;
use self::message::First;
use crate::{
    codegen::{LoadBalancing, OnMissingKey, Strategy},
    error::ConfigError,
    status::Answer,
};

/// What the options say of the key of one method's calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) routing_key: Option<&'a str>,
    pub(super) strategy: Strategy,
    pub(super) load_balancing: LoadBalancing,
    pub(super) on_missing_key: OnMissingKey,
    pub(super) field: Option<&'a Field>,
}

/// A call's routing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoutingKey {
    /// The call names none: any instance will do.
    Absent,
    /// These bytes, as an instance claims them.
    Value(Bytes),
}

/// The head of a call, as far as a key may be in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) authority: &'a str,
    /// What stands in the path where `PATH_BASED` has the key, still encoded.
    pub(super) segment: Option<&'a str>,
}

/// What the head of a call says of its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Key(RoutingKey),
    /// It is in the first message.
    InMessage,
}

/// Reads the routing key of the calls of one method.
#[derive(Debug)]
pub(super) struct KeyReader {
    place: Place,
    strategy: Strategy,
    /// As the options name the key.
    name: String,
    on_missing: OnMissingKey,
}

/// Where a key is.
#[derive(Debug)]
enum Place {
    /// Calls carry none.
    Nowhere,
    /// A metadata entry of text.
    Text(HeaderName),
    /// A metadata entry of bytes.
    Binary(HeaderName),
    Header(HeaderName),
    Authority,
    Cookie(String),
    /// A segment of the path.
    Path,
    Field(Field),
}

/// Why a key cannot be read.
type Malformed = Cow<'static, str>;

impl KeyReader {
    /// # Errors
    /// The options cannot be meant. `of` names who carries them.
    pub(super) fn new(of: &str, routes: &Asked<'_>) -> Result<Self, ConfigError> {
        let place = match routes.strategy {
            Strategy::MetadataBased => match routes.routing_key {
                Some(key) => metadata_entry(of, key)?,
                None => Place::Nowhere,
            },
            Strategy::PathBased => Place::Path,
            Strategy::HeaderBased => {
                header_place(of, named(of, routes, "a header, \":authority\" or \"cookie:NAME\"")?)?
            }
            Strategy::FieldBased => {
                let key = named(of, routes, "a field of the request")?;
                let field = routes.field.ok_or_else(|| invalid(of, "routing_key", key, FIELD_UNKNOWN))?;
                field::check(field).map_err(|why| invalid(of, "routing_key", key, why))?;
                Place::Field(field.clone())
            }
        };
        if matches!(place, Place::Nowhere) {
            let why = "there is no routing_key that a call could carry";
            if routes.on_missing_key == OnMissingKey::Reject {
                return Err(invalid(of, "on_missing_key", OnMissingKey::Reject.name(), why));
            }
            if routes.load_balancing == LoadBalancing::ConsistentHash {
                return Err(invalid(of, "load_balancing", LoadBalancing::ConsistentHash.name(), why));
            }
        }
        Ok(Self {
            place,
            strategy: routes.strategy,
            name: routes.routing_key.unwrap_or(UNNAMED).to_owned(),
            on_missing: routes.on_missing_key,
        })
    }

    /// The name under which messages speak of the key.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the key is a segment of the path, before the service.
    pub(super) fn is_in_path(&self) -> bool {
        matches!(self.place, Place::Path)
    }

    /// Reads the key of one call to `service`, as far as it is in the head.
    pub(super) fn read(&self, service: &str, head: &Head<'_>) -> Result<Read, Answer> {
        let found = match &self.place {
            Place::Nowhere => return Ok(Read::Key(RoutingKey::Absent)),
            Place::Field(_) => return Ok(Read::InMessage),
            Place::Text(entry) => header::text(head.headers, entry),
            Place::Binary(entry) => header::binary(head.headers, entry),
            Place::Header(name) => header::header(head.headers, name),
            Place::Authority => Ok(header::host(head.authority)),
            Place::Cookie(name) => header::cookie(head.headers, name),
            Place::Path => segment::decode(head.segment),
        };
        self.key(service, found).map(Read::Key)
    }

    /// Reads the key from the first bytes of the request, which are in `parts`; `None` as long as more has to come.
    pub(super) fn read_message<'a>(
        &self,
        service: &str,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        ended: bool,
    ) -> Result<Option<RoutingKey>, Answer> {
        let Place::Field(path) = &self.place else { return Ok(Some(RoutingKey::Absent)) };
        let found = match message::first(parts, ended) {
            Ok(First::Waits) => return Ok(None),
            Ok(First::None) => Ok(None),
            Ok(First::Whole(message)) => field::read(&message, path).map_err(Cow::Borrowed),
            Err(why) => Err(why),
        };
        self.key(service, found).map(Some)
    }

    fn key(&self, service: &str, found: Result<Option<Bytes>, Malformed>) -> Result<RoutingKey, Answer> {
        let malformed = |why: &str| Err(Answer::malformed_key(service, &self.name, self.strategy.name(), why));
        match found {
            // As from a variable that was never set: no instance can ever have it, so trying again would not help.
            Ok(Some(key)) if key.is_empty() => malformed("it is empty"),
            Ok(Some(key)) if key.len() > MAX_KEY => {
                malformed(&format!("it has {} bytes, at most {MAX_KEY} are taken", key.len()))
            }
            Ok(Some(key)) => Ok(RoutingKey::Value(key)),
            Ok(None) => match self.on_missing {
                OnMissingKey::Balance => Ok(RoutingKey::Absent),
                OnMissingKey::Reject => Err(Answer::missing_key(service, &self.name, self.strategy.name())),
            },
            Err(why) => malformed(&why),
        }
    }
}

fn metadata_entry(of: &str, key: &str) -> Result<Place, ConfigError> {
    let entry = HeaderName::from_bytes(key.as_bytes())
        .map_err(|_| invalid(of, "routing_key", key, "a metadata key has only a-z, 0-9, '_', '-' and '.'"))?;
    if key.starts_with("grpc-") || key.starts_with(OWN) || NOT_METADATA.contains(&entry.as_str()) {
        return Err(invalid(of, "routing_key", key, "this name is reserved, no client can set it as metadata"));
    }
    Ok(if key.ends_with("-bin") { Place::Binary(entry) } else { Place::Text(entry) })
}

fn header_place(of: &str, key: &str) -> Result<Place, ConfigError> {
    if key == ":authority" {
        return Ok(Place::Authority);
    }
    if let Some(cookie) = key.strip_prefix("cookie:") {
        // A cookie's name is a token, as a header's is.
        return match HeaderName::from_bytes(cookie.as_bytes()) {
            Ok(_) => Ok(Place::Cookie(cookie.to_owned())),
            Err(_) => Err(invalid(of, "routing_key", key, "no cookie can have that name")),
        };
    }
    let name = HeaderName::from_bytes(key.as_bytes())
        .ok()
        .filter(|name| name.as_str() == key)
        .ok_or_else(|| invalid(of, "routing_key", key, "it is no header name in lower case"))?;
    if key.starts_with(OWN) || key.starts_with("proxy-") || HOP_BY_HOP.contains(&key) {
        return Err(invalid(of, "routing_key", key, "this header never comes from a client"));
    }
    Ok(Place::Header(name))
}

/// The key that a strategy cannot do without.
fn named<'a>(of: &str, routes: &Asked<'a>, what: &str) -> Result<&'a str, ConfigError> {
    let strategy = routes.strategy.name();
    routes.routing_key.ok_or_else(|| invalid(of, "strategy", strategy, &format!("it needs a routing_key: {what}")))
}

fn invalid(of: &str, option: &'static str, value: &str, why: &str) -> ConfigError {
    ConfigError::InvalidOption { service: of.to_owned(), option, value: value.to_owned(), why: why.to_owned() }
}

/// The longest key. Instances claim keys of up to 256 bytes; hashed ones, such as cookies, may be longer.
const MAX_KEY: usize = 1024;

/// How messages call a key that has no name: one in the path.
const UNNAMED: &str = "in the path";

const FIELD_UNKNOWN: &str = "the field's numbers are not known: generate the router again, or set field(..)";

/// The gateway sets these itself and takes none from outside.
const OWN: &str = "x-grpcrouter-";

/// Of one hop, so that none that comes says anything of the call.
const HOP_BY_HOP: [&str; 8] =
    ["connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

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
mod tests;
