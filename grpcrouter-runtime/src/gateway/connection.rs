//! One connection of a client, or of an instance that registers: one task that accepts calls and goes on with those that
//! HTTP/2 has news for. No call has a task, a channel or a lock of its own connection's to wait for.

mod first;
mod frames;
mod io;
mod opening;
mod upkeep;

use std::{
    future::{Future, poll_fn},
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use grpcrouter_protocol::Text;
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http::{Request, uri::Authority};
use tokio::{
    net::TcpStream,
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, trace, warn};

pub(crate) use self::upkeep::Times;
use self::{
    frames::Flood,
    io::{Io, Verdict},
    upkeep::{End, Ending, Upkeep, Use},
};
use super::{
    GatewayCore, arrivals::Place, bridge, client_call::ClientCall, doors::Serves, peer::Peer, register::REGISTER_PATH,
    tls::ServerTls,
};
use crate::status::Answer;

/// What a listener's connections have in common.
#[derive(Debug)]
pub(super) struct Door {
    /// None: without TLS.
    pub(super) tls: Option<Arc<ServerTls>>,
    /// Who may come.
    pub(super) serves: Serves,
}

/// What a connection shares with its calls.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) core: Arc<GatewayCore>,
    /// Who is at the other end.
    pub(super) peer: Peer,
    /// Calls that HTTP/2 has news for.
    ready: Mutex<Ready>,
    task: AtomicWaker,
}

#[derive(Debug, Default)]
struct Ready {
    calls: Vec<Arc<ClientCall>>,
    /// The task looks here before it sleeps: no need to wake it.
    awake: bool,
    /// Nobody will look any more.
    closed: bool,
}

impl Shared {
    /// Has the connection's task go on with `call`. Called under h2's lock: it must not call h2.
    pub(super) fn queue(&self, call: Arc<ClientCall>) {
        let mut ready = self.lock();
        if ready.closed {
            // All calls have ended with the connection; this is a last echo. Dropped without the lock.
            drop(ready);
            return;
        }
        ready.calls.push(call);
        let awake = ready.awake;
        drop(ready);
        if !awake {
            self.task.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has connections end, once their calls have.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// Those that are here.
    pub(super) begins: CancellationToken,
    /// Those that came after that, and may have been instances.
    pub(super) is_over: CancellationToken,
}

/// Serves one connection until it ends.
pub(super) async fn serve(
    core: Arc<GatewayCore>,
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    stop: Stop,
    place: Place,
) {
    let times = core.limits.times.clone();
    let due = Instant::now() + times.opening;
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY could not be set");
    }
    let opened = async {
        let (io, peer) = opening::open(&core, stream, peer, door.tls.as_deref()).await?;
        let verdict = io.verdict();
        let h2 = settings().handshake(io).await;
        let h2 = h2.inspect_err(|error| debug!(peer = %peer.address, %error, "not an HTTP/2 client")).ok()?;
        Some((h2, peer, verdict))
    };
    let (mut h2, peer, verdict) = match timeout_at(due, opened).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(_) => return debug!(%peer, "neither TLS nor HTTP/2 was there in time"),
    };
    let upkeep = Upkeep::new(times, h2.ping_pong(), due);
    let address = peer.address;
    let shared = Arc::new(Shared { core, peer, ready: Mutex::default(), task: AtomicWaker::new() });
    // Who comes while the gateway stops may be an instance, whose stream goes on; what it is, its first call tells.
    let late = stop.begins.is_cancelled();
    let stop = if late { stop.is_over } else { stop.begins };
    let mut served = Served {
        shared,
        place,
        serves: door.serves,
        h2: Some(h2),
        verdict,
        condemned: false,
        late,
        stop: Some(Box::pin(stop.cancelled_owned())),
        upkeep,
        authority: None,
        spare: Vec::new(),
        registered: None,
        narrow: false,
    };
    let why = poll_fn(|cx| served.poll(cx)).await;
    trace!(peer = %address, why, "connection ended");
}

