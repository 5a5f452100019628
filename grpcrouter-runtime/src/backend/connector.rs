//! Keeps one tunnel to one gateway: dials, says Hello, carries calls, and dials again for ever.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{
    Accepted, Close, CloseCode, Config, Health, Hello, Side, Update, Welcome, decode_welcome, encode_hello,
};
use h2::client::{Connection, SendRequest};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Live;
use super::builder::GatewayAddress;
use super::dispatch::{Dispatcher, Services};
use super::health::Said;
use crate::backoff::Backoff;
use crate::error::ConnectError;
use crate::h2_body::{RecvBody, pump};
use crate::metadata;
use crate::tunnel::{Detached, Messages, TunnelBody, TunnelHandle, attach};

/// The side that dials out.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) gateway: GatewayAddress,
    pub(super) hello: Hello,
    pub(super) config: Config,
    pub(super) services: Arc<Services>,
    pub(super) live: Arc<Live>,
    pub(super) drain_timeout: Duration,
}

/// A stream on which Welcome was said.
struct Stream {
    accepted: Accepted,
    /// What Hello said.
    health: Health,
    outgoing: h2::SendStream<Bytes>,
    incoming: Messages<RecvBody>,
    /// Held until the end: h2 closes a connection that nobody can use any more.
    _requests: SendRequest<Bytes>,
}

/// A stream and the connection under it, which moves only while it is polled.
type Registered<C> = (Stream, C);

/// What polls a connection, and is never done.
trait Driven: Future<Output = Infallible> + Send {}

impl<F: Future<Output = Infallible> + Send> Driven for F {}

impl Connector {
    /// Runs until `stop`, and on until the calls of that moment have finished or the drain timeout is over.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let began = Instant::now();
            let (least, problem) = match self.register(&stop).await {
                None => return,
                Some(Ok((stream, connection))) => (self.carry(stream, connection, &stop).await, None),
                Some(Err(_)) if stop.is_cancelled() => return,
                Some(Err(error)) => {
                    self.live.meters.not_registered(&error);
                    (error.retry_after(), Some(error))
                }
            };
            if stop.is_cancelled() {
                return;
            }
            // A tunnel that held for a while was a success; one that broke at once was not.
            if began.elapsed() > STABLE {
                backoff.reset();
            }
            let tries = backoff.tries() + 1;
            let wait = backoff.next_wait().max(least.min(LONGEST_WAIT));
            // One line for each dial.
            match problem {
                Some(error) => warn!(gateway = %self.gateway, tries, wait_ms = wait.as_millis(), "{error}"),
                None => info!(gateway = %self.gateway, wait_ms = wait.as_millis(), "dialling again"),
            }
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Dials, says Hello and hears Welcome. None if `stop` came before Hello.
    ///
    /// From Hello on the gateway may send calls, before Welcome is here: an instance that went away without a word would
    /// lose them. So a stop that comes then waits for Welcome, at most for the drain timeout, and drains.
    async fn register(&self, stop: &CancellationToken) -> Option<Result<Registered<impl Driven>, ConnectError>> {
        let late = || ConnectError::Timeout { address: self.address(), seconds: REGISTER_TIMEOUT.as_secs() };
        let due = Instant::now() + REGISTER_TIMEOUT;
        let (requests, connection) = match stop.run_until_cancelled(timeout_at(due, self.dial())).await? {
            Ok(Ok(dialled)) => dialled,
            Ok(Err(error)) => return Some(Err(error)),
            Err(_) => return Some(Err(late())),
        };
        let mut connection = Box::pin(driven(connection));
        let stopped_long_ago = async {
            stop.cancelled().await;
            sleep(self.drain_timeout).await;
        };
        Some(tokio::select! {
            biased;
            stream = self.hello(requests) => stream.map(|stream| (stream, connection)),
            never = connection.as_mut() => match never {},
            () = sleep_until(due) => Err(late()),
            () = stopped_long_ago => return None,
        })
    }

    async fn dial(&self) -> Result<(SendRequest<Bytes>, Connection<TcpStream, Bytes>), ConnectError> {
        let stream = TcpStream::connect((self.gateway.host(), self.gateway.port()))
            .await
            .map_err(|source| ConnectError::Dial { address: self.address(), source })?;
        // A batch goes when it is ready.
        let _ = stream.set_nodelay(true);
        h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .handshake(stream)
            .await
            .map_err(|error| self.no_answer(error))
    }

