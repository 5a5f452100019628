//! What the two ends say to each other, as checked values: whoever holds one need not check it again.
//! Text and metadata are slices of the message that brought them, so that forwarding copies nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::metadata::METADATA_FIELD;
pub use self::metadata::{Metadata, MetadataBuilder};
pub use self::text::Text;
use crate::id::{Epoch, Incarnation, InstanceId, Seq, TunnelId};

mod metadata;
mod text;

/// The request headers of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// `/package.Service/Method`, without any path prefix.
    pub path: Text,
    /// The authority that the client named.
    pub authority: Text,
    /// What follows `application/grpc+`; empty for plain `application/grpc`.
    pub content_subtype: Text,
    /// `grpc-encoding`.
    pub encoding: Text,
    /// `grpc-accept-encoding`.
    pub accept_encoding: Text,
    /// All other metadata, in the client's order.
    pub metadata: Metadata,
}

/// The response headers of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// What follows `application/grpc+`; empty for plain `application/grpc`.
    pub content_subtype: Text,
    /// `grpc-encoding`.
    pub encoding: Text,
    /// `grpc-accept-encoding`.
    pub accept_encoding: Text,
    /// All other metadata, in the service's order.
    pub metadata: Metadata,
}

/// The end of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trailers {
    /// A gRPC code.
    pub status: u32,
    /// Plain text, not percent-encoded.
    pub message: Text,
    /// The raw bytes of `grpc-status-details-bin`.
    pub details: Bytes,
    /// All other metadata, in the service's order.
    pub metadata: Metadata,
}

/// Why the gateway ends a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// The client reset its stream or its connection died.
    ClientGone,
    /// The call's deadline passed.
    Deadline,
    /// The instance broke the protocol in this call.
    Violation,
    /// The gateway stops.
    Shutdown,
}

/// The first message of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The versions of this protocol that the instance speaks.
    pub versions: RangeInclusive<u32>,
    /// The features that it knows.
    pub features: Vec<String>,
    /// Who it is, for routing.
    pub instance_id: InstanceId,
    /// The life of its process.
    pub incarnation: Incarnation,
    /// What it serves.
    pub services: Vec<ServiceOffer>,
    /// The version of its software, for people.
    pub software_version: String,
    /// Its share of calls under weighted balancing, 1 or more.
    pub weight: u32,
    /// Free labels, for people and policies.
    pub labels: BTreeMap<String, String>,
    /// Routing keys that it answers beside its instance id.
    pub routing_keys: Vec<String>,
    /// Calls that may be open at once.
    pub max_calls: u64,
    /// Whether it can serve.
    pub health: Health,
    /// True if it takes no new call.
    pub draining: bool,
    /// The tunnel that it wants back, if it has one.
    pub resume: Option<Resume>,
}

/// One service of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOffer {
    /// `package.Service`.
    pub name: String,
    /// Its methods; empty if they are not told.
    pub methods: Vec<String>,
    /// SHA-256 of the descriptors; empty if there are none to offer.
    pub descriptor_hash: Bytes,
    /// It takes no calls now, whatever the health of the whole.
    pub not_serving: bool,
}

/// Whether an instance can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// It did not say.
    #[default]
    Unknown,
    /// It can.
    Serving,
    /// It cannot now.
    NotServing,
}

/// The tunnel that an instance wants to attach to its new stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Resume {
    /// Which tunnel.
    pub tunnel_id: TunnelId,
    /// The proof that it is this instance's.
    pub token: Bytes,
    /// Higher with each attempt.
    pub epoch: Epoch,
    /// The batch that the instance expects next.
    pub rx_next: Seq,
    /// The first batch that it can send again.
    pub tx_first: Seq,
    /// The next batch that it will number.
    pub tx_next: Seq,
}

/// The gateway's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq)]
pub enum Welcome {
    /// A new tunnel.
    Accepted(Accepted),
    /// The old tunnel goes on.
    Resumed(Resumed),
    /// No tunnel.
    Rejected(Rejected),
}

/// A new tunnel and its terms.
#[derive(Clone, PartialEq)]
pub struct Accepted {
    /// The agreed version.
    pub version: u32,
    /// The features that both named.
    pub features: Vec<String>,
    /// The tunnel's name.
    pub tunnel_id: TunnelId,
    /// What a later resume must show.
    pub resume_token: Bytes,
    /// When to ping.
    pub heartbeat: Heartbeat,
    /// How long the gateway keeps the tunnel without a stream.
    pub resume_window: Duration,
    /// What the frames of this tunnel may hold.
    pub limits: Limits,
    /// Other gateways.
    pub gateways: Vec<String>,
}

