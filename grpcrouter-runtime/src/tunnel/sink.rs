//! Where a call's frames are delivered: without a task or a channel for each call, and without waiting.

use std::fmt::Debug;

use bytes::Bytes;
use grpcrouter_protocol::{CallId, Close, EndReason, Headers, OpenCall, Start, Time, Trailers, Update};

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
}

impl CallEvent {
    /// Nothing comes for the call after this.
    pub(super) fn is_last(&self) -> bool {
        match self {
            Self::Response { trailers, .. } => trailers.is_some(),
            Self::Refused(_) | Self::Ended(_) => true,
            Self::Request { .. } | Self::Writable { .. } => false,
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
    /// Gateway: what the instance says of itself has changed.
    fn updated(&self, update: Update);
    /// The peer has closed the tunnel.
    fn closed(&self, close: &Close);
}