/// The task's own side of a connection.
struct Served {
    shared: Arc<Shared>,
    place: Place,
    serves: Serves,
    /// Always there until this is dropped.
    h2: Option<Connection<Io, Bytes>>,
    /// Of the frames that came.
    verdict: Arc<Verdict>,
    /// The verdict was carried out.
    condemned: bool,
    /// It came when the gateway had been told to stop.
    late: bool,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    upkeep: Upkeep,
    /// The authority of the last call: that of the next is nearly always the same.
    authority: Option<(Authority, Text)>,
    /// Keeps its room between two looks at what is ready.
    spare: Vec<Arc<ClientCall>>,
    /// The connection belongs to a tunnel and serves no calls.
    registered: Option<AbortHandle>,
    /// The tunnel's stream window is still to be raised.
    narrow: bool,
}

impl Served {
    /// Runs until the connection is over; tells why it is.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        self.shared.task.register(cx.waker());
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(cx).is_ready()
        {
            self.stop = None;
            // A tunnel's connection ends with the tunnel.
            if self.registered.is_none() {
                self.end_gently();
            }
        }
        if let Some(why) = self.keep_up(cx) {
            return Poll::Ready(why);
        }
        loop {
            self.work();
            loop {
                let Some(h2) = &mut self.h2 else { return Poll::Ready("gone") };
                match h2.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                    Poll::Ready(Some(Err(error))) => {
                        debug!(peer = %self.shared.peer.address, %error, "connection broke");
                        return Poll::Ready("broken");
                    }
                    Poll::Ready(None) => return Poll::Ready("closed"),
                    Poll::Pending => break,
                }
            }
            if let Some(flood) = self.verdict.flood()
                && !self.condemned
            {
                self.condemn(flood);
                if let Some(why) = self.keep_up(cx) {
                    return Poll::Ready(why);
                }
                continue;
            }
            if self.widen() {
                continue;
            }
            let mut ready = self.shared.lock();
            if ready.calls.is_empty() {
                ready.awake = false;
                return Poll::Pending;
            }
        }
    }

    /// Tells the client in two steps, as HTTP/2 has it, to send nothing more: what it sent before it knew is carried.
    fn end_gently(&mut self) {
        if let Some(h2) = &mut self.h2 {
            h2.graceful_shutdown();
        }
    }

    /// Lets the clock run; tells why the connection is over, if it is.
    fn keep_up(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        let Self { upkeep, h2, registered, .. } = self;
        let is_used = |h2: &Connection<Io, Bytes>| {
            h2.has_streams() || registered.as_ref().is_some_and(|register| !register.is_finished())
        };
        while let Poll::Ready(end) =
            upkeep.poll(cx, || if h2.as_ref().is_some_and(is_used) { Use::Busy } else { Use::Quiet })
        {
            match (end, &mut *h2) {
                (End::Unused(why), Some(h2)) => {
                    trace!(peer = %self.shared.peer.address, why, "connection told to end");
                    h2.graceful_shutdown();
                    upkeep.ending(Ending::Calls);
                }
                (End::Over(why) | End::Unused(why), _) => return Some(why),
            }
        }
        None
    }

    /// Ends a connection for what came on it, with all its calls.
    fn condemn(&mut self, flood: Flood) {
        self.condemned = true;
        if let Some(unsaid) = self.shared.core.arrivals.ended.once(Instant::now()) {
            let why = match flood {
                Flood::Control => "far more pings, settings or other control frames than its calls need",
                Flood::Resets => {
                    "calls that were taken back as soon as they were made, and far more of them than others"
                }
            };
            warn!(peer = %self.shared.peer.address, why, unsaid, "connection ended for a flood");
        }
        if let Some(h2) = &mut self.h2 {
            h2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        }
        self.upkeep.ending(Ending::Nothing);
    }

    /// Goes on with every call that HTTP/2 has news for.
    fn work(&mut self) {
        {
            let mut ready = self.shared.lock();
            ready.awake = true;
            mem::swap(&mut ready.calls, &mut self.spare);
        }
        for call in self.spare.drain(..) {
            call.client_moved();
        }
    }

    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.upkeep.called();
        if self.registered.as_ref().is_some_and(|register| !register.is_finished()) {
            // One Register stream for each connection and nothing beside it: a call would share its fate and windows.
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            return;
        }
        if request.uri().path() == REGISTER_PATH {
            match self.serves {
                Serves::All | Serves::Instances => self.register(request, respond),
                Serves::Clients => refuse(
                    &mut respond,
                    Answer::another_listener(
                        "instances do not register at this address, but at another one of this gateway: its owner knows it",
                    ),
                ),
            }
            return;
        }
        if self.serves == Serves::Instances {
            return refuse(
                &mut respond,
                Answer::another_listener(
                    "this address is for instances that register: call the gateway at its other one",
                ),
            );
        }
        if self.late {
            // A client that may finish what it has begun, as those that were here before.
            self.end_gently();
        }
        if let Some(own) = self.shared.core.own.find(request.uri().path()) {
            let (core, peer) = (self.shared.core.clone(), self.shared.peer.clone());
            tokio::spawn(bridge::carry_own_of(peer, core, own.clone(), request, respond));
            return;
        }
        let authority = self.authority(request.uri().authority());
        let (head, body) = request.into_parts();
        ClientCall::begin(&self.shared, &head, authority, body, respond);
    }

    fn register(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.place.registers();
        if let Some(h2) = &mut self.h2 {
            h2.set_target_window_size(TUNNEL_WINDOW);
        }
        self.narrow = true;
        let carry = bridge::carry_register(self.shared.core.clone(), request, respond, self.shared.peer.clone());
        self.registered = Some(tokio::spawn(carry).abort_handle());
    }

    /// Raises the window of the tunnel's stream; true if h2 has to be polled to say so. That cannot be done before the
    /// peer has acked our first SETTINGS, and Register comes a round trip earlier than that.
    fn widen(&mut self) -> bool {
        let Some(h2) = self.h2.as_mut().filter(|_| self.narrow) else { return false };
        self.narrow = h2.set_initial_window_size(TUNNEL_WINDOW).is_err();
        !self.narrow
    }

    fn authority(&mut self, authority: Option<&Authority>) -> Text {
        let Some(authority) = authority else { return Text::default() };
        match &self.authority {
            Some((last, text)) if last.as_str() == authority.as_str() => text.clone(),
            _ => {
                let text = Text::from(authority.as_str().to_owned());
                self.authority = Some((authority.clone(), text.clone()));
                text
            }
        }
    }
}

