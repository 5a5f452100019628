//! What a batch from the other side does to the calls, frame by frame.
//! A batch is applied whole, its frames before its ack; nothing here waits for a consumer.

use bytes::Bytes;

use super::{
    EndReason, Event, State, Tunnel, headers_fit, headers_size, schedule, start_texts, trailers_fit, trailers_size,
};
use crate::call::{Call, Phase, ReceiveHalf, Step};
use crate::codec::{self, Batch, CallFrame, Frame, ResponseFrame, StartFrame};
use crate::config::Config;
use crate::error::ProtocolError;
use crate::frame::Update;
use crate::id::{CallId, MaxData, Seq, Side};
use crate::time::Time;
use crate::window::charge;

impl Tunnel {
    pub(super) fn receive(&mut self, message: Bytes, now: Time) -> Result<(), ProtocolError> {
        if !matches!(self.state, State::Open) {
            // What comes after the end is not read.
            return Ok(());
        }
        self.pulse.heard(self.calls.len(), now);
        self.attachment.heard();
        let len = message.len();
        within("a batch", len, self.config.max_batch)?;
        let batch = Batch::read(message)?;
        if batch.seq != Seq::STATE {
            self.inbox.expect(batch.seq)?;
        }
        let peer = match self.side {
            Side::Gateway => Side::Instance,
            Side::Instance => Side::Gateway,
        };
        for frame in batch.frames() {
            let frame = codec::read_frame(peer, batch.message(), frame)?;
            self.totals.frames_received += 1;
            self.take_frame(frame, batch.seq, now)?;
            if !matches!(self.state, State::Open) {
                return Ok(());
            }
        }
        if batch.seq != Seq::STATE {
            self.inbox.take(len, now);
        }
        self.take_ack(batch.ack)
    }

    fn take_frame(&mut self, frame: Frame, seq: Seq, now: Time) -> Result<(), ProtocolError> {
        match frame {
            Frame::Call(frame) => {
                numbered(seq, frame.is_numbered())?;
                self.take_call(frame, now)?;
            }
            Frame::Response(frame) => {
                numbered(seq, frame.is_numbered())?;
                self.take_response(frame)?;
            }
            Frame::Ping(opaque) => self.control.pong(opaque),
            Frame::Pong(opaque) => self.take_pong(&opaque, now),
            Frame::MaxCalls(limit) => self.max_calls = self.max_calls.max(limit),
            Frame::Update(update) => self.take_update(update),
            Frame::Drain(gateways) => {
                let is_news = !std::mem::replace(&mut self.is_peer_draining, true);
                match self.side {
                    Side::Instance => self.events.push_back(Event::Draining { gateways }),
                    Side::Gateway if is_news => {
                        self.events.push_back(Event::Draining { gateways });
                        self.take_back_unsent();
                    }
                    // It takes no calls already.
                    Side::Gateway => {}
                }
            }
            Frame::PeersChanged(gateways) => self.events.push_back(Event::PeersChanged { gateways }),
            Frame::Close(close) => {
                self.lost(now);
                self.events.push_back(Event::Closed(close));
            }
        }
        Ok(())
    }

    // ---- the instance hears of calls

