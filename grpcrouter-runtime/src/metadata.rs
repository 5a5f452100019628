//! HTTP headers to metadata and back, and what never crosses a hop. Typed fields (content subtype, encodings, timeout,
//! status) are taken out here; what remains is the user's metadata, `-bin` values as raw bytes.

mod bin;
mod rules;
mod timeout;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grpcrouter_protocol::{Config, Headers, Metadata, MetadataBuilder, Start, Text, Trailers};
use http::header::{CONTENT_TYPE, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

use crate::status::{Answer, Outcome};
use rules::Kind;

pub(crate) use bin::{decode as decode_bin, encode as encode_bin};

/// The head of a client's request, checked.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// Its path is the one that was given: the route decides what the instance sees.
    pub(crate) start: Start,
    /// What the client still waits, from `grpc-timeout`.
    pub(crate) timeout: Option<Duration>,
}

/// What is known of a request's caller, and what of the head was spent on finding out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vouched {
    /// Who it is; the service is told in [`PRINCIPAL`].
    pub(crate) principal: Option<Text>,
    /// Credentials that were for this hop: they do not cross.
    pub(crate) spent: Option<HeaderName>,
}

/// Who calls, as a gateway that verified it tells the service. From anybody else it never crosses.
pub(crate) const PRINCIPAL: HeaderName = HeaderName::from_static("x-grpcrouter-principal");

/// Reads the head of a request. Whether it is gRPC at all was asked before, with [`is_grpc`].
///
/// # Errors
/// The answer to give: a malformed or spent `grpc-timeout`, metadata over its limits, `-bin` metadata that is no base64.
pub(crate) fn start_from_request(
    headers: &HeaderMap,
    path: Text,
    authority: Text,
    vouched: &Vouched,
) -> Result<RequestHead, Answer> {
    let mut read = Reader::new("the request's metadata", MAX_METADATA);
    read.charge(path.len() + authority.len())?;
    let mut timeout = None;
    for (name, value) in headers {
        match rules::kind(name.as_str()) {
            Kind::Timeout => timeout = Some(timeout::parse(value.as_bytes())?),
            Kind::PreviousAttempts => read.ascii(name, value)?,
            Kind::Status | Kind::Message | Kind::Details | Kind::Pushback => {}
            Kind::Ascii if vouched.spent.as_ref() == Some(name) => {}
            kind => read.header(kind, name, value)?,
        }
    }
    if let Some(principal) = &vouched.principal {
        read.push(&PRINCIPAL, principal.bytes())?;
    }
    if timeout == Some(Duration::ZERO) {
        return Err(Answer::deadline(Outcome::NotSent));
    }
    let Headers { content_subtype, encoding, accept_encoding, metadata } = read.finish();
    Ok(RequestHead { start: Start { path, authority, content_subtype, encoding, accept_encoding, metadata }, timeout })
}

/// Says of a call that goes to one more instance how often it was given to one before, on top of what its client says of
/// its own tries: `grpc-previous-rpc-attempts`, after gRFC A6. Left out where that would be over the limits.
pub(crate) fn count_attempt(start: &mut Start, limits: &Config) {
    let mut metadata = MetadataBuilder::with_capacity(start.metadata.size() + METADATA_GUESS);
    let mut before = 0_u32;
    for (key, value) in start.metadata.iter() {
        if key == PREVIOUS_ATTEMPTS.as_bytes() {
            before = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(before);
        } else {
            metadata.push(&key, &value);
        }
    }
    metadata.push(PREVIOUS_ATTEMPTS.as_bytes(), before.saturating_add(1).to_string().as_bytes());
    let metadata = metadata.finish();
    let Start { path, authority, content_subtype, encoding, accept_encoding, .. } = &*start;
    let texts = [path, authority, content_subtype, encoding, accept_encoding].map(Text::len).iter().sum::<usize>();
    if texts + metadata.size() <= limits.max_metadata && metadata.len() <= limits.max_metadata_entries {
        start.metadata = metadata;
    }
}

