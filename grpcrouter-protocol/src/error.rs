//! What can go wrong, sorted by who must act: the peer, the owner of the call, or whoever set the limits.
//! Nothing here knows gRPC status codes; the shell has the one table for that.

use std::time::Duration;

use crate::id::{CallId, Epoch, Seq};

/// What the peer did wrong. The tunnel, or only the call that it names, is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The bytes are not the protobuf message that they should be.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A frame of no kind that the agreed version knows.
    #[error("a frame of no known kind")]
    UnknownFrame,
    /// A frame that is only allowed elsewhere, such as a Hello inside a tunnel.
    #[error("{0} is not allowed here")]
    Misplaced(&'static str),
    /// Something is larger than the agreed limits.
    #[error("{what} is {size}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// What was agreed.
        limit: usize,
    },
    /// A batch is not the next one.
    #[error("batch {received} came where {expected} was due")]
    UnexpectedSeq {
        /// The number that was due.
        expected: Seq,
        /// The number that came.
        received: Seq,
    },
    /// An ack names a batch that was never sent.
    #[error("batch {acked} was acked but only {sent} were sent")]
    AckOfUnsent {
        /// What the peer acked.
        acked: Seq,
        /// The last batch sent.
        sent: Seq,
    },
    /// A resume that fits nothing that was sent or taken here.
    #[error("{what} is {named}, from {first} to {last} is possible")]
    ImpossibleResume {
        /// Which counter.
        what: &'static str,
        /// What the peer named.
        named: Seq,
        /// The least possible.
        first: Seq,
        /// The most possible.
        last: Seq,
    },
    /// A frame names a call that was never opened, or a slot beyond the agreed limit.
    #[error("call {0} was never opened")]
    UnknownCall(CallId),
    /// A start takes a slot or an id that is in use, or an id that does not rise.
    #[error("call {0} cannot be opened: its id is not new")]
    IdNotNew(CallId),
    /// A start beyond the limit of calls.
    #[error("call {0} was opened beyond the limit of {1} calls in all")]
    TooManyCalls(CallId, u64),
    /// A frame that is not allowed in the state of its call.
    #[error("call {call}: {step} is not allowed {state}")]
    UnexpectedStep {
        /// The call.
        call: CallId,
        /// What the peer sent.
        step: &'static str,
        /// The state that the call was in.
        state: &'static str,
    },
    /// More data than the call's limit.
    #[error("call {call}: {over} bytes beyond its limit")]
    Overrun {
        /// The call.
        call: CallId,
        /// How far beyond.
        over: u64,
    },
    /// Too many calls broke the protocol.
    #[error("{0} calls broke the protocol; the last: {1}")]
    TooManyViolations(u32, String),
    /// What a side says of itself is wrong: its Hello, Welcome or Update.
    #[error("{0}")]
    Handshake(String),
}

/// Why a tunnel takes no call now. Pick another instance, or fail the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenCallError {
    /// The tunnel drains.
    #[error("the instance takes no new calls: it drains")]
    Draining,
    /// As many calls are open as the instance takes.
    #[error("the instance has as many calls open as it takes")]
    NoMoreCalls,
    /// Too much is sent and not yet acked.
    #[error("the tunnel has too much that is not yet acknowledged")]
    ReplayFull,
    /// The request headers are larger than the agreed limit; no instance of this kind takes them.
    #[error("the request headers are larger than the tunnel carries")]
    TooLarge,
    /// No stream carries the tunnel now.
    #[error("the instance has lost its connection and may be back soon")]
    Detached,
    /// The tunnel is over.
    #[error("the tunnel is closed")]
    Closed,
}

/// Why a tunnel is not attached to another stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The token is not this tunnel's. The tunnel is as it was.
    #[error("the resume token is not the one of this tunnel")]
    WrongToken,
    /// A later attempt was there before. The tunnel is as it was.
    #[error("stream {asked} comes after stream {current}, which has the tunnel")]
    OldEpoch {
        /// The stream that asks.
        asked: Epoch,
        /// The stream that has the tunnel.
        current: Epoch,
    },
    /// Its counters cannot be: one side has lost what the other relies on. The tunnel is over; say Close on the stream
    /// that asked, too.
    #[error("{0}")]
    Impossible(ProtocolError),
    /// The tunnel is over.
    #[error("the tunnel is over")]
    Closed,
}

/// The peer answered no ping: the stream is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing was heard for {} ms", .silent_for.as_millis())]
pub struct PeerSilent {
    /// How long nothing was heard.
    pub silent_for: Duration,
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// Too many bytes.
    #[error("it has {len} bytes, at most {longest} are allowed")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// The most allowed.
        longest: usize,
    },
    /// A line break or the like.
    #[error("it has a control character")]
    ControlCharacter,
}

/// A limit that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConfigError {
    /// The field of [`Config`](crate::Config).
    pub field: &'static str,
    /// What is wrong, with the bound.
    pub problem: String,
}
