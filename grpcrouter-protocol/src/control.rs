//! What goes out before all data: pongs, pings, drain, updates, refusals, cancels and new limits.
//! Each queue is bounded: by the calls that were open, or by keeping only the newest value.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::calls::Calls;
use crate::codec::{BatchWriter, CallParts, ResponseParts};
use crate::frame::{CancelReason, Update};
use crate::id::{CallId, Side};
use crate::time::Time;

/// The control frames that wait to go.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pongs: VecDeque<Bytes>,
    ping: Option<Bytes>,
    drain: Option<Vec<String>>,
    update: Option<Update>,
    peers: Option<Vec<String>>,
    refusals: VecDeque<CallId>,
    cancels: VecDeque<(CallId, CancelReason)>,
    grants: VecDeque<CallId>,
    /// Calls whose remaining time is said again.
    timeouts: VecDeque<CallId>,
    /// The newest update that was given, said or not.
    newest: Option<Update>,
}

impl Control {
    pub(crate) fn is_empty(&self) -> bool {
        self.grants.is_empty()
            && self.timeouts.is_empty()
            && self.cancels.is_empty()
            && self.refusals.is_empty()
            && self.pongs.is_empty()
            && self.ping.is_none()
            && self.drain.is_none()
            && self.update.is_none()
            && self.peers.is_none()
    }

    /// True while a refusal waits: what it refuses must stay unacked, for the gateway reads it back.
    pub(crate) fn has_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    pub(crate) fn ping(&mut self, opaque: Bytes) {
        self.ping = Some(opaque);
    }

    /// A peer that pings faster than this side can write hears back the newest of its pings.
    pub(crate) fn pong(&mut self, opaque: Bytes) {
        if self.pongs.len() >= MAX_PONGS {
            self.pongs.pop_front();
        }
        self.pongs.push_back(opaque);
    }

    pub(crate) fn drain(&mut self, gateways: Vec<String>) {
        self.drain = Some(gateways);
    }

    pub(crate) fn update(&mut self, update: Update) {
        self.newest = Some(update.clone());
        self.update = Some(update);
    }

    pub(crate) fn peers_changed(&mut self, gateways: Vec<String>) {
        self.peers = Some(gateways);
    }

    pub(crate) fn refuse(&mut self, call: CallId) {
        self.refusals.push_back(call);
    }

    pub(crate) fn cancel(&mut self, call: CallId, reason: CancelReason) {
        self.cancels.push_back((call, reason));
    }

    /// The call's newest receive limit is to be said; the call remembers that it stands here.
    pub(crate) fn grant(&mut self, call: CallId) {
        self.grants.push_back(call);
    }

    /// A call ended whose limit waited to be said.
    pub(crate) fn forget_grant(&mut self, call: CallId) {
        self.grants.retain(|&waiting| waiting != call);
    }

    /// A call's remaining time is to be said again.
    pub(crate) fn remind(&mut self, call: CallId) {
        self.timeouts.push_back(call);
    }

    /// The stream is gone, and with it whom a ping or its echo would tell something.
    pub(crate) fn detached(&mut self) {
        self.pongs.clear();
        self.ping = None;
        self.timeouts.clear();
        if mutant!(DetachDropsCancels) {
            self.cancels.clear();
        }
        if mutant!(DetachDropsRefusals) {
            self.refusals.clear();
        }
    }

    /// A new stream carries the tunnel: an update that was said may not have arrived.
    pub(crate) fn attached(&mut self) {
        if !mutant!(UpdateNotSaidAgain) {
            self.update.clone_from(&self.newest);
        }
    }

    /// Writes what fits, in order; what is left goes first into the next batch.
    pub(crate) fn write(&mut self, batch: &mut BatchWriter<'_>, side: Side, calls: &mut Calls, now: Time) {
        while let Some(opaque) = self.pongs.front()
            && batch.pong(opaque)
        {
            self.pongs.pop_front();
        }
        take_if(&mut self.ping, |opaque| batch.ping(opaque));
        take_if(&mut self.drain, |gateways| batch.drain(side, gateways));
        take_if(&mut self.update, |update| batch.update(update));
        take_if(&mut self.peers, |gateways| batch.peers_changed(gateways));
        while batch.room() >= SMALL_FRAME
            && let Some(call) = self.refusals.pop_front()
        {
            let refused = Some(Duration::ZERO);
            batch.response(&ResponseParts { refused, ..ResponseParts::new(call) }, |_| {});
        }
        while batch.room() >= SMALL_FRAME
            && let Some((call, reason)) = self.cancels.pop_front()
        {
            let cancel = Some(reason);
            batch.call(&CallParts { cancel, ..CallParts::new(call) }, |_| {});
        }
        while batch.room() >= SMALL_FRAME
            && let Some(id) = self.grants.pop_front()
        {
            let Some(call) = calls.get_mut(id) else { continue };
            call.is_granting = false;
            let max_data = Some(call.receive.credit.limit());
            match side {
                Side::Gateway => batch.call(&CallParts { max_data, ..CallParts::new(id) }, |_| {}),
                Side::Instance => batch.response(&ResponseParts { max_data, ..ResponseParts::new(id) }, |_| {}),
            }
        }
        while batch.room() >= SMALL_FRAME
            && let Some(id) = self.timeouts.pop_front()
        {
            // Of a call that has no deadline, or has ended meanwhile, there is nothing to say.
            let timeout = calls.get(id).and_then(|call| call.deadline).map(|deadline| deadline.since(now));
            if timeout.is_some() {
                batch.call(&CallParts { timeout, ..CallParts::new(id) }, |_| {});
            }
        }
    }

    /// Forgets all: the tunnel is over.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Empties a place once what was in it is written.
fn take_if<T>(place: &mut Option<T>, mut write: impl FnMut(&T) -> bool) {
    place.take_if(|waiting| write(waiting));
}

/// Pings of one peer that are answered at once; a peer that waits for its answers has one at a time.
const MAX_PONGS: usize = 4;

/// No refusal, cancel or limit is larger: two tags and lengths, a call id and a number.
const SMALL_FRAME: usize = 32;