/// The request as the service shall see it: what the client sent, with the time that is left. Nothing is invented.
///
/// # Errors
/// The answer to give if the gateway sent a path that is none.
pub(crate) fn request_from_start(start: &Start, deadline_left: Option<Duration>) -> Result<Request<()>, Answer> {
    let malformed =
        || Answer::malformed_request(format!("the path {} is malformed", crate::status::shown(start.path.as_str())));
    let path = PathAndQuery::from_maybe_shared(start.path.bytes().clone()).map_err(|_| malformed())?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    // An authority that HTTP does not know is not worth the call: services look at the path.
    if let Ok(authority) = Authority::from_maybe_shared(start.authority.bytes().clone()) {
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| malformed())?;

    let headers = request.headers_mut();
    headers.insert(TE, TRAILERS);
    headers.insert(CONTENT_TYPE, content_type(&start.content_subtype));
    if let Some(left) = deadline_left {
        headers.insert(GRPC_TIMEOUT, timeout::format(left));
    }
    put_text(headers, GRPC_ENCODING, &start.encoding);
    put_text(headers, GRPC_ACCEPT_ENCODING, &start.accept_encoding);
    put_metadata(headers, &start.metadata, Some(&PRINCIPAL));
    Ok(request)
}

/// Takes the time that passed here out of `grpc-timeout`, for whoever is asked after a wait.
///
/// # Errors
/// The answer to give if none is left.
pub(crate) fn shrink_timeout(headers: &mut HeaderMap, passed: Duration) -> Result<(), Answer> {
    let Some(timeout) = headers.get_mut(GRPC_TIMEOUT) else { return Ok(()) };
    // What is less stands in no proportion to a new value for each call.
    if passed < Duration::from_millis(1) {
        return Ok(());
    }
    match timeout::parse(timeout.as_bytes())?.checked_sub(passed) {
        None | Some(Duration::ZERO) => Err(Answer::deadline(Outcome::NotSent)),
        Some(left) => {
            *timeout = timeout::format(left);
            Ok(())
        }
    }
}

/// Reads the headers of a response that is not trailers alone.
///
/// # Errors
/// The answer to give in its place: metadata over its limits, `-bin` metadata that is no base64.
pub(crate) fn headers_from_response(headers: &HeaderMap) -> Result<Headers, Answer> {
    let mut read = Reader::new("the response's initial metadata", MAX_METADATA);
    for (name, value) in headers {
        match rules::kind(name.as_str()) {
            Kind::Status | Kind::Message | Kind::Details | Kind::Pushback | Kind::PreviousAttempts => {}
            kind => read.header(kind, name, value).map_err(Answer::by_the_service)?,
        }
    }
    Ok(read.finish())
}

/// The response's head as the client shall see it.
pub(crate) fn response_headers(from: &Headers) -> Response<()> {
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_2;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type(&from.content_subtype));
    put_text(headers, GRPC_ENCODING, &from.encoding);
    put_text(headers, GRPC_ACCEPT_ENCODING, &from.accept_encoding);
    put_metadata(headers, &from.metadata, None);
    response
}

/// A response of trailers alone: one head that carries the status and ends the stream.
///
/// `content_subtype` is that of the request: who answers with nothing but a status names none of its own.
pub(crate) fn trailers_only(trailers: &Trailers, content_subtype: &Text) -> Response<()> {
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_2;
    response.headers_mut().insert(CONTENT_TYPE, content_type(content_subtype));
    trailers_into_map(trailers, response.headers_mut());
    response
}

/// Whether these response headers are the whole response.
pub(crate) fn is_trailers_only(headers: &HeaderMap) -> bool {
    headers.contains_key(GRPC_STATUS)
}

/// Reads trailers, or headers that are the whole response. What is missing or wrong becomes a legal status.
pub(crate) fn trailers_from_map(map: &HeaderMap) -> Trailers {
    match read_trailers(map) {
        Ok(trailers) => trailers,
        Err(answer) => answer.by_the_service().trailers(),
    }
}

/// Writes trailers into a map of headers.
pub(crate) fn trailers_into_map(from: &Trailers, map: &mut HeaderMap) {
    map.insert(GRPC_STATUS, status_value(from.status));
    if !from.message.is_empty() {
        let encoded = percent_encode(from.message.bytes(), MESSAGE_ESCAPES).to_string();
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(encoded)) {
            map.insert(GRPC_MESSAGE, value);
        }
    }
    if !from.details.is_empty()
        && let Some(value) = bin::encode(&from.details)
    {
        map.insert(GRPC_STATUS_DETAILS, value);
    }
    put_metadata(map, &from.metadata, None);
}

