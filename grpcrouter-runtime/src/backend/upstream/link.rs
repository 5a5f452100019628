//! The connection to an upstream: dialled, watched, and dialled again for ever.
//! A connection that says GOAWAY finishes what runs on it while the next one is dialled.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::address::{Address, Socket};
use crate::backoff::Backoff;

/// The one connection of an upstream. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: Address,
    state: watch::Sender<State>,
}

/// What a call finds.
#[derive(Clone)]
pub(super) enum State {
    /// Not known yet, or about to be dialled anew: worth waiting for.
    Dialling,
    Up(Open),
    /// Cannot be reached now, and why.
    Down(Arc<str>),
}

/// An open connection.
#[derive(Clone)]
pub(super) struct Open {
    /// Rises with each connection.
    pub(super) number: u64,
    pub(super) requests: SendRequest<Bytes>,
}

/// How a connection ended.
enum End {
    /// It takes no new call; what runs on it goes on.
    Leaving,
    Lost(String),
}

impl Link {
    pub(super) fn new(address: Address) -> Self {
        Self(Arc::new(Inner { address, state: watch::Sender::new(State::Dialling) }))
    }

    pub(super) fn address(&self) -> &Address {
        &self.0.address
    }

    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// The open connection, other than the one of `number`; waits while one is dialled.
    ///
    /// # Errors
    /// Why there is none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no trace.
    pub(super) async fn open(&self, but: Option<u64>) -> Result<Open, Arc<str>> {
        let mut state = self.watch();
        loop {
            match &*state.borrow_and_update() {
                State::Up(open) if Some(open.number) != but => return Ok(open.clone()),
                State::Down(why) => return Err(why.clone()),
                State::Up(_) | State::Dialling => {}
            }
            if state.changed().await.is_err() {
                return Err("the agent stops".into());
            }
        }
    }

    /// Dials, and again whenever the connection ends. Connections live as long as this future.
    ///
    /// # Cancel safety
    /// Dropping the future ends every call to the upstream.
    pub(super) async fn run(&self) -> Infallible {
        let address = &self.0.address;
        let mut leaving = JoinSet::new();
        let mut backoff = Backoff::new();
        let mut number = 0;
        loop {
            let began = Instant::now();
            let why = match timeout(DIAL_TIMEOUT, dial(address)).await {
                Ok(Ok((requests, connection))) => {
                    number += 1;
                    info!(upstream = %address, "connected to the upstream");
                    self.0.state.send_replace(State::Up(Open { number, requests: requests.clone() }));
                    let mut connection = Box::pin(connection);
                    match end(&mut connection, requests).await {
                        End::Leaving => {
                            info!(upstream = %address, "the upstream takes no new call on this connection; dialling another");
                            self.0.state.send_replace(State::Dialling);
                            leaving.spawn(async move {
                                let _ = connection.await;
                            });
                        }
                        End::Lost(why) => {
                            warn!(upstream = %address, "the connection to the upstream was lost: {why}; its calls end UNAVAILABLE");
                            self.0.state.send_replace(State::Down(why.into()));
                        }
                    }
                    while leaving.try_join_next().is_some() {}
                    if began.elapsed() > STABLE {
                        backoff.reset();
                    } else {
                        sleep(backoff.next_wait().min(LONGEST_WAIT)).await;
                    }
                    continue;
                }
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {} s", DIAL_TIMEOUT.as_secs()),
            };
            let wait = backoff.next_wait().min(LONGEST_WAIT);
            let tries = backoff.tries();
            // One line when it begins, and then one now and then.
            if tries == 1 || tries.is_multiple_of(TRIES_PER_LINE) {
                warn!(
                    upstream = %address, tries,
                    "the upstream cannot be reached: {why}; is the server running, and is this its address? Trying again"
                );
            } else {
                debug!(upstream = %address, tries, "the upstream cannot be reached: {why}");
            }
            self.0.state.send_replace(State::Down(why.into()));
            sleep(wait).await;
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialling => f.write_str("Dialling"),
            Self::Up(open) => write!(f, "Up({})", open.number),
            Self::Down(why) => write!(f, "Down({why})"),
        }
    }
}

/// A connection on which the other end has shown that it speaks HTTP/2.
async fn dial(address: &Address) -> Result<(SendRequest<Bytes>, Connection<Socket, Bytes>), String> {
    let socket = address.dial().await.map_err(|error| error.to_string())?;
    let not_http2 = |error: h2::Error| format!("it does not speak HTTP/2 without TLS: {error}");
    let (requests, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .handshake(socket)
        .await
        .map_err(not_http2)?;
    // h2 waits for nothing; only an answer shows who listens there.
    if let Some(mut ping) = connection.ping_pong() {
        let mut pong = pin!(ping.ping(h2::Ping::opaque()));
        poll_fn(|cx| {
            if let Poll::Ready(ended) = std::pin::Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Err(match ended {
                    Ok(()) => "it closed the connection at once; does it speak gRPC?".to_owned(),
                    Err(error) => not_http2(error),
                }));
            }
            pong.as_mut().poll(cx).map(|pong| pong.map(drop).map_err(not_http2))
        })
        .await?;
    }
    Ok((requests, connection))
}

/// Drives `connection` until it ends or will take no new call.
async fn end(connection: &mut std::pin::Pin<Box<Connection<Socket, Bytes>>>, mut requests: SendRequest<Bytes>) -> End {
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            let why = ended.map_or_else(|error| error.to_string(), |()| "the upstream closed it".to_owned());
            return Poll::Ready(End::Lost(why));
        }
        // GOAWAY is told to nobody, but whoever would call next hears of it.
        match requests.poll_ready(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(End::Leaving),
            _ => Poll::Pending,
        }
    })
    .await
}

/// TCP and the first answer of an upstream that is near.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that restarts on this machine is to be found soon, and a dial to it costs nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A connection that held for so long was a success: the next is dialled at once.
const STABLE: Duration = Duration::from_secs(1);

/// Tries that fail alike, to one line of the log: about one each half a minute.
const TRIES_PER_LINE: u32 = 60;

/// What one call may have sent ahead of its reader: as in the tunnel.
const WINDOW: u32 = 64 * 1024;

/// No call waits for another's reader: the windows of the calls are the limit, and HTTP/2 has no larger number.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Headers and trailers of one answer; beyond the 16 KiB of metadata that cross the tunnel, so that those who send more
/// are told why.
const MAX_HEADERS: u32 = 64 * 1024;

/// Bytes of one call that h2 holds for writing.
const MAX_SEND_BUFFER: usize = 64 * 1024;
