//! One live Register stream under a tunnel: reads batches into the core and writes the core's batches out.

use std::{
    convert::Infallible,
    fmt::Display,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use grpcrouter_protocol::{Close, CloseCode, Epoch, Side, Time};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use tokio::sync::Notify;

use super::{Messages, MessagesError, TunnelEvents, TunnelHandle, handle::Stands};
use crate::{clock, status::shown};

/// How long a closed tunnel waits for its Close to be written; a peer that does not read gets none.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What is beside the reader in its task, such as who may not be here any more, has its turn however fast messages come.
const MESSAGES_IN_A_ROW: u32 = 64;

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
    /// A later stream carries it.
    Fenced,
}

impl Display for Detached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(close) if close.reason.is_empty() => write!(f, "closed by the peer, {}", why(close.code)),
            Self::Closed(close) => write!(f, "closed by the peer, {}: {}", why(close.code), shown(&close.reason)),
            Self::ClosedHere => f.write_str("closed"),
            Self::Ended => f.write_str("the stream ended"),
            Self::Io(error) => write!(f, "the connection was lost: {error}"),
            Self::Silent => f.write_str("no answer to pings"),
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::Fenced => f.write_str("a later stream carries the tunnel"),
        }
    }
}

/// For messages to people.
pub(crate) fn why(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Unspecified => "for no stated reason",
        CloseCode::NoError => "which is done",
        CloseCode::ProtocolError => "which found this side to break the protocol",
        CloseCode::FlowControlError => "which was sent more than it had allowed",
        CloseCode::Replaced => "which has a later tunnel of the same instance",
        CloseCode::Shutdown => "which stops",
        CloseCode::Internal => "which has a fault",
        CloseCode::PermissionDenied => "which does not let this instance be registered any more",
    }
}

/// Carries `tunnel` over the stream `at` until that is over or another one has the tunnel. If it can be resumed, the calls
/// in it go on without a stream: [`keep`] it. If not, every call in it has ended.
///
/// # Cancel safety
/// Dropping the future detaches the stream the same way.
pub(crate) async fn attach<B>(
    tunnel: &TunnelHandle,
    at: Epoch,
    incoming: &mut Messages<B>,
    events: &dyn TunnelEvents,
) -> Detached
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let _running = tunnel.run().await;
    let Some(attention) = tunnel.attention(at) else { return Detached::Fenced };
    let attached = Attached(tunnel, at);
    let why = carry(tunnel, at, &attention, incoming, events).await;
    tunnel.flush();
    if matches!(why, Detached::Protocol(_) | Detached::ClosedHere) {
        // The Close is still to be written; the body that writes it tells when it has.
        let written = async {
            while !tunnel.is_closed() {
                attention.notified().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_GRACE, written).await;
    }
    drop(attached);
    why
}

/// Runs a tunnel that no stream carries, until one does or it is over: its calls have deadlines, and it is not kept for
/// ever.
///
/// # Cancel safety
/// Dropping the future only stops the clocks of the tunnel.
pub(crate) async fn keep(tunnel: &TunnelHandle) {
    let _running = tunnel.run().await;
    let at = tunnel.epoch();
    let Some(attention) = tunnel.attention(at) else { return };
    let mut due = Vec::new();
    loop {
        let stands = tunnel.arm(at, &mut due);
        tunnel.deliver_calls(std::mem::take(&mut due));
        let Stands::Detached(next) = stands else { return };
        if tunnel.is_closed() {
            return;
        }
        tokio::select! {
            () = sleep_until(next) => {
                // Nobody is asked whether it lives while there is nobody to ask.
                let _ = tunnel.time_passed(&mut due);
            }
            () = attention.notified() => {}
        }
    }
}

async fn sleep_until(time: Option<Time>) {
    match time {
        Some(time) => tokio::time::sleep_until(clock::instant(time)).await,
        None => std::future::pending().await,
    }
}

/// Takes the tunnel from its stream at the end, also when the future is dropped.
struct Attached<'a>(&'a TunnelHandle, Epoch);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.detach(self.1);
    }
}

