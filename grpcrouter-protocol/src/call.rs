//! One call: what it still has to send, what it may still receive, and the steps that are allowed.
//! The same on both ends: the gateway sends the request and receives the response, the instance the other way.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{Headers, Start, Trailers};
use crate::id::{CallId, MaxData, Seq};
use crate::time::Time;
use crate::window::{PART_OVERHEAD, ReceiveCredit, SendCredit};

/// One open call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) deadline: Option<Time>,
    pub(crate) send: SendHalf,
    pub(crate) receive: ReceiveHalf,
    /// It stands in the schedule.
    pub(crate) is_scheduled: bool,
    /// It has had its one turn at the front of the schedule.
    pub(crate) has_joined: bool,
    /// Its newest receive limit waits to be said.
    pub(crate) is_granting: bool,
    /// Instance: its handler is gone; only trailers go out and nothing is taken in.
    pub(crate) is_abandoned: bool,
}

impl Call {
    /// A call at the gateway, its start not yet written.
    pub(crate) fn request(id: CallId, start: Start, deadline: Option<Time>, window: u64, now: Time) -> Self {
        let send = SendHalf::new(Phase::Body, Some(Head::Start(start)), MaxData::new(window));
        Self::new(id, deadline, send, ReceiveHalf::new(Phase::Head, window, now))
    }

    /// A call at the instance, its start just taken.
    pub(crate) fn response(id: CallId, deadline: Option<Time>, window: u64, max_data: MaxData, now: Time) -> Self {
        let send = SendHalf::new(Phase::Head, None, max_data);
        Self::new(id, deadline, send, ReceiveHalf::new(Phase::Body, window, now))
    }

    fn new(id: CallId, deadline: Option<Time>, send: SendHalf, receive: ReceiveHalf) -> Self {
        Self {
            id,
            deadline,
            send,
            receive,
            is_scheduled: false,
            has_joined: false,
            is_granting: false,
            is_abandoned: false,
        }
    }

    /// True if not even its start was written.
    pub(crate) const fn is_unsent(&self) -> bool {
        matches!(self.send.head, Some(Head::Start(_)))
    }

    /// The handler is gone: what it said and did not get out is dropped, so that trailers can go at once. Gives back
    /// how many queued bytes that was.
    pub(crate) fn abandon(&mut self) -> usize {
        self.is_abandoned = true;
        self.deadline = None;
        self.receive.phase = Phase::Done;
        self.send.head = None;
        self.send.is_starved = false;
        self.send.queue.clear()
    }
}

/// How far one direction of a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Headers are due.
    Head,
    /// Data is due.
    Body,
    /// Nothing is due.
    Done,
}

/// What comes or goes in one direction of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Request or response headers.
    Head,
    /// A data part.
    Data,
    /// Half-close or trailers.
    End,
}

impl Phase {
    /// The phase after a step; `None` if the step is not allowed now.
    pub(crate) const fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Head, Step::Head) | (Self::Body, Step::Data) => Some(Self::Body),
            // From the head: a response of trailers alone.
            (Self::Head | Self::Body, Step::End) => Some(Self::Done),
            _ => None,
        }
    }

    /// For messages to people.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Head => "before headers",
            Self::Body => "after headers",
            Self::Done => "after the end",
        }
    }
}

impl Step {
    /// For messages to people.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Head => "headers",
            Self::Data => "data",
            Self::End => "an end",
        }
    }
}

/// The direction that this side fills.
#[derive(Debug)]
pub(crate) struct SendHalf {
    /// What the app has said so far.
    pub(crate) phase: Phase,
    /// Headers that wait to go.
    pub(crate) head: Option<Head>,
    /// Data that waits to go.
    pub(crate) queue: Chunks,
    /// The end that waits to go, after the data.
    pub(crate) end: Option<End>,
    pub(crate) credit: SendCredit,
    /// Data bytes that went out.
    pub(crate) sent: u64,
    /// The batch that carried the start.
    pub(crate) started_in: Seq,
    /// The app was told that it may send nothing, and waits to hear otherwise.
    pub(crate) is_starved: bool,
}

/// Headers that wait to go. No box: it would be an allocation for each call.
#[derive(Debug)]
pub(crate) enum Head {
    Start(Start),
    Headers(Headers),
}

/// An end that waits to go.
#[derive(Debug)]
pub(crate) enum End {
    HalfClose,
    Trailers(Trailers),
}

impl SendHalf {
    fn new(phase: Phase, head: Option<Head>, limit: MaxData) -> Self {
        let credit = SendCredit::new(limit);
        Self {
            phase,
            head,
            queue: Chunks::default(),
            end: None,
            credit,
            sent: 0,
            started_in: Seq::STATE,
            is_starved: false,
        }
    }

    /// Takes a step that the app makes. False if it is not allowed now: then nothing changes.
    pub(crate) fn take(&mut self, step: Step) -> bool {
        match self.phase.after(step) {
            Some(phase) => {
                self.phase = phase;
                true
            }
            None => false,
        }
    }

    /// True if something of it may go out now.
    pub(crate) fn is_ready(&self) -> bool {
        if self.head.is_some() {
            return true;
        }
        if self.queue.is_empty() { self.end.is_some() } else { self.credit.next_part() > 0 }
    }

