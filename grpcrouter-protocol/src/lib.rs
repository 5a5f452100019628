//! The tunnel between a grpcrouter gateway and an instance, as a pure state machine: it is fed and drained.
//!
//! Time, bytes and commands come in as arguments; batches and events are polled out. There is no clock, no socket,
//! no task and no chance in here, so the same inputs always give the same outputs. [`Tunnel`] is the whole of it;
//! everything else is what goes in and comes out.
//!
//! After any input, poll until empty: [`Tunnel::poll_transmit`], then [`Tunnel::poll_event`], then set a timer for
//! [`Tunnel::poll_timeout`].
//!
//! ```
//! use grpcrouter_protocol::{Config, Epoch, Event, Headers, OpenCall, ResponsePart, Start, Time, Trailers, Tunnel};
//!
//! let now = Time::from_nanos(0);
//! let mut gateway = Tunnel::gateway(Config::default(), now);
//! let mut instance = Tunnel::instance(Config::default(), now);
//!
//! let start = Start { path: "/package.Service/Method".into(), ..Start::default() };
//! let call = OpenCall { start, data: "the request".into(), half_close: true, ..OpenCall::default() };
//! let id = gateway.open(call, now).expect("a new tunnel takes calls").id;
//!
//! // A message goes out with gRPC's five-byte prefix and comes in without it.
//! let message = gateway.poll_transmit(Epoch::FIRST, now).expect("a call to carry");
//! instance.handle_batch(Epoch::FIRST, message.slice(5..), now)?;
//! assert!(matches!(instance.poll_event(), Some(Event::Started { call, .. }) if call == id));
//!
//! let (headers, trailers) = (Some(Headers::default()), Some(Trailers::default()));
//! instance.respond(id, ResponsePart { headers, data: "the answer".into(), trailers }, now);
//! let message = instance.poll_transmit(Epoch::FIRST, now).expect("an answer to carry");
//! gateway.handle_batch(Epoch::FIRST, message.slice(5..), now)?;
//! assert!(matches!(gateway.poll_event(), Some(Event::Response { data, .. }) if data == "the answer"));
//! # Ok::<(), grpcrouter_protocol::ProtocolError>(())
//! ```
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub use bytes::Bytes;

pub use self::config::Config;
pub use self::error::{ConfigError, NameError, OpenCallError, PeerSilent, ProtocolError, ResumeError};
pub use self::frame::{
    Accepted, CancelReason, Close, CloseCode, Headers, Health, Heartbeat, Hello, Limits, Metadata, MetadataBuilder,
    RejectReason, Rejected, Resume, Resumed, ServiceOffer, Start, Text, Trailers, Update, Welcome,
};
pub use self::handshake::{Agreement, agree, decode_hello, decode_welcome, encode_close, encode_hello, encode_welcome};
pub use self::id::{CallId, Epoch, Incarnation, InstanceId, MaxData, Seq, Side, TunnelId};
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub use self::mutants::{Mutant, choose};
pub use self::pool::{WindowLease, WindowPool};
pub use self::resume::{FreshToken, ResumePoint, TokenHash};
pub use self::time::Time;
pub use self::tunnel::{EndReason, Event, OpenCall, Opened, Outcome, ResponsePart, Totals, Tunnel};
pub use self::window::{PART_OVERHEAD, charge};

// First, for its macro.
#[macro_use]
mod mutants;

mod call;
mod calls;
mod codec;
mod config;
mod control;
mod error;
mod frame;
mod growth;
mod handshake;
mod id;
mod inbox;
mod outbox;
mod pool;
mod resume;
mod schedule;
mod time;
mod timer;
mod tunnel;
mod varint;
mod window;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, reason = "generated from proto/router.proto")]
mod wire;
