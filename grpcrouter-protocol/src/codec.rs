//! Frames to protobuf bytes and back; the only room that sees wire types.
//! Calls, responses and batches are read and written by hand, without a copy or an allocation; the rest is prost's.

use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::batch::{Batch, BatchWriter};
pub(crate) use self::call::{CallFrame, CallParts, StartFrame, StartParts};
pub(crate) use self::response::{ResponseFrame, ResponseParts};
use crate::error::ProtocolError;
use crate::frame::{Close, Update};
use crate::id::{CallId, Side};
use crate::varint::Reader;

mod batch;
mod call;
mod cold;
pub(crate) mod handshake;
mod parts;
mod response;
#[cfg(test)]
mod tests;

/// One item of a batch. No box: the large kinds are the hot ones.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Call(CallFrame),
    Response(ResponseFrame),
    Ping(Bytes),
    Pong(Bytes),
    Close(Close),
    Drain(Vec<String>),
    PeersChanged(Vec<String>),
    Update(Update),
    MaxCalls(u64),
}

/// Reads one frame that `from` wrote; `bytes` is a part of `message`.
pub(crate) fn read_frame(from: Side, message: &Bytes, bytes: &[u8]) -> Result<Frame, ProtocolError> {
    let mut found = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, content)) = reader.next_field()? {
        let is_known = match from {
            Side::Gateway => number <= 7,
            Side::Instance => number <= 8,
        };
        // Found first and read after, since a frame is large to move about.
        if is_known && found.replace((number, content)).is_some() {
            return Err(ProtocolError::Malformed("a frame of two kinds"));
        }
    }
    let (number, content) = found.ok_or(ProtocolError::UnknownFrame)?;
    let content = content.message()?;
    Ok(match (from, number) {
        (Side::Gateway, 1) => Frame::Call(call::read(message, content)?),
        (Side::Instance, 1) => Frame::Response(response::read(message, content)?),
        (_, 2) => return Err(ProtocolError::Misplaced("a handshake")),
        (_, 3) => Frame::Ping(cold::read_opaque(message, content)?),
        (_, 4) => Frame::Pong(cold::read_opaque(message, content)?),
        (_, 5) => Frame::Close(cold::read_close(content)?),
        (Side::Gateway, 6) | (Side::Instance, 8) => Frame::Drain(cold::read_drain(content)?),
        (Side::Gateway, 7) => Frame::PeersChanged(cold::read_peers(content)?),
        (Side::Instance, 6) => Frame::Update(cold::read_update(content)?),
        (Side::Instance, 7) => Frame::MaxCalls(cold::read_max_calls(content)?),
        _ => return Err(ProtocolError::UnknownFrame),
    })
}

/// The call that a frame of a gateway's own names, found without reading the rest: this side wrote the id first.
pub(crate) fn call_id(bytes: &[u8]) -> Option<CallId> {
    let (1, call) = Reader::new(bytes).next_field().ok()?? else { return None };
    let (1, id) = Reader::new(call.message().ok()?).next_field().ok()?? else { return None };
    id.varint().ok().map(CallId::from_raw)
}

/// Time as the wire says it. Rounded down, so that no hop makes a deadline longer.
fn micros(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
