//! Keeps one tunnel to one gateway: dials, says Hello, carries calls, and dials again for ever.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{Close, CloseCode, Config, Hello, Side, Update};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Live;
use super::dial::{Dialled, Dialler, Greeted, Moving, Trail};
use super::dispatch::{Dispatcher, Services};
use super::health::Said;
use crate::backoff::Backoff;
use crate::error::ConnectError;
use crate::h2_body::pump;
use crate::tunnel::{Detached, TunnelBody, TunnelHandle, attach};

/// The side that dials out.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) dialler: Dialler,
    pub(super) hello: Hello,
    pub(super) config: Config,
    pub(super) services: Arc<Services>,
    pub(super) live: Arc<Live>,
    pub(super) drain_timeout: Duration,
}

/// A stream on which Welcome was said.
struct Stream {
    greeted: Greeted,
    /// What Hello said.
    said: Said,
    /// Its version, where there is TLS.
    tls: Option<&'static str>,
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
                Some(error) => {
                    let step = error.step().as_str();
                    warn!(gateway = %self.dialler.gateway, step, tries, wait_ms = wait.as_millis(), "{error}");
                }
                None => info!(gateway = %self.dialler.gateway, wait_ms = wait.as_millis(), "dialling again"),
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
        let due = Instant::now() + self.dialler.timeout;
        let mut trail = Trail::new(self.dialler.timeout);
        let (dialled, connection) = match stop.run_until_cancelled(self.dialler.dial(due, &mut trail)).await? {
            Ok(dialled) => dialled,
            Err(error) => return Some(Err(error)),
        };
        let mut connection = Box::pin(driven(connection));
        let stopped_long_ago = async {
            stop.cancelled().await;
            sleep(self.drain_timeout).await;
        };
        Some(tokio::select! {
            biased;
            stream = self.hello(&dialled, &mut trail) => stream.map(|stream| (stream, connection)),
            never = connection.as_mut() => match never {},
            () = sleep_until(due) => Err(trail.late()),
            () = stopped_long_ago => return None,
        })
    }

    async fn hello(&self, dialled: &Dialled, trail: &mut Trail) -> Result<Stream, ConnectError> {
        let said = self.live.health.said().borrow().clone();
        let mut hello = Hello { health: said.health, ..self.hello.clone() };
        hello.services.iter_mut().for_each(|offer| offer.not_serving = said.is_ill(&offer.name));
        let greeted = self.dialler.greet(dialled, &hello, trail).await?;
        Ok(Stream { greeted, said, tls: trail.tls.as_ref().map(|seen| seen.version) })
    }

    /// One tunnel, to its end. Tells how long the gateway wants to be left alone.
    async fn carry(
        &self,
        stream: Stream,
        connection: impl Future<Output = Infallible>,
        stop: &CancellationToken,
    ) -> Duration {
        let Stream { greeted: Greeted { accepted, outgoing, mut incoming, requests: _requests }, said, tls } = stream;
        let config = match self.config.clone().adopt(&accepted) {
            Ok(config) => config,
            Err(error) => {
                warn!(gateway = %self.dialler.gateway, "the gateway's limits cannot be used: {error}; is it of another release?");
                return Duration::ZERO;
            }
        };
        let tunnel = TunnelHandle::instance(config, self.live.meters.tunnel.clone());
        self.live.meters.registered.increment(1);
        let _up = self.live.tunnel_up(tunnel.clone());
        info!(
            gateway = %self.dialler.gateway,
            instance = %self.hello.instance_id,
            proxy = self.dialler.proxy.as_ref().map(display),
            tls,
            "registered"
        );

        let events = Dispatcher {
            services: self.services.clone(),
            tasks: self.live.tasks.clone(),
            meters: self.live.meters.clone(),
            gateway: self.dialler.address(),
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
            never = self.tell_health(&tunnel, said) => match never {},
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
    async fn tell_health(&self, tunnel: &TunnelHandle, mut told: Said) -> Infallible {
        let mut said = self.live.health.said();
        loop {
            let now = said.borrow_and_update().clone();
            if now != told {
                let Hello { weight, labels, .. } = &self.hello;
                let not_serving = now.not_serving.iter().map(ToString::to_string).collect();
                tunnel.update(Update {
                    version: now.version,
                    health: now.health,
                    weight: *weight,
                    labels: labels.clone(),
                    load_permille: 0,
                    not_serving,
                });
                let not_serving = now.not_serving.join(", ");
                info!(gateway = %self.dialler.gateway, health = ?now.health, not_serving, "told the gateway");
                told = now;
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
                warn!(gateway = %self.dialler.gateway, calls, "calls still run after the drain timeout; they end now");
                CloseCode::Shutdown
            }
        };
        let reason = "the instance stops".to_owned();
        tunnel.close(Close { code, reason, retry_after: Duration::ZERO });
        pending().await
    }

    fn log(&self, detached: &Detached) {
        let gateway = &self.dialler.gateway;
        match detached {
            Detached::ClosedHere => info!(%gateway, "the tunnel is closed"),
            Detached::Closed(Close { code: CloseCode::Replaced, .. }) => warn!(
                %gateway, instance = %self.hello.instance_id,
                "another process took over this instance id; give each process its own with .instance_id(..)"
            ),
            Detached::Closed(Close { code: CloseCode::PermissionDenied, .. }) => {
                warn!(%gateway, "the gateway does not let this instance stay: {detached}");
            }
            Detached::Closed(_) => info!(%gateway, "the tunnel ended: {detached}"),
            _ => warn!(%gateway, "the tunnel was lost: {detached}; the calls in it have ended"),
        }
    }
}

/// Polls an h2 connection, which does nothing of its own accord. What ends it is seen by its streams.
pub(super) async fn driven(connection: Moving) -> Infallible {
    if let Err(error) = connection.await {
        debug!(%error, "connection lost");
    }
    pending().await
}

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