    fn take_call(&mut self, frame: CallFrame, now: Time) -> Result<(), ProtocolError> {
        within("a data part", frame.data.len(), self.config.max_part)?;
        let CallFrame { id, start, data, half_close, max_data, timeout, cancel } = frame;
        if let Some(start) = start {
            return match cancel {
                None => self.take_start(id, start, data, half_close, now),
                // Opened and ended in one frame: nothing of it ever runs.
                Some(_) => self.count_start(id).map(|()| self.ended += 1),
            };
        }
        let Some(call) = self.calls.get_mut(id) else { return self.take_late(id, data.len()) };
        if let Some(reason) = cancel {
            // A handler that has given its trailers is gone and waits for nothing.
            let is_told = !call.is_abandoned && call.send.end.is_none();
            self.discard(id);
            if is_told {
                self.events.push_back(Event::Ended { call: id, reason: EndReason::Cancelled(reason) });
            }
            return Ok(());
        }
        if let Some(timeout) = timeout
            && !call.is_abandoned
        {
            // What was said took its time to come, so every deadline that is heard is at most too late.
            let at = call.deadline.map_or(now + timeout, |known| known.min(now + timeout));
            call.deadline = Some(at);
            self.set_deadline(id, at);
        }
        if let Some(limit) = max_data {
            self.take_max_data(id, limit);
        }
        if data.is_empty() && !half_close {
            return Ok(());
        }
        let Some(call) = self.calls.get_mut(id) else { return Ok(()) };
        if call.is_abandoned || call.send.phase == Phase::Done {
            // On its way when the call was answered.
            return self.late(id, data.len());
        }
        if let Err(error) = take_steps(id, &mut call.receive, false, &data, half_close) {
            return self.violate(id, error);
        }
        let data = apart(&call.receive, data, &self.config);
        self.events.push_back(Event::Request { call: id, data, half_close });
        Ok(())
    }

    fn take_start(
        &mut self,
        id: CallId,
        frame: StartFrame,
        data: Bytes,
        half_close: bool,
        now: Time,
    ) -> Result<(), ProtocolError> {
        let StartFrame { start, timeout, max_data } = frame;
        within("metadata", start_texts(&start) + start.metadata.size(), self.config.max_metadata)?;
        within("entries of metadata", start.metadata.len(), self.config.max_metadata_entries)?;
        self.count_start(id)?;
        if self.is_draining {
            self.ended += 1;
            self.control.refuse(id);
            return Ok(());
        }
        let deadline = timeout.map(|timeout| now + timeout);
        let mut call = Call::response(id, deadline, self.growth.first(), max_data, now);
        take_steps(id, &mut call.receive, false, &data, half_close)?;
        self.insert(call, now);
        self.events.push_back(Event::Started { call: id, start, deadline, data, half_close });
        Ok(())
    }

    /// Checks that the gateway may open this call now, and counts it.
    fn count_start(&mut self, id: CallId) -> Result<(), ProtocolError> {
        if id.slot() >= self.config.max_open_calls as usize {
            return Err(ProtocolError::UnknownCall(id));
        }
        if id <= self.highest || self.calls.is_taken(id.slot()) {
            return Err(ProtocolError::IdNotNew(id));
        }
        if self.opened >= self.max_calls {
            return Err(ProtocolError::TooManyCalls(id, self.max_calls));
        }
        self.highest = id;
        self.opened += 1;
        Ok(())
    }

    // ---- the gateway hears of calls

    fn take_response(&mut self, frame: ResponseFrame) -> Result<(), ProtocolError> {
        within("a data part", frame.data.len(), self.config.max_part)?;
        let ResponseFrame { id, headers, data, trailers, refused, max_data } = frame;
        let Some(call) = self.calls.get_mut(id) else { return self.take_late(id, data.len()) };
        if call.is_unsent() {
            return Err(ProtocolError::UnknownCall(id));
        }
        if refused.is_some() && call.receive.phase == Phase::Head {
            return self.refused(id);
        }
        if let Some(limit) = max_data {
            self.take_max_data(id, limit);
        }
        if headers.is_none() && data.is_empty() && trailers.is_none() && refused.is_none() {
            return Ok(());
        }
        let Some(call) = self.calls.get_mut(id) else { return Ok(()) };
        let taken = match (&headers, &trailers) {
            _ if refused.is_some() => {
                Err(ProtocolError::UnexpectedStep { call: id, step: "a refusal", state: call.receive.phase.describe() })
            }
            (Some(headers), _) if !headers_fit(headers, &self.config) => Err(ProtocolError::TooLarge {
                what: "response metadata",
                size: headers_size(headers),
                limit: self.config.max_metadata,
            }),
            (_, Some(trailers)) if !trailers_fit(trailers, &self.config) => Err(ProtocolError::TooLarge {
                what: "trailers",
                size: trailers_size(trailers),
                limit: self.config.max_trailers,
            }),
            _ => take_steps(id, &mut call.receive, headers.is_some(), &data, trailers.is_some()),
        };
        if let Err(error) = taken {
            return self.violate(id, error);
        }
        let data = apart(&call.receive, data, &self.config);
        if trailers.is_some() {
            self.discard(id);
        }
        self.events.push_back(Event::Response { call: id, headers, data, trailers });
        Ok(())
    }

