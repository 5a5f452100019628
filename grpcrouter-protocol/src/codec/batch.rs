//! The batch: the one kind of gRPC message that crosses a tunnel, `{ seq, ack, frames[] }`, by hand.
//! Whether a batch has a number is known only when it is full, so its head is written last, before its frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::call::CallParts;
use super::parts::{message_len, number_len};
use super::response::ResponseParts;
use crate::error::ProtocolError;
use crate::id::Seq;
use crate::varint::{self, Reader};

/// A batch that came.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    message: Bytes,
}

impl Batch {
    /// Reads the head; the frames are read one by one.
    pub(crate) fn read(message: Bytes) -> Result<Self, ProtocolError> {
        let (mut seq, mut ack) = (0, 0);
        // Fields may come in any order, so all of them are looked at before the first frame is.
        let mut reader = Reader::new(&message);
        while let Some((number, content)) = reader.next_field()? {
            match number {
                1 => seq = content.varint()?,
                2 => ack = content.varint()?,
                3 => drop(content.message()?),
                _ => {}
            }
        }
        Ok(Self { seq: Seq::new(seq), ack: Seq::new(ack), message })
    }

    /// The message that the frames are parts of.
    pub(crate) const fn message(&self) -> &Bytes {
        &self.message
    }

    /// The frames as they stand in the message.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut reader = Reader::new(&self.message);
        std::iter::from_fn(move || {
            loop {
                // Every field was read once in `read`, so none of these can fail now.
                match reader.next_field().ok()?? {
                    (3, content) => return content.message().ok(),
                    _ => continue,
                }
            }
        })
    }
}

/// Writes one batch at the end of a buffer that many batches share.
#[derive(Debug)]
pub(crate) struct BatchWriter<'a> {
    buf: &'a mut BytesMut,
    limit: usize,
    frames: u64,
    is_numbered: bool,
}

impl<'a> BatchWriter<'a> {
    /// Starts a batch of at most `limit` bytes. The buffer is empty between batches.
    pub(crate) fn new(buf: &'a mut BytesMut, limit: usize) -> Self {
        buf.clear();
        buf.put_bytes(0, HEAD_ROOM);
        Self { buf, limit, frames: 0, is_numbered: false }
    }

    /// Bytes that still fit.
    pub(crate) fn room(&self) -> usize {
        // The prefix is not part of the message.
        (self.limit + GRPC_PREFIX).saturating_sub(self.buf.len())
    }

    /// True if no frame was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.buf.len() == HEAD_ROOM
    }

    /// Bytes that a frame with a message of `len` bytes takes.
    const fn frame_len(len: usize) -> usize {
        message_len(message_len(len))
    }

    /// How many frames were written.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Adds an RpcCall; `data` writes its data.
    pub(crate) fn call(&mut self, call: &CallParts<'_>, data: impl FnOnce(&mut BytesMut)) {
        let len = call.len();
        self.frame_head(1, len);
        call.put(self.buf, data);
        self.is_numbered |= call.start.is_some() || call.data_len != 0 || call.half_close || call.cancel.is_some();
    }

    /// Adds an RpcResponse; `data` writes its data.
    pub(crate) fn response(&mut self, response: &ResponseParts<'_>, data: impl FnOnce(&mut BytesMut)) {
        let len = response.len();
        self.frame_head(1, len);
        response.put(self.buf, data);
        self.is_numbered |= response.headers.is_some()
            || response.data_len != 0
            || response.trailers.is_some()
            || response.refused.is_some();
    }

    /// Adds a frame of another kind: state, which needs no number. False if it must wait for a batch with more room.
    pub(super) fn state(&mut self, number: u8, message: &impl prost::Message) -> bool {
        let len = message.encoded_len();
        if Self::frame_len(len) > self.room() && !self.is_empty() {
            return false;
        }
        self.frame_head(number, len);
        // A BytesMut always has room.
        let _ = message.encode(self.buf);
        true
    }

    /// A frame of state that must not be lost gives its batch a number.
    pub(super) fn number_if(&mut self, is_added: bool) -> bool {
        self.is_numbered |= is_added;
        is_added
    }

    /// True if the batch must have a number.
    pub(crate) fn is_numbered(&self) -> bool {
        self.is_numbered
    }

    /// The whole gRPC message, prefix included.
    pub(crate) fn finish(self, seq: Seq, ack: Seq) -> Bytes {
        let seq_len = if seq == Seq::STATE { 0 } else { number_len(seq.get()) };
        let ack_len = if ack.get() == 0 { 0 } else { number_len(ack.get()) };
        let start = HEAD_ROOM - GRPC_PREFIX - seq_len - ack_len;
        let len = self.buf.len() - start - GRPC_PREFIX;
        if let Some(mut head) = self.buf.get_mut(start..HEAD_ROOM) {
            head.put_u8(0);
            head.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
            if seq_len != 0 {
                head.put_u8(1 << 3);
                varint::put(&mut head, seq.get());
            }
            if ack_len != 0 {
                head.put_u8(2 << 3);
                varint::put(&mut head, ack.get());
            }
        }
        let mut message = self.buf.split().freeze();
        message.advance(start);
        message
    }

    fn frame_head(&mut self, number: u8, len: usize) {
        self.frames += 1;
        self.buf.reserve(Self::frame_len(len));
        let head = [3 << 3 | 2, message_len(len) as u64, u64::from(number) << 3 | 2, len as u64];
        varint::put_all(self.buf, &head);
    }
}

/// A message without an own buffer, as gRPC writes it: uncompressed, its length, its bytes.
pub(super) fn whole(message: &impl prost::Message) -> Bytes {
    let len = message.encoded_len();
    let mut buf = BytesMut::with_capacity(GRPC_PREFIX + len);
    buf.put_u8(0);
    buf.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    let _ = message.encode(&mut buf);
    buf.freeze()
}

/// Before each gRPC message: a byte that says "not compressed" and four of length.
const GRPC_PREFIX: usize = 5;

/// Room for the prefix, the number and the ack at their longest.
const HEAD_ROOM: usize = GRPC_PREFIX + 11 + 11;
