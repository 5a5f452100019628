//! What goes into the next batch: control first, then fair turns between calls, as much as fits now.
//! Nothing is packed before it can be written, so what waits can still be cancelled.

use bytes::{Bytes, BytesMut};

use super::{State, Tunnel};
use crate::call::{Call, End, Head, SendHalf};
use crate::codec::{BatchWriter, CallParts, ResponseParts, StartParts};
use crate::config::Config;
use crate::frame::Trailers;
use crate::id::{Seq, Side};
use crate::time::Time;
use crate::window::charge;

impl Tunnel {
    pub(super) fn transmit(&mut self, now: Time) -> Option<Bytes> {
        if !self.wants_transmit() {
            return None;
        }
        if let State::Closing(close) = &self.state {
            let mut buffer = BytesMut::new();
            let mut batch = BatchWriter::new(&mut buffer, self.config.max_batch);
            batch.close(close);
            self.totals.frames_sent += batch.frames();
            self.state = State::Closed;
            return Some(batch.finish(Seq::STATE, self.inbox.taken()));
        }
        if (self.schedule.is_empty() || !mutant!(NewBeforeReplay))
            && let Some(message) = self.outbox.replay()
        {
            return Some(message);
        }
        let mut buffer = self.take_buffer();
        let mut batch = BatchWriter::new(&mut buffer, self.config.max_batch - MAX_CALLS_FRAME);
        self.control.write(&mut batch, self.side, &mut self.calls, now);
        if self.control.is_empty() && self.outbox.has_room() {
            self.write_turns(&mut batch, now);
        }
        if self.side == Side::Instance {
            self.write_max_calls(&mut batch);
        }
        self.totals.frames_sent += batch.frames();
        let message = if batch.is_numbered() {
            let message = batch.finish(self.outbox.next(), self.ack());
            self.outbox.push(message.clone());
            message
        } else {
            batch.finish(Seq::STATE, self.ack())
        };
        self.buffer = buffer;
        Some(message)
    }

    /// The buffer with room for what is queued now. A tunnel with little to say keeps a small block.
    fn take_buffer(&mut self) -> BytesMut {
        let mut buffer = std::mem::take(&mut self.buffer);
        let wanted = self.queued.saturating_add(SMALL_BATCH).min(self.config.max_batch + SMALL_BATCH);
        if buffer.capacity() < wanted {
            if buffer.capacity() == 0 {
                buffer = BytesMut::with_capacity(wanted.max(BLOCK));
            } else {
                buffer.reserve(wanted);
            }
        }
        buffer
    }

    fn write_turns(&mut self, batch: &mut BatchWriter<'_>, now: Time) {
        while let Some((id, left)) = self.schedule.front() {
            let Some(call) = self.calls.get_mut(id) else {
                // A call that ends leaves the schedule, so this does not happen; a stuck tunnel would be worse.
                self.schedule.leave();
                continue;
            };
            let Some(part) = Part::of(call, left, batch, &self.config) else { return };
            if part.has_head {
                call.send.started_in = self.outbox.next();
            }
            part.write(call, batch, self.side, now);
            self.queued -= part.data_len;
            if self.side == Side::Instance && part.has_end {
                // Out of the table here, so the schedule entry is the last trace of it.
                call.is_scheduled = false;
                self.schedule.leave();
                self.discard(id);
            } else if call.send.is_ready() {
                self.schedule.spend(charge(part.data_len));
            } else {
                call.is_scheduled = false;
                self.schedule.leave();
                self.wake(id);
            }
        }
    }

    /// The newest limit rides on whatever goes out; it is written last, since answers written before it raise it.
    fn write_max_calls(&mut self, batch: &mut BatchWriter<'_>) {
        let limit = self.ended.saturating_add(self.config.max_open_calls.into());
        if limit > self.max_calls || std::mem::take(&mut self.says_max_calls) {
            self.max_calls = limit;
            batch.max_calls(limit);
        }
    }

    /// The ack to send. No ack while a refusal waits: the gateway reads the refused call back from unacked batches.
    fn ack(&mut self) -> Seq {
        if !self.control.has_refusals() || mutant!(AcksBeforeRefusals) {
            self.inbox.ack();
        }
        self.inbox.acked()
    }
}

/// What of one call goes into a batch in one frame.
#[derive(Debug)]
struct Part {
    has_head: bool,
    data_len: usize,
    has_end: bool,
}

