//! What a tunnel tells of itself to whoever asks: counts, states, nothing that changes it.

use super::{State, Totals, Tunnel};
use crate::frame::Start;

impl Tunnel {
    /// True if [`poll_event`](Self::poll_event) would give an event.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Calls that are open here.
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// Data bytes that wait in calls for credit or for their turn.
    pub fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Bytes sent and not yet acked, 64 more a batch.
    pub fn unacked_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// What the windows of calls may hold here beyond their first size, in charged bytes; with the leases of calls that
    /// are over.
    pub fn grown_bytes(&self) -> u64 {
        self.growth.used()
    }

    /// True if either side drains.
    pub fn is_draining(&self) -> bool {
        self.is_draining || self.is_peer_draining
    }

    /// True if nothing more goes out or comes in.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// True if a Close waits to go out, and nothing else.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_))
    }

    /// Gateway: true if a call could be opened now.
    pub fn can_open(&self) -> bool {
        self.may_open(&Start::default()).is_ok()
    }

    /// Frames that came for calls which were over here: normal in small numbers, since ends cross on the way.
    pub fn late_frames(&self) -> u64 {
        self.late_frames
    }

    /// True if no ping waits for its answer: the peer was heard within its heartbeat.
    pub fn is_answering(&self) -> bool {
        self.is_attached() && self.pulse.is_answered()
    }

    /// What has passed so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}
