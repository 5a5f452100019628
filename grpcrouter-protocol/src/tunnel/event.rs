//! What an app gives a tunnel and what a tunnel tells its app.
//! Events of one call come out in order, and nothing of a call follows its last event.

use std::time::Duration;

use bytes::Bytes;

use crate::error::ProtocolError;
use crate::frame::{CancelReason, Close, Headers, Start, Trailers, Update};
use crate::id::CallId;
use crate::pool::WindowLease;
use crate::time::Time;

/// A call that the gateway wants to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenCall {
    /// The request headers.
    pub start: Start,
    /// When the client gives up.
    pub deadline: Option<Time>,
    /// What of the request body is there already.
    pub data: Bytes,
    /// True if that is all of it.
    pub half_close: bool,
}

/// A call that is open now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its name in this tunnel.
    pub id: CallId,
    /// How many more bytes to poll from the client now; 0: wait for [`Event::Writable`].
    pub capacity: usize,
}

/// Any of the parts of a response, in the order of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponsePart {
    /// The response headers, at most once and before any data.
    pub headers: Option<Headers>,
    /// Bytes of the response body.
    pub data: Bytes,
    /// The status; the call is over when what is queued is out.
    pub trailers: Option<Trailers>,
}

/// What a tunnel tells its app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Instance: the gateway opened a call.
    Started {
        /// The call.
        call: CallId,
        /// Its request headers.
        start: Start,
        /// When the client gives up.
        deadline: Option<Time>,
        /// The first bytes of the request body.
        data: Bytes,
        /// True if that is all of it.
        half_close: bool,
    },
    /// Instance: more of a request. Never both without data and without half-close.
    Request {
        /// The call.
        call: CallId,
        /// Bytes of the request body.
        data: Bytes,
        /// True if there is no more.
        half_close: bool,
    },
    /// Gateway: more of a response. With trailers the call is over.
    Response {
        /// The call.
        call: CallId,
        /// The response headers.
        headers: Option<Headers>,
        /// Bytes of the response body.
        data: Bytes,
        /// The status.
        trailers: Option<Trailers>,
    },
    /// A call whose last capacity was 0 may send again.
    Writable {
        /// The call.
        call: CallId,
        /// How many bytes to poll from its source now.
        capacity: usize,
    },
    /// Gateway: the instance did not start this call and never will. The call is over in this tunnel.
    Refused {
        /// The call.
        call: CallId,
        /// All of it that this tunnel was given, to open it elsewhere.
        request: Box<OpenCall>,
    },
    /// A call is over without trailers.
    Ended {
        /// The call.
        call: CallId,
        /// Why.
        reason: EndReason,
    },
    /// A call is about to be over whose window has grown: hold this as long as parts that came before wait to be consumed.
    Leased {
        /// The call.
        call: CallId,
        /// What they have of the pool of windows.
        lease: WindowLease,
    },
    /// The other end drains. At the gateway: it takes no new call. At the instance: open your next tunnel at one of
    /// these gateways, then finish here.
    Draining {
        /// Where to go; empty from an instance.
        gateways: Vec<String>,
    },
    /// Gateway: something changed in the instance.
    Updated(Update),
    /// Instance: the list of gateways changed.
    PeersChanged {
        /// All of them.
        gateways: Vec<String>,
    },
    /// The other end said that the tunnel is over. Every open call has ended with [`EndReason::Lost`] before this.
    Closed(Close),
    /// A ping came back after so long.
    RoundTrip(Duration),
}

/// Why a call is over without trailers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// Instance: the gateway ended it. Drop the handler.
    Cancelled(CancelReason),
    /// Its deadline passed here. At the gateway the call is over and a cancel is queued. At the instance, drop the
    /// handler and answer with trailers: the call stays open for them.
    Deadline,
    /// The other end broke the protocol in this call. It is over; what the other end must hear of it is queued.
    Violation(ProtocolError),
    /// The tunnel is over.
    Lost(Outcome),
}

/// How far a lost call may have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its start was never written: open it elsewhere.
    NotSent(Box<OpenCall>),
    /// It may have been executed.
    MaybeExecuted,
}