impl Part {
    /// As much as credit, turn and batch allow. `None` if nothing fits: the batch is full. An empty batch has room
    /// for anything, since the limits of headers and trailers are below that of a batch.
    fn of(call: &Call, left: u64, batch: &BatchWriter<'_>, config: &Config) -> Option<Self> {
        let SendHalf { head, queue, end, credit, .. } = &call.send;
        let is_first = batch.is_empty();
        let mut room = batch.room().saturating_sub(FRAME);
        let head_len = head.as_ref().map_or(0, head_len);
        if head_len > room && !is_first {
            return None;
        }
        room = room.saturating_sub(head_len);

        let turn = usize::try_from(left).unwrap_or(usize::MAX);
        let wanted = queue.len().min(credit.next_part()).min(config.max_part).min(turn);
        let fits = wanted.min(room.saturating_sub(PART_FRAME));
        // A crumb would cost as much credit as a loaf, so it waits for the next batch; in a batch of its own it goes.
        let is_crumb = fits < wanted.min(LEAST_PART) && !(is_first && head.is_none());
        let data_len = if is_crumb { 0 } else { fits };
        room = room.saturating_sub(data_len);

        let is_all = data_len == queue.len();
        let has_end = match end {
            Some(End::HalfClose) if mutant!(HalfCloseFirst) => true,
            Some(end) if is_all => end_len(end) <= room || is_first && head.is_none() && data_len == 0,
            _ => false,
        };
        let part = Self { has_head: head.is_some(), data_len, has_end };
        (part.has_head || part.data_len > 0 || part.has_end).then_some(part)
    }

    fn write(&self, call: &mut Call, batch: &mut BatchWriter<'_>, side: Side, now: Time) {
        let Call { id, deadline, send, receive, .. } = call;
        let SendHalf { head, queue, end, credit, sent, .. } = send;
        let head = head.take();
        let end = if self.has_end { end.take() } else { None };
        let data_len = self.data_len;
        let data = |buf: &mut BytesMut| queue.take_into(buf, data_len);
        match side {
            Side::Gateway => {
                let start = match &head {
                    Some(Head::Start(start)) => {
                        let timeout = deadline.map(|deadline| deadline.since(now));
                        Some(StartParts { start, timeout, max_data: receive.credit.limit() })
                    }
                    _ => None,
                };
                batch.call(&CallParts { start, data_len, half_close: end.is_some(), ..CallParts::new(*id) }, data);
            }
            Side::Instance => {
                let headers = match &head {
                    Some(Head::Headers(headers)) => Some(headers),
                    _ => None,
                };
                let trailers = match &end {
                    Some(End::Trailers(trailers)) => Some(trailers),
                    _ => None,
                };
                batch.response(&ResponseParts { headers, data_len, trailers, ..ResponseParts::new(*id) }, data);
            }
        }
        credit.spend(data_len);
        *sent += data_len as u64;
    }
}

/// The most bytes that waiting headers take in a frame.
fn head_len(head: &Head) -> usize {
    let (texts, metadata) = match head {
        Head::Start(start) => (super::start_texts(start), &start.metadata),
        Head::Headers(headers) => (super::headers_texts(headers), &headers.metadata),
    };
    texts + metadata.block().len() + HEAD_FRAME
}

/// The most bytes that a waiting end takes in a frame.
fn end_len(end: &End) -> usize {
    match end {
        End::HalfClose => 2,
        End::Trailers(Trailers { message, details, metadata, .. }) => {
            message.len() + details.len() + metadata.block().len() + END_FRAME
        }
    }
}

/// Two tags and lengths, and a call id.
const FRAME: usize = 32;

/// A tag and length for each text, a timeout and a limit.
const HEAD_FRAME: usize = 64;

/// A tag and length for each part of trailers, and the status.
const END_FRAME: usize = 32;

/// A data part's tag and length.
const PART_FRAME: usize = 6;

/// The least piece of a larger chunk that is worth its 32 bytes of credit.
const LEAST_PART: usize = 1024;

/// Kept free at the end of a batch for the limit of calls.
const MAX_CALLS_FRAME: usize = 16;

/// The allocation that a tunnel cuts small batches from: a few dozen unary calls.
const BLOCK: usize = 16 * 1024;

/// What a batch without data takes, mostly: acks, limits, some headers. More makes the buffer grow.
const SMALL_BATCH: usize = 512;