/// Whether a request says that it is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| subtype(value.as_bytes()).is_some())
}

/// What a request's content type names after `application/grpc+`; empty if nothing, or if it is not gRPC.
pub(crate) fn content_subtype(headers: &HeaderMap) -> Text {
    headers.get(CONTENT_TYPE).and_then(|value| subtype(value.as_bytes())).map(subtype_text).unwrap_or_default()
}

fn read_trailers(map: &HeaderMap) -> Result<Trailers, Answer> {
    let mut read = Reader::new("the response's trailers", MAX_TRAILERS);
    let mut trailers =
        Trailers { status: UNKNOWN, message: Text::default(), details: Bytes::new(), metadata: Metadata::default() };
    for (name, value) in map {
        match rules::kind(name.as_str()) {
            Kind::Status => trailers.status = status_code(value.as_bytes()),
            Kind::Message => {
                let message = percent_decode(value.as_bytes()).decode_utf8_lossy();
                read.charge(message.len())?;
                trailers.message = Text::from(message.into_owned());
            }
            Kind::Details => {
                let details = bin::decode(value.as_bytes()).ok_or_else(|| not_base64(name))?;
                read.charge(details.len())?;
                trailers.details = Bytes::from(details);
            }
            Kind::Pushback => read.ascii(name, value)?,
            Kind::Ascii => read.ascii(name, value)?,
            Kind::Binary => read.binary(name, value)?,
            _ => {}
        }
    }
    if !map.contains_key(GRPC_STATUS) {
        return Err(Answer::malformed_response("the service ended the call without a grpc-status"));
    }
    trailers.metadata = read.finish().metadata;
    Ok(trailers)
}

/// Gathers what both kinds of heads share, within the limits.
struct Reader {
    what: &'static str,
    limit: usize,
    size: usize,
    entries: usize,
    headers: Headers,
    metadata: Option<MetadataBuilder>,
}

impl Reader {
    fn new(what: &'static str, limit: usize) -> Self {
        Self { what, limit, size: 0, entries: 0, headers: Headers::default(), metadata: None }
    }

    fn header(&mut self, kind: Kind, name: &HeaderName, value: &HeaderValue) -> Result<(), Answer> {
        let text = match kind {
            Kind::ContentType => &mut self.headers.content_subtype,
            Kind::Encoding => &mut self.headers.encoding,
            Kind::AcceptEncoding => &mut self.headers.accept_encoding,
            Kind::Ascii => return self.ascii(name, value),
            Kind::Binary => return self.binary(name, value),
            _ => return Ok(()),
        };
        *text = match kind {
            Kind::ContentType => subtype(value.as_bytes()).map(subtype_text).unwrap_or_default(),
            _ => encoding_text(value),
        };
        self.charge(value.len())
    }