/// The old tunnel goes on.
#[derive(Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The stream that carries the tunnel from here on.
    pub epoch: Epoch,
    /// The batch that the gateway expects next.
    pub rx_next: Seq,
    /// What the next resume must show.
    pub new_token: Bytes,
}

/// No tunnel, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// Why, for programs.
    pub reason: RejectReason,
    /// Why, for people.
    pub message: String,
    /// How long to wait before the next try.
    pub retry_after: Duration,
    /// Other gateways.
    pub gateways: Vec<String>,
    /// What the gateway speaks, where the version is the reason.
    pub versions: Option<RangeInclusive<u32>>,
}

/// Why a gateway refuses a [`Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Not said, or one that this version does not know.
    Unspecified,
    /// No common version.
    Version,
    /// The tunnel to resume is not known: say a plain Hello.
    Unknown,
    /// The gateway drains.
    Draining,
    /// Who are you?
    Unauthenticated,
    /// You may not.
    PermissionDenied,
    /// Two processes take the same instance id from each other.
    Flapping,
    /// The Hello itself is wrong; the message says how.
    Invalid,
    /// The gateway is full.
    ResourceExhausted,
}

impl RejectReason {
    /// As the wire names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "UNSPECIFIED",
            Self::Version => "VERSION",
            Self::Unknown => "UNKNOWN",
            Self::Draining => "DRAINING",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::Flapping => "FLAPPING",
            Self::Invalid => "INVALID",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
        }
    }
}

/// When to ping, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// A ping goes out after so long without anything received while calls are open.
    pub busy: Duration,
    /// The same while no call is open.
    pub idle: Duration,
    /// So many unanswered pings and the stream is dead.
    pub unanswered: u32,
}

/// What the frames of a tunnel may hold, as the gateway says in [`Accepted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The first limit of every call for what the gateway sends, in charged bytes.
    pub initial_window: u64,
    /// Bytes of a batch.
    pub max_batch: u64,
    /// Bytes of a data part.
    pub max_part: u64,
    /// Bytes of keys and values in headers.
    pub max_metadata: u64,
    /// Entries in headers or trailers.
    pub max_metadata_entries: u32,
    /// Bytes of trailers with message and details.
    pub max_trailers: u64,
    /// Calls that may be open at once: no slot is this or higher.
    pub max_open_calls: u64,
}

/// The tunnel is over, with every call in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Why, for programs.
    pub code: CloseCode,
    /// Why, for people.
    pub reason: String,
    /// How long to wait before the next try.
    pub retry_after: Duration,
}

/// Why a tunnel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// Not said, or one that this version does not know.
    Unspecified,
    /// All is done: a drained end.
    NoError,
    /// The other side broke the protocol; the reason says how.
    ProtocolError,
    /// The other side sent more than it was allowed.
    FlowControlError,
    /// Another tunnel of the same instance took over.
    Replaced,
    /// The process stops.
    Shutdown,
    /// A fault of the side that says it.
    Internal,
    /// The instance may not be registered any more; the reason says why.
    PermissionDenied,
}

/// What changed in an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The newest wins.
    pub version: u64,
    /// Whether it can serve.
    pub health: Health,
    /// Its share of calls under weighted balancing, 1 or more.
    pub weight: u32,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// How busy it is, in thousandths.
    pub load_permille: u32,
    /// The services that take no calls now, whatever the health of the whole.
    pub not_serving: Vec<String>,
}

// The tokens are keys to a tunnel, so no log line may show one.

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tunnel_id, token: _, epoch, rx_next, tx_first, tx_next } = self;
        f.debug_struct("Resume")
            .field("tunnel_id", tunnel_id)
            .field("epoch", epoch)
            .field("rx_next", rx_next)
            .field("tx_first", tx_first)
            .field("tx_next", tx_next)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, features, tunnel_id, resume_token: _, heartbeat, resume_window, limits, gateways } = self;
        f.debug_struct("Accepted")
            .field("version", version)
            .field("features", features)
            .field("tunnel_id", tunnel_id)
            .field("heartbeat", heartbeat)
            .field("resume_window", resume_window)
            .field("limits", limits)
            .field("gateways", gateways)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, rx_next, new_token: _ } = self;
        f.debug_struct("Resumed").field("epoch", epoch).field("rx_next", rx_next).finish_non_exhaustive()
    }
}
