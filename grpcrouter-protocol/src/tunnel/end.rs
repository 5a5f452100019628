//! How calls end other than by trailers: cancelled, expired, refused, broken or lost.
//! Each way takes the call out of the table, the schedule and the counters, and says so once.

use bytes::BytesMut;

use super::{DEADLINE_EXCEEDED, EndReason, Event, INTERNAL, OpenCall, Outcome, Tunnel, has_deadline, schedule};
use crate::call::{Call, Chunks, End, Head, Phase};
use crate::codec::{self, Batch, Frame};
use crate::error::ProtocolError;
use crate::frame::{CancelReason, Trailers};
use crate::id::{CallId, Side};
use crate::time::Time;
use crate::window::charge;

impl Tunnel {
    /// Takes a call out of all places but the table. False if it is not open.
    fn retire(&mut self, id: CallId) -> bool {
        let Some(call) = self.calls.get(id) else { return false };
        let (window, unconsumed) = (call.receive.credit.window(), call.receive.credit.unconsumed());
        if let Some(lease) = self.growth.lease(window, unconsumed) {
            self.events.push_back(Event::Leased { call: id, lease });
        }
        self.growth.release(window);
        self.queued -= call.send.queue.len();
        match self.side {
            // A start that never went is not one of the calls that the instance counts.
            Side::Gateway => self.opened -= u64::from(call.is_unsent()),
            Side::Instance => self.ended += 1,
        }
        let (is_scheduled, is_granting) = (call.is_scheduled, call.is_granting);
        if is_scheduled {
            self.schedule.remove(id);
        }
        if is_granting {
            self.control.forget_grant(id);
        }
        true
    }

    /// Ends a call of which nothing is wanted any more; the hot way, since a call is large to move about. True if it
    /// was open.
    pub(super) fn discard(&mut self, id: CallId) -> bool {
        self.retire(id) && self.calls.discard(id)
    }

    /// Ends a call and gives it back.
    fn remove(&mut self, id: CallId) -> Option<Call> {
        if self.retire(id) { self.calls.remove(id) } else { None }
    }

    /// Gateway: a call is over here and the instance must hear so, if it ever heard of the call. True if it was open.
    pub(super) fn end_request(&mut self, id: CallId, reason: CancelReason) -> bool {
        if self.side != Side::Gateway {
            return false;
        }
        let Some(call) = self.calls.get(id) else { return false };
        if !call.is_unsent() {
            self.control.cancel(id, reason);
        }
        self.discard(id)
    }

    /// Ends every call whose deadline has passed.
    pub(super) fn end_expired(&mut self, now: Time) {
        while self.is_attached() || !mutant!(DeadlinesSleep) {
            let calls = &self.calls;
            let Some(id) = self.deadlines.pop(now, |call, at| has_deadline(calls, call, at)) else { return };
            let is_told = match self.side {
                Side::Gateway => self.end_request(id, CancelReason::Deadline),
                Side::Instance => self.expire_response(id),
            };
            if is_told {
                self.events.push_back(Event::Ended { call: id, reason: EndReason::Deadline });
            }
        }
    }

    /// Instance: drops what a call still had to say. True if its handler must hear of it: one that has given its
    /// trailers is gone, but a part of its answer must not look like the whole.
    fn expire_response(&mut self, id: CallId) -> bool {
        let Some(call) = self.calls.get_mut(id) else { return false };
        self.queued -= call.abandon();
        let is_answered = call.send.end.is_some();
        if is_answered {
            call.send.end = Some(End::Trailers(Trailers {
                status: DEADLINE_EXCEEDED,
                message: super::LATE.into(),
                ..Trailers::default()
            }));
        }
        self.reschedule(id);
        !is_answered
    }

    /// The peer broke the protocol in one call: that call ends. Too often, or far beyond: the tunnel does.
    pub(super) fn violate(&mut self, id: CallId, error: ProtocolError) -> Result<(), ProtocolError> {
        let over = if let ProtocolError::Overrun { over, .. } = error { over } else { 0 };
        if over >= MAX_OVERRUN {
            return Err(error);
        }
        self.broken.push((id, over));
        if self.broken.len() >= MAX_VIOLATIONS {
            return Err(ProtocolError::TooManyViolations(self.broken.len() as u32, error.to_string()));
        }
        let is_told = match self.side {
            Side::Gateway => self.end_request(id, CancelReason::Violation),
            Side::Instance => self.fail_response(id, &error),
        };
        if is_told {
            self.events.push_back(Event::Ended { call: id, reason: EndReason::Violation(error) });
        }
        Ok(())
    }

    /// A frame with so much data came for a call that is over here. Ends cross on the way, so that is normal; but a peer
    /// that goes on and on with a call which it broke the protocol in means it.
    pub(super) fn late(&mut self, id: CallId, data_len: usize) -> Result<(), ProtocolError> {
        self.late_frames += 1;
        let Some((_, over)) = self.broken.iter_mut().find(|(broken, _)| *broken == id) else { return Ok(()) };
        *over = over.saturating_add(charge(data_len));
        if *over >= MAX_OVERRUN { Err(ProtocolError::Overrun { call: id, over: *over }) } else { Ok(()) }
    }

