//! What hot messages have in common: texts, bytes, numbers and the block of metadata.
//! Each `*_len` says how much the `put_*` beside it writes; empty parts are not written, as proto3 has it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::frame::{Metadata, Text};
use crate::varint;

pub(super) const fn bytes_len(part: &Bytes) -> usize {
    if part.is_empty() { 0 } else { message_len(part.len()) }
}

/// The tag, the length and the content of a message or bytes field with a number below 16.
pub(super) const fn message_len(len: usize) -> usize {
    1 + varint::len(len as u64) + len
}

pub(super) const fn number_len(value: u64) -> usize {
    1 + varint::len(value)
}

pub(super) fn put_bytes(buf: &mut BytesMut, number: u8, part: &Bytes) {
    if !part.is_empty() {
        put_head(buf, number, part.len());
        buf.put_slice(part);
    }
}

/// The tag and length of a message or bytes field; the content follows.
pub(super) fn put_head(buf: &mut BytesMut, number: u8, len: usize) {
    varint::put_pair(buf, number << 3 | 2, len as u64);
}

pub(super) fn put_number(buf: &mut BytesMut, number: u8, value: u64) {
    varint::put_pair(buf, number << 3, value);
}

pub(super) fn read_text(message: &Bytes, content: &[u8]) -> Result<Text, ProtocolError> {
    Text::try_from(message.slice_ref(content)).map_err(|_| ProtocolError::Malformed("text that is not UTF-8"))
}

/// Marks that a message field came; a second one is not a message that a careful end writes.
pub(super) fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ProtocolError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ProtocolError::Malformed("a part that came twice")),
    }
}

/// Finds the metadata of a message: one slice if its entries stand side by side, as every encoder that we know
/// writes them; else they are copied together.
#[derive(Debug, Default)]
pub(super) struct MetadataSpan {
    start: usize,
    end: usize,
    scattered: BytesMut,
}

impl MetadataSpan {
    /// An entry, tag and length included, stands at `start..end` of `owner`.
    pub(super) fn add(&mut self, owner: &[u8], start: usize, end: usize) {
        if self.end != start && self.end != 0 {
            self.scattered.put_slice(owner.get(self.start..self.end).unwrap_or_default());
            self.start = start;
        } else if self.end == 0 {
            self.start = start;
        }
        self.end = end;
    }

    pub(super) fn read(mut self, message: &Bytes, owner: &[u8]) -> Result<Metadata, ProtocolError> {
        if self.end == 0 {
            return Ok(Metadata::default());
        }
        let last = owner.get(self.start..self.end).unwrap_or_default();
        if self.scattered.is_empty() {
            return Metadata::from_block(message.slice_ref(last));
        }
        self.scattered.put_slice(last);
        Metadata::from_block(self.scattered.freeze())
    }
}
