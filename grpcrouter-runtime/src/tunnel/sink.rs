//! Where a call's frames are delivered: without a task or a channel for each call, and without waiting.

use std::fmt::Debug;

use bytes::Bytes;
use grpcrouter_protocol::{CallId, Close, EndReason, Headers, OpenCall, Start, Time, Trailers, Update, WindowLease};

use super::TunnelHandle;

/// The consumer of one call.
pub(crate) trait CallSink: Send + Sync + Debug {
    /// Tells the id under which the tunnel knows this call, before anything is delivered. Called with the tunnel's
    /// lock held: it stores the id and does no more.
    fn bind(&self, call: CallId);

    /// Takes what came. Never waits; called without any lock held, and in order for each call.
    fn deliver(&self, call: CallId, event: CallEvent);
}

/// What can come for one call.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every event is the large one; a box would cost every call")]
pub(crate) enum CallEvent {
    /// Gateway: parts of the response. With trailers the call is over.
    Response { headers: Option<Headers>, data: Bytes, trailers: Option<Trailers> },
    /// Instance: more of the request.
    Request { data: Bytes, half_close: bool },
    /// So many more bytes may be polled from the source.
    Writable { capacity: usize },
    /// Gateway: the instance did not start the call; another may.
    Refused(Box<OpenCall>),
    /// Over, without trailers.
    Ended(EndReason),
    /// It is about to be over: what came before holds this until it is taken or dropped.
    Leased(WindowLease),
}

impl CallEvent {
    /// For the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Response { .. } => "response",
            Self::Request { .. } => "request",
            Self::Writable { .. } => "writable",
            Self::Refused(_) => "refused",
            Self::Ended(_) => "ended",
            Self::Leased(_) => "leased",
        }
    }

    /// Bytes of the message stream in it.
    pub(super) fn data_len(&self) -> usize {
        match self {
            Self::Response { data, .. } | Self::Request { data, .. } => data.len(),
            _ => 0,
        }
    }

    /// Nothing comes for the call after this.
    pub(super) fn is_last(&self) -> bool {
        match self {
            Self::Response { trailers, .. } => trailers.is_some(),
            Self::Refused(_) | Self::Ended(_) => true,
            Self::Request { .. } | Self::Writable { .. } | Self::Leased(_) => false,
        }
    }
}

/// Instance: a call that has just come.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) call: CallId,
    pub(crate) start: Start,
    pub(crate) deadline: Option<Time>,
    pub(crate) data: Bytes,
    pub(crate) half_close: bool,
}

/// What comes through a tunnel that is not of one live call.
pub(crate) trait TunnelEvents: Send + Sync {
    /// Instance: a call came; [`TunnelHandle::adopt`] names its sink.
    fn started(&self, tunnel: &TunnelHandle, started: Started);
    /// The peer takes no new call.
    fn draining(&self, gateways: Vec<String>);
    /// Instance: there are these gateways now.
    fn peers_changed(&self, gateways: Vec<String>);
    /// Gateway: what the instance says of itself has changed.
    fn updated(&self, update: Update);
    /// The peer has closed the tunnel.
    fn closed(&self, close: &Close);
}

/// A part that stays for nobody knows how long. A small one is copied: it is a slice of the batch that it came in, and
/// would keep all of that in memory.
pub(crate) fn kept(data: Bytes) -> Bytes {
    if data.len() < SMALL && !data.is_unique() { Bytes::copy_from_slice(&data) } else { data }
}

/// A batch is at most 32 times larger; from here on a copy costs more than what it frees is worth.
const SMALL: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_does_not_keep_its_batch_and_is_copied_once() {
        let batch = Bytes::from(vec![7; 64 * 1024]);

        let [small, large] = [batch.slice(..2047), batch.slice(..2048)].map(kept);

        assert!((small.len(), small.as_ptr() == batch.as_ptr()) == (2047, false));
        assert_eq!((large.len(), large.as_ptr()), (2048, batch.as_ptr()));
        let again = (small.as_ptr(), kept(small).as_ptr());
        assert_eq!(again.0, again.1);
    }
}