    /// Instance: answers a call in place of its handler. True if the handler must hear of it.
    fn fail_response(&mut self, id: CallId, error: &ProtocolError) -> bool {
        let Some(call) = self.calls.get_mut(id) else { return false };
        let is_answered = call.send.end.is_some();
        self.queued -= call.abandon();
        let message = error.to_string().into();
        call.send.end = Some(End::Trailers(Trailers { status: INTERNAL, message, ..Trailers::default() }));
        call.send.phase = Phase::Done;
        self.reschedule(id);
        !is_answered
    }

    /// A call dropped what it had queued: it has a turn only if something is left.
    fn reschedule(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else { return };
        if call.is_scheduled && !call.send.is_ready() {
            call.is_scheduled = false;
            self.schedule.remove(id);
        }
        schedule(&mut self.schedule, call);
    }

    /// Gateway: the instance did not start a call. All of it is still here, in unacked batches and in its queue.
    pub(super) fn refused(&mut self, id: CallId) -> Result<(), ProtocolError> {
        let Some(call) = self.calls.get(id) else { return Ok(()) };
        let Some(sent) = self.read_back(call) else {
            let state = "after its start was acked";
            return self.violate(id, ProtocolError::UnexpectedStep { call: id, step: "a refusal", state });
        };
        let Some(call) = self.remove(id) else { return Ok(()) };
        let mut data = Chunks::default();
        if !mutant!(ComesBackInPart) {
            data.push(sent.data);
        }
        data.push(call.send.queue.join());
        // Whether its half-close was sent or queued, the app has said it.
        let half_close = call.send.phase == Phase::Done;
        let request = OpenCall { start: sent.start, deadline: call.deadline, data: data.join(), half_close };
        self.events.push_back(Event::Refused { call: id, request: Box::new(request) });
        Ok(())
    }

    /// What was sent of a call, from the batches that are not yet acked; `None` if its start is not among them.
    fn read_back(&self, call: &Call) -> Option<OpenCall> {
        let mut start = None;
        let mut data = Chunks::default();
        for message in self.outbox.batches_from(call.send.started_in) {
            let batch = Batch::read(message.slice(GRPC_PREFIX..)).ok()?;
            for frame in batch.frames().filter(|frame| codec::call_id(frame) == Some(call.id)) {
                let Ok(Frame::Call(frame)) = codec::read_frame(Side::Gateway, batch.message(), frame) else { continue };
                start = frame.start.map(|frame| frame.start).or(start);
                data.push(frame.data);
            }
            if start.is_some() && data.len() as u64 >= call.send.sent {
                break;
            }
        }
        Some(OpenCall { start: start?, data: data.join(), ..OpenCall::default() })
    }

    /// Gateway: the instance drains, so starts that were not written need not go there to be refused.
    pub(super) fn take_back_unsent(&mut self) {
        let fresh: Vec<CallId> = self.schedule.fresh().collect();
        for id in fresh {
            if self.calls.get(id).is_some_and(Call::is_unsent)
                && let Some(call) = self.remove(id)
            {
                self.events.push_back(Event::Refused { call: id, request: Box::new(unsent(call)) });
            }
        }
    }

    /// The tunnel is over: every call ends, and nothing that waited goes out.
    pub(super) fn end_all(&mut self) {
        let open: Vec<CallId> = self.calls.ids().collect();
        self.schedule.clear();
        self.control.clear();
        self.outbox.clear();
        self.deadlines.clear();
        self.buffer = BytesMut::new();
        for id in open {
            let Some(call) = self.remove(id) else { continue };
            if self.side == Side::Instance && (call.is_abandoned || call.send.end.is_some()) {
                // Its handler has heard of an end, or has given its trailers: it is gone and waits for nothing.
                continue;
            }
            let outcome = if call.is_unsent() && !mutant!(UnsentIsInDoubt) {
                Outcome::NotSent(Box::new(unsent(call)))
            } else {
                Outcome::MaybeExecuted
            };
            self.events.push_back(Event::Ended { call: id, reason: EndReason::Lost(outcome) });
        }
    }
}

/// A call of which nothing was written, as it was given.
fn unsent(call: Call) -> OpenCall {
    let half_close = call.send.end.is_some();
    let start = match call.send.head {
        Some(Head::Start(start)) => start,
        _ => Default::default(),
    };
    OpenCall { start, deadline: call.deadline, data: call.send.queue.join(), half_close }
}

/// gRPC's prefix before each message; the outbox keeps messages as they were sent.
const GRPC_PREFIX: usize = 5;

/// So many calls that broke the protocol end the tunnel: one may be a fault in a handler, three are a broken peer.
const MAX_VIOLATIONS: usize = 3;

/// So far beyond its limit is no miscount.
const MAX_OVERRUN: u64 = 1 << 20;