async fn carry<B>(
    tunnel: &TunnelHandle,
    at: Epoch,
    attention: &Notify,
    incoming: &mut Messages<B>,
    events: &dyn TunnelEvents,
) -> Detached
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let mut due = Vec::new();
    let sleep = tokio::time::sleep(Duration::ZERO);
    let mut sleep = std::pin::pin!(sleep);
    let mut set = None;
    // What came before, such as Hello, is no sign of life from now on.
    let mut heard = incoming.received();
    let mut in_a_row = 0;
    loop {
        let stands = tunnel.arm(at, &mut due);
        if let Some(close) = deliver(tunnel, &mut due, events) {
            return Detached::Closed(close);
        }
        let armed = match stands {
            Stands::Carries(next) => next,
            Stands::Closing => return Detached::ClosedHere,
            Stands::Fenced => return Detached::Fenced,
            Stands::Detached(_) => return Detached::Ended,
        };
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
                    tunnel.heard(at);
                }
                if tunnel.time_passed(&mut due).is_err() {
                    // Calls whose time was over at this moment have heard so.
                    deliver(tunnel, &mut due, events);
                    return Detached::Silent;
                }
            }
            () = attention.notified() => {}
            message = incoming.next() => match message {
                Ok(Some(message)) => {
                    in_a_row += 1;
                    if in_a_row == MESSAGES_IN_A_ROW {
                        in_a_row = 0;
                        tokio::task::yield_now().await;
                    }
                    let taken = tunnel.receive(at, message, &mut due);
                    if let Some(close) = deliver(tunnel, &mut due, events) {
                        return Detached::Closed(close);
                    }
                    if let Err(error) = taken {
                        return broken(tunnel, error.to_string());
                    }
                }
                Ok(None) => return Detached::Ended,
                Err(MessagesError::Body(error)) => return Detached::Io(error),
                // It was cut in the middle of a message; the whole one comes again.
                Err(error @ MessagesError::Truncated) => return Detached::Io(error.to_string()),
                Err(error) => return broken(tunnel, error.to_string()),
            },
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
    at: Epoch,
    first: Option<Bytes>,
    side: Side,
    ended: bool,
}

impl TunnelBody {
    /// Sends `first` (Hello or Welcome, a whole gRPC message; none if it is empty), then the batches of `tunnel` as long as
    /// the stream `at` carries it.
    pub(crate) fn new(tunnel: TunnelHandle, at: Epoch, first: Bytes, side: Side) -> Self {
        Self { tunnel, at, first: Some(first), side, ended: false }
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
        match self.tunnel.next_batch(self.at, cx.waker()) {
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

#[cfg(test)]
mod tests {
    use std::iter;

    use grpcrouter_protocol::{Config, TokenHash, Update, WindowPool};
    use http_body_util::StreamBody;
    use tokio::time::{Instant, sleep};
    use tokio_stream::{Stream, StreamExt as _};

    use super::*;
    use crate::{metrics::TunnelMeter, tunnel::Started};

    struct Nobody;

    impl TunnelEvents for Nobody {
        fn started(&self, _: &TunnelHandle, _: Started) {}
        fn draining(&self, _: Vec<String>) {}
        fn peers_changed(&self, _: Vec<String>) {}
        fn updated(&self, _: Update) {}
        fn closed(&self, _: &Close) {}
    }

    /// How a tunnel over these bytes ends, and after so many seconds.
    async fn attached(bytes: impl Stream<Item = u8>) -> (Detached, u64) {
        let began = Instant::now();
        let token = TokenHash([0; 32]);
        let meter = TunnelMeter::new(Side::Gateway);
        let tunnel = TunnelHandle::gateway(Config::default(), &WindowPool::new(0), meter, token);
        let frames = bytes.map(|byte| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(&[byte]))));
        let mut incoming = Messages::new(Box::pin(StreamBody::new(frames)));
        let why = attach(&tunnel, Epoch::FIRST, &mut incoming, &Nobody).await;
        (why, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_given_up_after_three_pings() {
        let (why, seconds) = attached(tokio_stream::pending()).await;

        assert!(matches!(why, Detached::Silent), "{why}");
        assert_eq!(seconds, 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_batch_takes_minutes_to_come_is_not_given_up() {
        // A batch of 200 bytes, one each second; that it is none is seen at its end.
        let batch = [0, 0, 0, 0, 200].into_iter().chain(iter::repeat_n(0xff, 200));
        let trickle = tokio_stream::iter(batch).then(|byte| async move {
            sleep(Duration::from_secs(1)).await; // waits because it plays a slow peer, in paused time
            byte
        });

        let (why, seconds) = attached(trickle).await;

        assert!(matches!(why, Detached::Protocol(_)), "{why}");
        assert!((205..=206).contains(&seconds), "{seconds}");
    }
}
