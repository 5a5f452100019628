//! RpcCall, what a gateway says of one call, by hand.
//! Written from borrowed parts and read as slices of the message that brought it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::parts::{
    MetadataSpan, bytes_len, message_len, number_len, once, put_bytes, put_head, put_number, read_text,
};
use super::{cold, micros};
use crate::error::ProtocolError;
use crate::frame::{CancelReason, METADATA_FIELD, Start};
use crate::id::{CallId, MaxData};
use crate::varint::Reader;

/// An RpcCall that came.
#[derive(Debug, PartialEq)]
pub(crate) struct CallFrame {
    pub(crate) id: CallId,
    pub(crate) start: Option<StartFrame>,
    pub(crate) data: Bytes,
    pub(crate) half_close: bool,
    pub(crate) max_data: Option<MaxData>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel: Option<CancelReason>,
}

impl CallFrame {
    /// True if losing this frame would lose something of the call, so that its batch must have a number.
    pub(crate) const fn is_numbered(&self) -> bool {
        self.start.is_some() || !self.data.is_empty() || self.half_close || self.cancel.is_some()
    }
}

/// The Start of an RpcCall that came.
#[derive(Debug, PartialEq)]
pub(crate) struct StartFrame {
    pub(crate) start: Start,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_data: MaxData,
}

/// An RpcCall to write.
#[derive(Debug)]
pub(crate) struct CallParts<'a> {
    pub(crate) id: CallId,
    pub(crate) start: Option<StartParts<'a>>,
    /// Bytes that the data writer will write.
    pub(crate) data_len: usize,
    pub(crate) half_close: bool,
    pub(crate) max_data: Option<MaxData>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel: Option<CancelReason>,
}

/// The Start of an RpcCall to write.
#[derive(Debug)]
pub(crate) struct StartParts<'a> {
    pub(crate) start: &'a Start,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_data: MaxData,
}

impl CallParts<'_> {
    /// An RpcCall that says nothing yet.
    pub(crate) const fn new(id: CallId) -> Self {
        Self { id, start: None, data_len: 0, half_close: false, max_data: None, timeout: None, cancel: None }
    }

    /// Bytes of the message.
    pub(crate) fn len(&self) -> usize {
        let start = self.start.as_ref().map_or(0, |start| message_len(start.len()));
        let data = if self.data_len == 0 { 0 } else { message_len(self.data_len) };
        let half_close = if self.half_close { 2 } else { 0 };
        let max_data = self.max_data.map_or(0, |limit| number_len(limit.get()));
        let timeout = self.timeout.map_or(0, |timeout| number_len(micros(timeout)));
        let cancel = if self.cancel.is_some() { message_len(2) } else { 0 };
        id_len(self.id) + start + data + half_close + max_data + timeout + cancel
    }

    /// Writes the message; `data` writes `data_len` bytes.
    pub(crate) fn put(&self, buf: &mut BytesMut, data: impl FnOnce(&mut BytesMut)) {
        put_id(buf, self.id);
        if let Some(start) = &self.start {
            put_head(buf, 2, start.len());
            start.put(buf);
        }
        if self.data_len != 0 {
            put_head(buf, 3, self.data_len);
            data(buf);
        }
        if self.half_close {
            put_number(buf, 4, 1);
        }
        if let Some(limit) = self.max_data {
            put_number(buf, 5, limit.get());
        }
        if let Some(timeout) = self.timeout {
            put_number(buf, 6, micros(timeout));
        }
        if let Some(reason) = self.cancel {
            put_head(buf, 7, 2);
            buf.put_u8(1 << 3);
            buf.put_u8(cold::cancel_number(reason));
        }
    }
}

impl StartParts<'_> {
    fn len(&self) -> usize {
        let Start { path, authority, content_subtype, encoding, accept_encoding, metadata } = self.start;
        let max_data = if self.max_data.get() == 0 { 0 } else { number_len(self.max_data.get()) };
        bytes_len(path.bytes())
            + bytes_len(authority.bytes())
            + bytes_len(content_subtype.bytes())
            + bytes_len(encoding.bytes())
            + bytes_len(accept_encoding.bytes())
            + self.timeout.map_or(0, |timeout| number_len(micros(timeout)))
            + max_data
            + metadata.block().len()
    }

    fn put(&self, buf: &mut BytesMut) {
        let Start { path, authority, content_subtype, encoding, accept_encoding, metadata } = self.start;
        put_bytes(buf, 1, path.bytes());
        put_bytes(buf, 2, authority.bytes());
        put_bytes(buf, 3, content_subtype.bytes());
        put_bytes(buf, 4, encoding.bytes());
        put_bytes(buf, 5, accept_encoding.bytes());
        if let Some(timeout) = self.timeout {
            put_number(buf, 6, micros(timeout));
        }
        if self.max_data.get() != 0 {
            put_number(buf, 7, self.max_data.get());
        }
        buf.put_slice(metadata.block());
    }
}

/// Reads an RpcCall; `bytes` is a part of `message`.
pub(super) fn read(message: &Bytes, bytes: &[u8]) -> Result<CallFrame, ProtocolError> {
    let mut frame = CallFrame {
        id: CallId::from_raw(0),
        start: None,
        data: Bytes::new(),
        half_close: false,
        max_data: None,
        timeout: None,
        cancel: None,
    };
    let mut reader = Reader::new(bytes);
    while let Some((number, content)) = reader.next_field()? {
        match number {
            1 => frame.id = CallId::from_raw(content.varint()?),
            2 => once(&mut frame.start, read_start(message, content.message()?)?)?,
            3 => frame.data = message.slice_ref(content.message()?),
            4 => frame.half_close = content.varint()? != 0,
            5 => frame.max_data = Some(MaxData::new(content.varint()?)),
            6 => frame.timeout = Some(Duration::from_micros(content.varint()?)),
            7 => once(&mut frame.cancel, cold::read_cancel(content.message()?)?)?,
            _ => {}
        }
    }
    Ok(frame)
}

fn read_start(message: &Bytes, bytes: &[u8]) -> Result<StartFrame, ProtocolError> {
    let mut frame = StartFrame { start: Start::default(), timeout: None, max_data: MaxData::default() };
    let mut metadata = MetadataSpan::default();
    let mut reader = Reader::new(bytes);
    loop {
        let begin = bytes.len() - reader.remaining();
        let Some((number, content)) = reader.next_field()? else { break };
        match number {
            1 => frame.start.path = read_text(message, content.message()?)?,
            2 => frame.start.authority = read_text(message, content.message()?)?,
            3 => frame.start.content_subtype = read_text(message, content.message()?)?,
            4 => frame.start.encoding = read_text(message, content.message()?)?,
            5 => frame.start.accept_encoding = read_text(message, content.message()?)?,
            6 => frame.timeout = Some(Duration::from_micros(content.varint()?)),
            7 => frame.max_data = MaxData::new(content.varint()?),
            METADATA_FIELD => metadata.add(bytes, begin, bytes.len() - reader.remaining()),
            _ => {}
        }
    }
    frame.start.metadata = metadata.read(message, bytes)?;
    Ok(frame)
}

pub(super) const fn id_len(id: CallId) -> usize {
    if id.get() == 0 { 0 } else { number_len(id.get()) }
}

pub(super) fn put_id(buf: &mut BytesMut, id: CallId) {
    if id.get() != 0 {
        put_number(buf, 1, id.get());
    }
}