    /// True if it can take nothing more until the other side grants credit.
    pub(crate) fn lacks_credit(&self, max_part: usize) -> bool {
        self.capacity(max_part, usize::MAX) == 0
    }

    /// How many more bytes its source should give now, in parts of at most `max_part`. No more than `most` ever wait
    /// here: a peer that names a limit without measure, and reads nothing, must not fill this side's memory.
    pub(crate) fn capacity(&self, max_part: usize, most: usize) -> usize {
        if self.phase == Phase::Done {
            return 0;
        }
        let parts = self.queue.len() / max_part.max(1);
        let overhead = parts.saturating_mul(PART_OVERHEAD as usize);
        self.credit.next_part().min(most).saturating_sub(self.queue.len()).saturating_sub(overhead)
    }
}

/// The direction that the other side fills.
#[derive(Debug)]
pub(crate) struct ReceiveHalf {
    pub(crate) phase: Phase,
    pub(crate) credit: ReceiveCredit,
}

impl ReceiveHalf {
    fn new(phase: Phase, window: u64, now: Time) -> Self {
        Self { phase, credit: ReceiveCredit::new(window, now) }
    }
}

/// Queued data. Most calls have one chunk at a time, which needs no allocation.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    first: Bytes,
    rest: VecDeque<Bytes>,
    len: usize,
}

impl Chunks {
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.len += chunk.len();
        if self.first.is_empty() {
            self.first = chunk;
        } else {
            self.rest.push_back(chunk);
        }
    }

    /// Moves the next `len` bytes into `buf`.
    pub(crate) fn take_into(&mut self, buf: &mut BytesMut, mut len: usize) {
        while len > 0 && !self.first.is_empty() {
            let taken = len.min(self.first.len());
            buf.put_slice(self.first.get(..taken).unwrap_or_default());
            self.first.advance(taken);
            self.len -= taken;
            len -= taken;
            if self.first.is_empty() {
                self.first = self.rest.pop_front().unwrap_or_default();
            }
        }
    }

    /// The bytes behind each other; a copy only if there is more than one chunk.
    pub(crate) fn join(mut self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut all = BytesMut::with_capacity(self.len);
        let len = self.len;
        self.take_into(&mut all, len);
        all.freeze()
    }

    /// Drops all; gives back how many bytes that was.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(self).len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CallId = CallId::new(1, 0);
    const T0: Time = Time::from_nanos(0);

    fn chunk(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_response_is_headers_then_data_then_an_end_or_an_end_alone() {
        let after = |steps: &[Step]| steps.iter().try_fold(Phase::Head, |phase, &step| phase.after(step));
        assert_eq!(after(&[Step::Head, Step::Data, Step::Data, Step::End]), Some(Phase::Done));
        assert_eq!(after(&[Step::End]), Some(Phase::Done));
        for refused in [&[Step::Data][..], &[Step::Head, Step::Head], &[Step::End, Step::Data], &[Step::End, Step::End]]
        {
            assert_eq!(after(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn chunks_are_taken_across_their_borders_in_order() {
        let mut chunks = Chunks::default();
        chunks.push(chunk("abc"));
        chunks.push(chunk(""));
        chunks.push(chunk("defg"));
        let mut buf = BytesMut::new();
        chunks.take_into(&mut buf, 5);
        assert_eq!((&buf[..], chunks.len()), (&b"abcde"[..], 2));
        assert_eq!(chunks.join(), chunk("fg"));
    }

    #[test]
    fn an_end_waits_for_the_data_before_it() {
        let mut call = Call::request(ID, Start::default(), None, 40, T0);
        call.send.head = None;
        call.send.queue.push(chunk("0123456789"));
        call.send.end = Some(End::HalfClose);
        assert!(call.send.is_ready(), "8 of 10 bytes may go");
        call.send.credit.spend(8);
        assert!(!call.send.is_ready(), "two bytes and the end wait for credit");
        call.send.credit.raise(MaxData::new(100));
        assert!(call.send.is_ready());
    }

    #[test]
    fn capacity_is_what_credit_leaves_beside_what_is_queued() {
        let mut call = Call::request(ID, Start::default(), None, 100, T0);
        assert_eq!((call.send.capacity(1_000, 1_000), call.send.capacity(1_000, 50)), (68, 50));
        call.send.queue.push(chunk("0123456789"));
        assert_eq!((call.send.capacity(1_000, 1_000), call.send.capacity(1_000, 50)), (58, 40));
        call.send.phase = Phase::Done;
        assert_eq!(call.send.capacity(1_000, 1_000), 0);
    }

    #[test]
    fn an_abandoned_call_keeps_nothing_that_could_hold_up_its_trailers() {
        let mut call = Call::response(ID, None, 100, MaxData::new(0), T0);
        call.send.head = Some(Head::Headers(Headers::default()));
        call.send.queue.push(chunk("0123456789"));
        assert_eq!(call.abandon(), 10);
        call.send.end = Some(End::Trailers(Trailers::default()));
        assert!(call.send.is_ready() && call.send.head.is_none());
    }
}