    async fn hello(&self, requests: SendRequest<Bytes>) -> Result<Stream, ConnectError> {
        let mut requests = requests.ready().await.map_err(|error| self.no_answer(error))?;
        let (response, mut outgoing) =
            requests.send_request(self.request(), false).map_err(|error| self.no_answer(error))?;
        let health = self.live.health.said().borrow().health;
        let hello = Hello { health, ..self.hello.clone() };
        outgoing.send_data(encode_hello(&hello), false).map_err(|error| self.no_answer(error))?;

        let (head, body) = response.await.map_err(|error| self.no_answer(error))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(self.not_a_gateway(format!("HTTP {}", head.status)));
        }
        if !metadata::is_grpc(&head.headers) {
            return Err(self.not_a_gateway("something that is not gRPC".to_owned()));
        }
        if metadata::is_trailers_only(&head.headers) {
            return Err(self.ended(&head.headers));
        }
        let mut incoming = Messages::new(RecvBody::new(body));
        let message = match incoming.next().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                return Err(match incoming.trailers() {
                    Some(trailers) => self.ended(trailers),
                    None => self.no_welcome("without a word".to_owned()),
                });
            }
            Err(error) => return Err(self.no_welcome(error.to_string())),
        };
        match decode_welcome(message) {
            Ok(Welcome::Accepted(accepted)) => Ok(Stream { accepted, health, outgoing, incoming, _requests: requests }),
            Ok(Welcome::Rejected(rejected)) => Err(ConnectError::Rejected {
                address: self.address(),
                reason: rejected.reason.as_str(),
                message: rejected.message,
                retry_after: rejected.retry_after,
            }),
            Ok(Welcome::Resumed(_)) => Err(self.no_welcome("it resumed a tunnel that was not asked for".to_owned())),
            Err(source) => Err(ConnectError::BadWelcome { address: self.address(), source }),
        }
    }

    /// One tunnel, to its end. Tells how long the gateway wants to be left alone.
    async fn carry(
        &self,
        stream: Stream,
        connection: impl Future<Output = Infallible>,
        stop: &CancellationToken,
    ) -> Duration {
        let Stream { accepted, health, outgoing, mut incoming, _requests } = stream;
        let config = match self.config.clone().adopt(&accepted) {
            Ok(config) => config,
            Err(error) => {
                warn!(gateway = %self.gateway, "the gateway's limits cannot be used: {error}; is it of another release?");
                return Duration::ZERO;
            }
        };
        let tunnel = TunnelHandle::instance(config, self.live.meters.tunnel.clone());
        self.live.meters.registered.increment(1);
        let _up = self.live.tunnel_up(tunnel.clone());
        info!(gateway = %self.gateway, instance = %self.hello.instance_id, "registered");

        let events = Dispatcher {
            services: self.services.clone(),
            tasks: self.live.tasks.clone(),
            meters: self.live.meters.clone(),
            gateway: self.gateway.to_string(),
        };
        // Hello went out before there was a tunnel.
        let batches = pump(TunnelBody::new(tunnel.clone(), Bytes::new(), Side::Instance), outgoing);
        // All in one task and in this order: what a batch brings in goes out with one write.
        let mut io = pin!(async {
            tokio::join!(batches, connection);
            pending::<Infallible>().await
        });
        let detached = tokio::select! {
            biased;
            detached = attach(&tunnel, &mut incoming, &events) => detached,
            never = io.as_mut() => match never {},
            never = self.finish(&tunnel, stop) => match never {},
            never = self.tell_health(&tunnel, health) => match never {},
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
        self.log(&detached);
        match detached {
            Detached::Closed(Close { code: CloseCode::Replaced, retry_after, .. }) => retry_after.max(REPLACED_WAIT),
            Detached::Closed(close) => close.retry_after,
            _ => Duration::ZERO,
        }
    }

    /// Tells the gateway each change of health since it was told `told`.
    async fn tell_health(&self, tunnel: &TunnelHandle, mut told: Health) -> Infallible {
        let mut said = self.live.health.said();
        loop {
            let Said { version, health } = *said.borrow_and_update();
            if health != told {
                let Hello { weight, labels, .. } = &self.hello;
                tunnel.update(Update { version, health, weight: *weight, labels: labels.clone(), load_permille: 0 });
                info!(gateway = %self.gateway, ?health, "told the gateway");
                told = health;
            }
            if said.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// After `stop`: nothing new, what runs finishes, then the tunnel is closed; `attach` sees that.
    async fn finish(&self, tunnel: &TunnelHandle, stop: &CancellationToken) -> Infallible {
        stop.cancelled().await;
        tunnel.drain();
        let idle = async {
            // Drain is acked like any batch: until then calls may come that the gateway sent before it knew.
            while !tunnel.is_settled() {
                sleep(DRAIN_TICK).await;
            }
        };
        let code = match timeout(self.drain_timeout, idle).await {
            Ok(()) => CloseCode::NoError,
            Err(_) => {
                let calls = tunnel.open_calls();
                warn!(gateway = %self.gateway, calls, "calls still run after the drain timeout; they end now");
                CloseCode::Shutdown
            }
        };
        let reason = "the instance stops".to_owned();
        tunnel.close(Close { code, reason, retry_after: Duration::ZERO });
        pending().await
    }

    fn request(&self) -> Request<()> {
        let mut request =
            Request::post(self.gateway.register_uri()).version(Version::HTTP_2).body(()).unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("grpcrouter/", env!("CARGO_PKG_VERSION"))));
        request
    }

    fn log(&self, detached: &Detached) {
        let gateway = &self.gateway;
        match detached {
            Detached::ClosedHere => info!(%gateway, "the tunnel is closed"),
            Detached::Closed(Close { code: CloseCode::Replaced, .. }) => warn!(
                %gateway, instance = %self.hello.instance_id,
                "another process took over this instance id; give each process its own with .instance_id(..)"
            ),
            Detached::Closed(_) => info!(%gateway, "the tunnel ended: {detached}"),
            _ => warn!(%gateway, "the tunnel was lost: {detached}; the calls in it have ended"),
        }
    }

    fn address(&self) -> String {
        self.gateway.to_string()
    }

    fn no_answer(&self, source: h2::Error) -> ConnectError {
        if source.is_io() {
            self.no_welcome(source.to_string())
        } else {
            ConnectError::NotHttp2 { address: self.address(), source }
        }
    }

    fn no_welcome(&self, why: String) -> ConnectError {
        ConnectError::NoWelcome { address: self.address(), why }
    }

    fn not_a_gateway(&self, answer: String) -> ConnectError {
        ConnectError::NotAGateway { address: self.address(), answer }
    }

    /// The stream is over with a status and without Welcome.
    fn ended(&self, trailers: &HeaderMap) -> ConnectError {
        let trailers = metadata::trailers_from_map(trailers);
        let code = tonic::Code::from(trailers.status.cast_signed());
        let answer = format!("{code:?}: {}", crate::status::shown(trailers.message.as_str()));
        if code == tonic::Code::Unimplemented { self.not_a_gateway(answer) } else { self.no_welcome(answer) }
    }
}

