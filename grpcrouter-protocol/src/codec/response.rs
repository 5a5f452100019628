//! RpcResponse, what an instance says of one call, by hand.
//! Written from borrowed parts and read as slices of the message that brought it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::call::{id_len, put_id};
use super::parts::{
    MetadataSpan, bytes_len, message_len, number_len, once, put_bytes, put_head, put_number, read_text,
};
use super::{cold, millis};
use crate::error::ProtocolError;
use crate::frame::{Headers, METADATA_FIELD, Trailers};
use crate::id::{CallId, MaxData};
use crate::varint::Reader;

/// An RpcResponse that came.
#[derive(Debug, PartialEq)]
pub(crate) struct ResponseFrame {
    pub(crate) id: CallId,
    pub(crate) headers: Option<Headers>,
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<Trailers>,
    /// How long to keep new calls away.
    pub(crate) refused: Option<Duration>,
    pub(crate) max_data: Option<MaxData>,
}

impl ResponseFrame {
    /// True if losing this frame would lose something of the call, so that its batch must have a number.
    pub(crate) const fn is_numbered(&self) -> bool {
        self.headers.is_some() || !self.data.is_empty() || self.trailers.is_some() || self.refused.is_some()
    }
}

/// An RpcResponse to write.
#[derive(Debug)]
pub(crate) struct ResponseParts<'a> {
    pub(crate) id: CallId,
    pub(crate) headers: Option<&'a Headers>,
    /// Bytes that the data writer will write.
    pub(crate) data_len: usize,
    pub(crate) trailers: Option<&'a Trailers>,
    pub(crate) refused: Option<Duration>,
    pub(crate) max_data: Option<MaxData>,
}

impl ResponseParts<'_> {
    /// An RpcResponse that says nothing yet.
    pub(crate) const fn new(id: CallId) -> Self {
        Self { id, headers: None, data_len: 0, trailers: None, refused: None, max_data: None }
    }

    /// Bytes of the message.
    pub(crate) fn len(&self) -> usize {
        let headers = self.headers.map_or(0, |headers| message_len(headers_len(headers)));
        let data = if self.data_len == 0 { 0 } else { message_len(self.data_len) };
        let trailers = self.trailers.map_or(0, |trailers| message_len(trailers_len(trailers)));
        let refused = self.refused.map_or(0, |wait| message_len(refused_len(wait)));
        let max_data = self.max_data.map_or(0, |limit| number_len(limit.get()));
        id_len(self.id) + headers + data + trailers + refused + max_data
    }

    /// Writes the message; `data` writes `data_len` bytes.
    pub(crate) fn put(&self, buf: &mut BytesMut, data: impl FnOnce(&mut BytesMut)) {
        put_id(buf, self.id);
        if let Some(headers) = self.headers {
            put_head(buf, 2, headers_len(headers));
            put_headers(buf, headers);
        }
        if self.data_len != 0 {
            put_head(buf, 3, self.data_len);
            data(buf);
        }
        if let Some(trailers) = self.trailers {
            put_head(buf, 4, trailers_len(trailers));
            put_trailers(buf, trailers);
        }
        if let Some(wait) = self.refused {
            put_head(buf, 5, refused_len(wait));
            if millis(wait) != 0 {
                put_number(buf, 1, millis(wait));
            }
        }
        if let Some(limit) = self.max_data {
            put_number(buf, 6, limit.get());
        }
    }
}

/// Bytes of a Headers message.
fn headers_len(headers: &Headers) -> usize {
    let Headers { content_subtype, encoding, accept_encoding, metadata } = headers;
    bytes_len(content_subtype.bytes())
        + bytes_len(encoding.bytes())
        + bytes_len(accept_encoding.bytes())
        + metadata.block().len()
}

fn put_headers(buf: &mut BytesMut, headers: &Headers) {
    put_bytes(buf, 1, headers.content_subtype.bytes());
    put_bytes(buf, 2, headers.encoding.bytes());
    put_bytes(buf, 3, headers.accept_encoding.bytes());
    buf.put_slice(headers.metadata.block());
}

fn trailers_len(trailers: &Trailers) -> usize {
    let status = if trailers.status == 0 { 0 } else { number_len(trailers.status.into()) };
    status + bytes_len(trailers.message.bytes()) + bytes_len(&trailers.details) + trailers.metadata.block().len()
}

fn put_trailers(buf: &mut BytesMut, trailers: &Trailers) {
    if trailers.status != 0 {
        put_number(buf, 1, trailers.status.into());
    }
    put_bytes(buf, 2, trailers.message.bytes());
    put_bytes(buf, 3, &trailers.details);
    buf.put_slice(trailers.metadata.block());
}

fn refused_len(wait: Duration) -> usize {
    if millis(wait) == 0 { 0 } else { number_len(millis(wait)) }
}

/// Reads an RpcResponse; `bytes` is a part of `message`.
pub(super) fn read(message: &Bytes, bytes: &[u8]) -> Result<ResponseFrame, ProtocolError> {
    let mut frame = ResponseFrame {
        id: CallId::from_raw(0),
        headers: None,
        data: Bytes::new(),
        trailers: None,
        refused: None,
        max_data: None,
    };
    let mut reader = Reader::new(bytes);
    while let Some((number, content)) = reader.next_field()? {
        match number {
            1 => frame.id = CallId::from_raw(content.varint()?),
            2 => once(&mut frame.headers, read_headers(message, content.message()?)?)?,
            3 => frame.data = message.slice_ref(content.message()?),
            4 => once(&mut frame.trailers, read_trailers(message, content.message()?)?)?,
            5 => once(&mut frame.refused, cold::read_refused(content.message()?)?)?,
            6 => frame.max_data = Some(MaxData::new(content.varint()?)),
            _ => {}
        }
    }
    Ok(frame)
}

fn read_headers(message: &Bytes, bytes: &[u8]) -> Result<Headers, ProtocolError> {
    let mut headers = Headers::default();
    let mut metadata = MetadataSpan::default();
    let mut reader = Reader::new(bytes);
    loop {
        let begin = bytes.len() - reader.remaining();
        let Some((number, content)) = reader.next_field()? else { break };
        match number {
            1 => headers.content_subtype = read_text(message, content.message()?)?,
            2 => headers.encoding = read_text(message, content.message()?)?,
            3 => headers.accept_encoding = read_text(message, content.message()?)?,
            METADATA_FIELD => metadata.add(bytes, begin, bytes.len() - reader.remaining()),
            _ => {}
        }
    }
    headers.metadata = metadata.read(message, bytes)?;
    Ok(headers)
}

fn read_trailers(message: &Bytes, bytes: &[u8]) -> Result<Trailers, ProtocolError> {
    let mut trailers = Trailers::default();
    let mut metadata = MetadataSpan::default();
    let mut reader = Reader::new(bytes);
    loop {
        let begin = bytes.len() - reader.remaining();
        let Some((number, content)) = reader.next_field()? else { break };
        match number {
            // As protobuf has it: of a number too large, the low 32 bits.
            1 => trailers.status = content.varint()? as u32,
            2 => trailers.message = read_text(message, content.message()?)?,
            3 => trailers.details = message.slice_ref(content.message()?),
            METADATA_FIELD => metadata.add(bytes, begin, bytes.len() - reader.remaining()),
            _ => {}
        }
    }
    trailers.metadata = metadata.read(message, bytes)?;
    Ok(trailers)
}