    // ---- both

    /// A frame for a call that is not open here: over, or never opened.
    fn take_late(&mut self, id: CallId, data_len: usize) -> Result<(), ProtocolError> {
        if id > self.highest || id.slot() >= self.config.max_open_calls as usize {
            return Err(ProtocolError::UnknownCall(id));
        }
        self.late(id, data_len)
    }

    fn take_max_data(&mut self, id: CallId, limit: MaxData) {
        let Some(call) = self.calls.get_mut(id) else { return };
        call.send.credit.raise(limit);
        schedule(&mut self.schedule, call);
        self.wake(id);
    }

    fn take_ack(&mut self, acked: Seq) -> Result<(), ProtocolError> {
        let had_room = self.outbox.has_room();
        self.outbox.ack(acked)?;
        if !had_room && self.outbox.has_room() {
            let open: Vec<CallId> = self.calls.ids().collect();
            for id in open {
                self.wake(id);
            }
        }
        Ok(())
    }

    fn take_pong(&mut self, opaque: &Bytes, now: Time) {
        if let Some(pinged) = self.pinged
            && super::ping_of(pinged) == opaque
        {
            self.pinged = None;
            self.growth.measured(now.since(pinged), now);
            self.events.push_back(Event::RoundTrip(now.since(pinged)));
        }
    }

    fn take_update(&mut self, update: Update) {
        if update.version > self.updated {
            self.updated = update.version;
            match self.events.back_mut() {
                // Of many in one batch only the newest is news.
                Some(Event::Updated(older)) => *older = update,
                _ => self.events.push_back(Event::Updated(update)),
            }
        }
    }
}

/// Takes the parts of one frame as steps of its call, and charges its data.
fn take_steps(
    call: CallId,
    receive: &mut ReceiveHalf,
    head: bool,
    data: &Bytes,
    end: bool,
) -> Result<(), ProtocolError> {
    for (is_there, step) in [(head, Step::Head), (!data.is_empty(), Step::Data), (end, Step::End)] {
        if is_there {
            let refused =
                || ProtocolError::UnexpectedStep { call, step: step.describe(), state: receive.phase.describe() };
            receive.phase = receive.phase.after(step).ok_or_else(refused)?;
        }
    }
    match receive.credit.receive(data.len()) {
        0 => Ok(()),
        over => Err(ProtocolError::Overrun { call, over }),
    }
}

/// A part that nobody waits for keeps all of its batch in memory until it is taken, and what a call may hold is counted
/// in its own bytes: so a small part behind others of its call gets memory of its own.
fn apart(receive: &ReceiveHalf, data: Bytes, config: &Config) -> Bytes {
    let is_behind = receive.credit.unconsumed() > charge(data.len());
    if is_behind && data.len() < config.max_batch / 4 { Bytes::copy_from_slice(&data) } else { data }
}

fn numbered(seq: Seq, is_numbered: bool) -> Result<(), ProtocolError> {
    if is_numbered && seq == Seq::STATE {
        return Err(ProtocolError::Misplaced("a part of a call in a batch without a number"));
    }
    Ok(())
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), ProtocolError> {
    if size > limit {
        return Err(ProtocolError::TooLarge { what, size, limit });
    }
    Ok(())
}