/// Answers who came to the wrong listener.
fn refuse(respond: &mut SendResponse<Bytes>, answer: Answer) {
    if let Err(error) = respond.send_response(answer.into_http(), true) {
        debug!(%error, "a call was gone before it was answered");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // h2 tells every stream that its connection is gone, which queues every call that lives: each has a waker there.
        self.h2 = None;
        loop {
            self.work();
            let mut ready = self.shared.lock();
            if ready.calls.is_empty() {
                ready.closed = true;
                break;
            }
        }
        if let Some(register) = self.registered.take() {
            register.abort();
        }
    }
}

fn settings() -> h2::server::Builder {
    let mut settings = h2::server::Builder::new();
    settings
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(DATA_FRAME_BUDGET)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    settings
}

/// Calls of one client at once; a client with more opens another connection or waits.
const MAX_STREAMS: u32 = 256;

/// Bytes of one request that may be here and not yet with an instance.
const STREAM_WINDOW: u32 = 256 * 1024;

/// All streams' windows together, so that no stream ever waits for another's.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// What small DATA frames that wait in h2 may cost. Calls take every frame out at once, into a buffer without gaps, so
/// that little waits; h2's own default ends the whole connection at about 2,000 frames of one call.
const DATA_FRAME_BUDGET: usize = 32 * 1024 * 1024;

/// Bytes of one response that h2 may hold before we wait.
const SEND_BUFFER: usize = 64 * 1024;

/// Twice the metadata that a call may have: the rest is answered with a status, not with a broken connection.
const MAX_HEADERS: u32 = 32 * 1024;

/// Calls that were reset before we looked: more is an attack, fewer hits honest clients that cancel a lot.
const MAX_PENDING_RESETS: usize = 200;

/// For the one stream of a tunnel, whose reader never waits: transit, not storage.
const TUNNEL_WINDOW: u32 = 16 * 1024 * 1024;
