//! One connection of a client, or of an instance that registers: one task that accepts calls and goes on with those that
//! HTTP/2 has news for. No call has a task, a channel or a lock of its own connection's to wait for.

mod keepalive;

use std::{
    future::{Future, poll_fn},
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use grpcrouter_protocol::Text;
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http::{Request, uri::Authority};
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, trace};

use self::keepalive::Keepalive;
use super::{GatewayCore, bridge, client_call::ClientCall, register::REGISTER_PATH};

/// What a connection shares with its calls.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) core: Arc<GatewayCore>,
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

/// Serves one connection until it ends. `stop` has it end once its calls have.
pub(super) async fn serve(core: Arc<GatewayCore>, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    let _counted = Counted::new(&core);
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY could not be set");
    }
    let mut h2 = match timeout(HANDSHAKE_DUE, settings().handshake(stream)).await {
        Ok(Ok(h2)) => h2,
        Ok(Err(error)) => return debug!(%peer, %error, "not an HTTP/2 client"),
        Err(_) => return debug!(%peer, "no HTTP/2 preface in time"),
    };
    let keepalive = h2.ping_pong().map(Keepalive::new);
    let shared = Arc::new(Shared { core, ready: Mutex::default(), task: AtomicWaker::new() });
    let mut served = Served {
        shared,
        h2: Some(h2),
        peer,
        stop: Some(Box::pin(stop.cancelled_owned())),
        keepalive,
        authority: None,
        spare: Vec::new(),
        registered: None,
        narrow: false,
    };
    let why = poll_fn(|cx| served.poll(cx)).await;
    trace!(%peer, why, "connection ended");
}

/// The task's own side of a connection.
struct Served {
    shared: Arc<Shared>,
    /// Always there until this is dropped.
    h2: Option<Connection<TcpStream, Bytes>>,
    peer: SocketAddr,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    keepalive: Option<Keepalive>,
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
            if self.registered.is_none()
                && let Some(h2) = &mut self.h2
            {
                h2.graceful_shutdown();
            }
        }
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(cx).is_ready()
        {
            return Poll::Ready("no answer to a ping");
        }
        loop {
            self.work();
            loop {
                let Some(h2) = &mut self.h2 else { return Poll::Ready("gone") };
                match h2.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                    Poll::Ready(Some(Err(error))) => {
                        debug!(peer = %self.peer, %error, "connection broke");
                        return Poll::Ready("broken");
                    }
                    Poll::Ready(None) => return Poll::Ready("closed"),
                    Poll::Pending => break,
                }
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
        if self.registered.as_ref().is_some_and(|register| !register.is_finished()) {
            // One Register stream for each connection and nothing beside it: a call would share its fate and windows.
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            return;
        }
        if request.uri().path() == REGISTER_PATH {
            self.register(request, respond);
            return;
        }
        if let Some(own) = self.shared.core.own.find(request.uri().path()) {
            tokio::spawn(bridge::carry_own(self.shared.core.clone(), own.clone(), request, respond));
            return;
        }
        let authority = self.authority(request.uri().authority());
        let (head, body) = request.into_parts();
        ClientCall::begin(&self.shared, &head, authority, body, respond);
    }

    fn register(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        if let Some(h2) = &mut self.h2 {
            h2.set_target_window_size(TUNNEL_WINDOW);
        }
        self.narrow = true;
        let carry = bridge::carry_register(self.shared.core.clone(), request, respond, self.peer.to_string());
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

/// Counts the connection for as long as it lives.
struct Counted(Arc<GatewayCore>);

impl Counted {
    fn new(core: &Arc<GatewayCore>) -> Self {
        core.counts.connection_began();
        core.meters.connection_began();
        Self(core.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counts.connection_ended();
        self.0.meters.connection_ended();
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

/// TCP is up but nothing is said: 10 s for the preface, as long as a slow network may need.
const HANDSHAKE_DUE: Duration = Duration::from_secs(10);

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
