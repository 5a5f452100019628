//! One stream under a tunnel: a connection that is ready for Hello, the stream that comes of it, and how that is carried
//! until it is lost or the tunnel has moved to another.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{Close, CloseCode, Hello, ProtocolError, Side, encode_close};
use h2::client::SendRequest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::held::{Held, Pass};
use super::{Connector, STABLE};
use crate::backend::dial::{Dialled, Dialler, Greeted, Trail, Welcomed};
use crate::backoff::Backoff;
use crate::error::ConnectError;
use crate::h2_body::pump;
use crate::tunnel::{Detached, TunnelBody, attach};

/// What polls a connection, and is never done.
type Connection = Pin<Box<dyn Future<Output = Infallible> + Send>>;

/// A connection that is ready for Hello.
pub(super) struct Ready {
    pub(super) dialled: Dialled,
    pub(super) connection: Connection,
    pub(super) trail: Trail,
    /// When Welcome is to be there.
    pub(super) due: Instant,
}

/// A stream on which Welcome was said, and the connection under it, which moves only while it is polled.
pub(super) struct Stream {
    outgoing: h2::SendStream<Bytes>,
    incoming: crate::tunnel::Messages<crate::h2_body::RecvBody>,
    /// To be held until the end: h2 closes a connection that nobody can use any more.
    requests: SendRequest<Bytes>,
    connection: Connection,
    peer: Option<SocketAddr>,
    /// The version, where there is TLS.
    pub(super) tls: Option<&'static str>,
}

/// Why a connection did not get the tunnel.
#[derive(Debug)]
pub(super) enum NotResumed {
    /// The tunnel was over before anybody was asked.
    Over,
    /// The gateway said no.
    Refused(ConnectError),
    /// Nobody knows what the gateway made of it.
    Unknown(ConnectError),
    /// The two sides cannot go on together; the gateway was told so, and the tunnel is over.
    Impossible(ProtocolError),
}

/// What became of a stream.
#[expect(clippy::large_enum_variant, reason = "there is one for each stream")]
pub(super) enum Carried {
    /// It is over.
    To(Detached),
    /// The tunnel goes on over another one.
    Moved(Stream),
}

impl Ready {
    /// Says Hello and hears Welcome.
    pub(super) async fn say(self, dialler: &Dialler, hello: &Hello) -> Result<(Welcomed, Stream), ConnectError> {
        let Self { dialled, mut connection, mut trail, due } = self;
        let greeted = tokio::select! {
            biased;
            greeted = dialler.greet(&dialled, hello, &mut trail) => greeted,
            never = connection.as_mut() => match never {},
            () = sleep_until(due) => Err(trail.late()),
        };
        let Greeted { welcome, outgoing, incoming, requests } = greeted?;
        let (peer, tls) = (trail.peer, trail.tls.as_ref().map(|seen| seen.version));
        Ok((welcome, Stream { outgoing, incoming, requests, connection, peer, tls }))
    }
}

impl Stream {
    /// Says Close and nothing else.
    async fn close(self, close: &Close) {
        let Self { mut outgoing, mut incoming, requests: _requests, connection, .. } = self;
        // Whether it is heard makes no difference: a stream that ends is gone as well.
        let _ = outgoing.send_data(encode_close(Side::Instance, close), true);
        tokio::select! {
            () = async { while let Ok(Some(_)) = incoming.next().await {} } => {}
            never = connection => match never {},
            () = sleep(LINGER) => {}
        }
    }
}

impl Connector {
    /// Asks for the tunnel on this connection.
    pub(super) async fn resume_on(&self, held: &Held, ready: Ready, pass: &mut Pass) -> Result<Stream, NotResumed> {
        let Some(point) = held.tunnel.resume_point() else { return Err(NotResumed::Over) };
        let (hello, _) = self.hello(Some(pass.resume(point)));
        let (resumed, stream) = match ready.say(&self.seat.dialler, &hello).await {
            Ok((Welcomed::Resumed(resumed), stream)) => (resumed, stream),
            Ok((Welcomed::Accepted(_), _)) => return Err(NotResumed::Unknown(self.seat.dialler.unasked())),
            Err(error @ ConnectError::Rejected { .. }) => return Err(NotResumed::Refused(error)),
            Err(error) => return Err(NotResumed::Unknown(error)),
        };
        match held.tunnel.resumed(&resumed) {
            Ok(()) => {
                pass.renew(resumed.new_token);
                self.live.meters.resumed.increment(1);
                Ok(stream)
            }
            Err(error) => {
                let (code, reason) = (CloseCode::ProtocolError, error.to_string());
                stream.close(&Close { code, reason, retry_after: Duration::ZERO }).await;
                Err(NotResumed::Impossible(error))
            }
        }
    }

