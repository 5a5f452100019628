//! The shell around one tunnel, the same on both ends: the core behind a lock, the stream that carries it, and the
//! places where its calls' frames are delivered.

mod attachment;
mod handle;
mod messages;
mod sink;

pub(crate) use attachment::{Detached, TunnelBody, attach, keep, why};
pub(crate) use handle::TunnelHandle;
pub(crate) use messages::{Messages, MessagesError};
pub(crate) use sink::{CallEvent, CallSink, Started, TunnelEvents, kept};