    fn ascii(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Answer> {
        self.push(name, value.as_bytes())
    }

    /// Several values may stand in one header; each is decoded once.
    fn binary(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Answer> {
        for part in value.as_bytes().split(|byte| *byte == b',') {
            let raw = bin::decode(part.trim_ascii()).ok_or_else(|| not_base64(name))?;
            self.push(name, &raw)?;
        }
        Ok(())
    }

    fn push(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Answer> {
        let name = name.as_str().as_bytes();
        self.charge(name.len() + value.len())?;
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            let what = format!("the number of entries of {}", self.what);
            return Err(Answer::too_large(&what, self.entries, MAX_ENTRIES));
        }
        self.metadata.get_or_insert_with(|| MetadataBuilder::with_capacity(METADATA_GUESS)).push(name, value);
        Ok(())
    }

    fn charge(&mut self, len: usize) -> Result<(), Answer> {
        self.size += len;
        if self.size > self.limit {
            return Err(Answer::too_large(self.what, self.size, self.limit));
        }
        Ok(())
    }

    fn finish(self) -> Headers {
        let metadata = self.metadata.map(MetadataBuilder::finish).unwrap_or_default();
        Headers { metadata, ..self.headers }
    }
}

/// Puts metadata that came over a tunnel into headers, through the same rules: an instance is not trusted either. Of our
/// own entries only `ours` passes.
fn put_metadata(map: &mut HeaderMap, metadata: &Metadata, ours: Option<&HeaderName>) {
    if metadata.is_empty() {
        return;
    }
    for (key, value) in metadata.iter() {
        let kind = match rules::wire_kind(&key) {
            Some(kind) => kind,
            None if ours.is_some_and(|ours| ours.as_str().as_bytes() == key) => Kind::Ascii,
            None => continue,
        };
        let Ok(name) = HeaderName::from_bytes(&key) else { continue };
        let value = match kind {
            Kind::Binary => bin::encode(&value),
            _ => HeaderValue::from_maybe_shared(value).ok(),
        };
        if let Some(value) = value {
            map.append(name, value);
        }
    }
}

fn put_text(map: &mut HeaderMap, name: HeaderName, text: &Text) {
    if !text.is_empty()
        && let Ok(value) = HeaderValue::from_maybe_shared(text.bytes().clone())
    {
        map.insert(name, value);
    }
}

/// What follows `application/grpc+`, empty if nothing does, `None` if it is not gRPC.
fn subtype(content_type: &[u8]) -> Option<&[u8]> {
    match content_type.strip_prefix(GRPC)? {
        [] => Some(b""),
        [b'+', rest @ ..] => Some(rest),
        // "application/grpc;charset=utf-8": parameters mean nothing to gRPC.
        [b';' | b' ', ..] => Some(b""),
        // "application/grpc-web" is another protocol.
        _ => None,
    }
}

fn subtype_text(subtype: &[u8]) -> Text {
    match subtype {
        b"" => Text::default(),
        b"proto" => Text::from_static("proto"),
        b"json" => Text::from_static("json"),
        other => Text::from(String::from_utf8_lossy(other).into_owned()),
    }
}

fn content_type(subtype: &Text) -> HeaderValue {
    match subtype.as_str() {
        "" => HeaderValue::from_static("application/grpc"),
        "proto" => HeaderValue::from_static("application/grpc+proto"),
        other => {
            let mut value = BytesMut::from(GRPC);
            value.extend_from_slice(b"+");
            value.extend_from_slice(other.as_bytes());
            HeaderValue::from_maybe_shared(value.freeze()).unwrap_or(HeaderValue::from_static("application/grpc"))
        }
    }
}

fn encoding_text(value: &HeaderValue) -> Text {
    match value.as_bytes() {
        b"identity" => Text::from_static("identity"),
        b"gzip" => Text::from_static("gzip"),
        b"identity,deflate,gzip" => Text::from_static("identity,deflate,gzip"),
        b"identity, deflate, gzip" => Text::from_static("identity, deflate, gzip"),
        _ => value.to_str().map(|text| Text::from(text.to_owned())).unwrap_or_default(),
    }
}

/// A code that gRPC knows passes; anything else is UNKNOWN.
fn status_code(value: &[u8]) -> u32 {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|code| *code <= LAST_CODE)
        .unwrap_or(UNKNOWN)
}

fn status_value(code: u32) -> HeaderValue {
    match code {
        0 => HeaderValue::from_static("0"),
        1..=LAST_CODE => HeaderValue::from(code),
        _ => HeaderValue::from(UNKNOWN),
    }
}

fn not_base64(name: &HeaderName) -> Answer {
    Answer::malformed_request(format!("the value of the metadata key {name} is not base64"))
}

const GRPC: &[u8] = b"application/grpc";
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// What `grpc-message` must escape: all but `%x20-24 / %x26-7E`, after gRPC over HTTP/2, "Responses".
const MESSAGE_ESCAPES: &AsciiSet = &CONTROLS.add(b'%');

/// The code for what has no better one.
const UNKNOWN: u32 = 2;
/// UNAUTHENTICATED, the highest code that gRPC defines.
const LAST_CODE: u32 = 16;

/// Bytes of keys and values of one head. HTTP/2 peers take 16 KiB unless they say otherwise.
const MAX_METADATA: usize = 16 * 1024;
/// Bytes of trailers: they may carry status details beside the metadata.
const MAX_TRAILERS: usize = 32 * 1024;
/// Entries of one head: the cost of an entry is more than its bytes.
const MAX_ENTRIES: usize = 128;
/// Room for the metadata of a usual call (a user agent and a key or two) without growing.
const METADATA_GUESS: usize = 192;

#[cfg(test)]
mod tests;