    /// Carries the tunnel over `stream`, until that is over or the tunnel has moved to another one.
    pub(super) async fn carry(&self, held: &Held, stream: Stream, pass: &mut Pass) -> Carried {
        let Stream { outgoing, mut incoming, mut requests, connection, peer, .. } = stream;
        pass.peer = peer;
        let at = held.tunnel.epoch();
        // Hello went out before.
        let batches = pump(TunnelBody::new(held.tunnel.clone(), at, Bytes::new(), Side::Instance), outgoing);
        // All in one task and in this order: what a batch brings in goes out with one write.
        let mut io = pin!(async {
            tokio::join!(batches, connection);
            pending::<Infallible>().await
        });
        let detached = {
            let mut carried = pin!(attach(&held.tunnel, at, &mut incoming, &held.events));
            let mut wish = Wish::new(self.live.moves.subscribe());
            loop {
                let ready = tokio::select! {
                    biased;
                    detached = carried.as_mut() => break detached,
                    never = io.as_mut() => match never {},
                    ready = self.another(&mut requests, &mut wish, peer) => ready,
                };
                let began = Instant::now();
                // From here on the stream is frozen: it is neither read nor written until the answer is known.
                match self.resume_on(held, ready, pass).await {
                    Ok(next) => {
                        let (calls, took_ms) = (held.tunnel.open_calls(), began.elapsed().as_millis());
                        info!(gateway = %self.gateway(), took_ms, calls, "the tunnel has moved to another connection");
                        return Carried::Moved(next);
                    }
                    Err(NotResumed::Refused(error)) => {
                        held.tunnel.thaw();
                        wish.refused(self.in_vain(&error));
                        warn!(gateway = %self.gateway(), "the tunnel stays on its connection: {error}");
                    }
                    Err(NotResumed::Unknown(error)) => {
                        self.in_vain(&error);
                        break Detached::Io(format!("it was to move to another connection, and {error}"));
                    }
                    Err(NotResumed::Impossible(error)) => break Detached::Protocol(error.to_string()),
                    // The stream that it has says why.
                    Err(NotResumed::Over) => {}
                }
            }
        };
        if matches!(detached, Detached::ClosedHere) {
            // The gateway ends the stream when it has read all; cutting it off before might lose the last answers.
            let ended = async { while let Ok(Some(_)) = incoming.next().await {} };
            tokio::select! {
                () = ended => {}
                never = io.as_mut() => match never {},
                () = sleep(LINGER) => {}
            }
        }
        Carried::To(detached)
    }

    /// Waits until the tunnel is to move, and then for a connection that it can move to.
    async fn another(&self, requests: &mut SendRequest<Bytes>, wish: &mut Wish, peer: Option<SocketAddr>) -> Ready {
        loop {
            self.is_to_move(requests, wish).await;
            sleep_until(wish.not_before).await;
            match self.dial(peer).await {
                Ok(ready) => {
                    let due = ready.due.min(Instant::now() + ANSWER);
                    return Ready { due, ..ready };
                }
                Err(error) => {
                    wish.refused(self.in_vain(&error));
                    warn!(gateway = %self.gateway(), step = error.step().as_str(), "the tunnel stays on its connection: {error}");
                }
            }
        }
    }

    /// Whether the tunnel ends soon, wherever it is.
    fn is_to_end(&self) -> bool {
        self.leaving.is_said() || self.seat.is_draining()
    }

    /// Waits until somebody wants the tunnel on another connection: who runs this program, or who ends the connection in a
    /// while and says so. Never, while it is to end anyway.
    async fn is_to_move(&self, requests: &mut SendRequest<Bytes>, wish: &mut Wish) {
        let is_asked = wish.is_asked;
        let asked = async {
            // The sender lives as long as the backend.
            if !is_asked && wish.asked.changed().await.is_err() {
                pending().await
            }
        };
        let going_away = poll_fn(|cx| match requests.poll_ready(cx) {
            // After a GOAWAY no request may begin. It came by the connection, which is polled in this task: whatever it
            // brings leads here.
            Poll::Ready(Err(error)) if error.is_go_away() && error.is_remote() && !self.is_to_end() => Poll::Ready(()),
            _ => Poll::Pending,
        });
        tokio::select! {
            biased;
            () = asked => wish.is_asked = true,
            // One that is said to end as soon as it begins is not left in haste, or the next would be like it.
            () = going_away => wish.not_before = wish.not_before.max(wish.born + STABLE),
        }
    }
}

/// That a tunnel shall move, and when that may be tried.
struct Wish {
    asked: watch::Receiver<()>,
    is_asked: bool,
    backoff: Backoff,
    born: Instant,
    not_before: Instant,
}

impl Wish {
    fn new(asked: watch::Receiver<()>) -> Self {
        let now = Instant::now();
        Self { asked, is_asked: false, backoff: Backoff::new(), born: now, not_before: now }
    }

    /// It was tried in vain; not again before `least` has passed.
    fn refused(&mut self, least: Duration) {
        self.not_before = Instant::now() + self.backoff.next_wait().max(least);
    }
}

/// How long an answer may take that a stream stands still for.
const ANSWER: Duration = Duration::from_secs(3);

/// How long the gateway may take to end a stream that was closed here.
const LINGER: Duration = Duration::from_secs(1);