/// Polls an h2 connection, which does nothing of its own accord. What ends it is seen by its streams.
async fn driven(connection: Connection<TcpStream, Bytes>) -> Infallible {
    if let Err(error) = connection.await {
        debug!(%error, "connection lost");
    }
    pending().await
}

/// Dial, HTTP/2, Hello and Welcome together. A gateway that takes longer is of no use.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a tunnel must have held for the next dial to start with a short wait again.
const STABLE: Duration = Duration::from_secs(5);

/// How long to leave a gateway alone that gave this instance's id to another process: dialling at once would take it
/// back, and so on without end.
const REPLACED_WAIT: Duration = Duration::from_secs(5);

/// However long a gateway asks to be left alone: one that says so by mistake must not be left alone for good.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How often a draining tunnel is asked whether it is done.
const DRAIN_TICK: Duration = Duration::from_millis(5);

/// How long the gateway may take to end a stream that was closed here.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes on the way to this process: the core's windows are what limits each call, so this is transit, not storage.
const WINDOW: u32 = 16 * 1024 * 1024;

/// A batch in one HTTP/2 frame, with its prefix.
const MAX_FRAME: u32 = 65 * 1024;

/// Bytes of batches that wait for the socket: two batches, so that the scheduler decides late what goes next.
const MAX_SEND_BUFFER: usize = 128 * 1024;
