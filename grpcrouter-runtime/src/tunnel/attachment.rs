//! One live Register stream under a tunnel: reads batches into the core and writes the core's batches out.

use std::{
    convert::Infallible,
    fmt::Display,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use grpcrouter_protocol::{Close, CloseCode, Side};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};

use super::{Messages, MessagesError, TunnelEvents, TunnelHandle};
use crate::clock;

/// How long a closed tunnel waits for its Close to be written; a peer that does not read gets none.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Why a stream no longer carries the tunnel.
#[derive(Debug)]
pub(crate) enum Detached {
    /// The peer said Close.
    Closed(Close),
    /// We said Close.
    ClosedHere,
    /// The stream ended without Close.
    Ended,
    /// The stream broke.
    Io(String),
    /// The peer no longer answers pings.
    Silent,
    /// The peer broke the protocol; it was told so.
    Protocol(String),
}

impl Display for Detached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(close) if close.reason.is_empty() => write!(f, "closed by the peer ({:?})", close.code),
            Self::Closed(close) => write!(f, "closed by the peer ({:?}: {})", close.code, close.reason),
            Self::ClosedHere => f.write_str("closed"),
            Self::Ended => f.write_str("the stream ended"),
            Self::Io(error) => write!(f, "the connection was lost: {error}"),
            Self::Silent => f.write_str("no answer to pings"),
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
        }
    }
}

/// Carries `tunnel` over one stream until that is over; then every call in the tunnel has ended.
///
/// # Cancel safety
/// Dropping the future ends the tunnel the same way.
pub(crate) async fn attach<B>(tunnel: &TunnelHandle, incoming: &mut Messages<B>, events: &dyn TunnelEvents) -> Detached
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let attached = Attached(tunnel);
    let why = carry(tunnel, incoming, events).await;
    if matches!(why, Detached::Protocol(_) | Detached::ClosedHere) {
        // The Close is still to be written; the body that writes it tells when it has.
        let written = async {
            while !tunnel.is_closed() {
                tunnel.attention().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_GRACE, written).await;
    }
    drop(attached);
    why
}

/// Ends the tunnel with its only stream, also when the future is dropped.
struct Attached<'a>(&'a TunnelHandle);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.lost();
    }
}

async fn carry<B>(tunnel: &TunnelHandle, incoming: &mut Messages<B>, events: &dyn TunnelEvents) -> Detached
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let mut due = Vec::new();
    let sleep = tokio::time::sleep(Duration::ZERO);
    let mut sleep = std::pin::pin!(sleep);
    let mut set = None;
    let mut heard = 0;
    loop {
        if tunnel.is_closing() {
            return Detached::ClosedHere;
        }
        let armed = tunnel.arm();
        if armed != set {
            set = armed;
            if let Some(time) = armed {
                sleep.as_mut().reset(clock::instant(time));
            }
        }
        tokio::select! {
            biased;
            () = sleep.as_mut(), if armed.is_some() => {
                set = None;
                if std::mem::replace(&mut heard, incoming.received()) != heard {
                    tunnel.heard();
                }
                if tunnel.time_passed(&mut due).is_err() {
                    return Detached::Silent;
                }
            }
            () = tunnel.attention() => {}
            message = incoming.next() => match message {
                Ok(Some(message)) => {
                    let taken = tunnel.receive(message, &mut due);
                    if let Some(close) = deliver(tunnel, &mut due, events) {
                        return Detached::Closed(close);
                    }
                    if let Err(error) = taken {
                        return broken(tunnel, error.to_string());
                    }
                }
                Ok(None) => return Detached::Ended,
                Err(MessagesError::Body(error)) => return Detached::Io(error),
                Err(error) => return broken(tunnel, error.to_string()),
            },
        }
        if let Some(close) = deliver(tunnel, &mut due, events) {
            return Detached::Closed(close);
        }
    }
}

fn broken(tunnel: &TunnelHandle, reason: String) -> Detached {
    tunnel.close(Close { code: CloseCode::ProtocolError, reason: reason.clone(), retry_after: Duration::ZERO });
    Detached::Protocol(reason)
}

/// Delivers what a step brought; the peer's Close, if it was among it.
fn deliver(tunnel: &TunnelHandle, due: &mut super::handle::Deliveries, events: &dyn TunnelEvents) -> Option<Close> {
    let mut closed = None;
    for (sink, event) in due.drain(..) {
        if let grpcrouter_protocol::Event::Closed(close) = &event {
            closed = Some(close.clone());
        }
        tunnel.deliver(sink, event, events);
    }
    closed
}

/// The batches that go out, as an HTTP body.
#[derive(Debug)]
pub(crate) struct TunnelBody {
    tunnel: TunnelHandle,
    first: Option<Bytes>,
    side: Side,
    ended: bool,
}

impl TunnelBody {
    /// Sends `first` (Hello or Welcome, a whole gRPC message), then the batches of `tunnel`.
    pub(crate) fn new(tunnel: TunnelHandle, first: Bytes, side: Side) -> Self {
        Self { tunnel, first: Some(first), side, ended: false }
    }
}

impl Body for TunnelBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match self.tunnel.next_batch(cx.waker()) {
            Ok(Some(batch)) => Poll::Ready(Some(Ok(Frame::data(batch)))),
            Ok(None) => Poll::Pending,
            Err(_) => {
                self.ended = true;
                // A gRPC server's stream ends with a status.
                Poll::Ready(match self.side {
                    Side::Gateway => {
                        let mut trailers = HeaderMap::with_capacity(1);
                        trailers.insert("grpc-status", HeaderValue::from_static("0"));
                        Some(Ok(Frame::trailers(trailers)))
                    }
                    Side::Instance => None,
                })
            }
        }
    }
}
