//! A tunnel that this backend holds, from Welcome to its end, over as many streams as that takes.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{Accepted, Close, CloseCode, Hello, Resume, ResumePoint, Seq, TunnelId, Update};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::stream::{Carried, NotResumed, Stream};
use super::{Again, Connector, LONGEST_WAIT, Registered, STABLE};
use crate::backend::Up;
use crate::backend::dispatch::Dispatcher;
use crate::backend::health::Said;
use crate::backend::roster::{GatewayProcess, Listing, Seat};
use crate::backoff::Backoff;
use crate::error::ConnectError;
use crate::tunnel::{Detached, TunnelHandle, keep};

/// A tunnel, whatever carries it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) tunnel: TunnelHandle,
    pub(super) events: Dispatcher,
}

/// What gets the tunnel onto another stream.
pub(super) struct Pass {
    tunnel_id: TunnelId,
    token: Bytes,
    /// How far both directions were when the last stream was lost.
    got_to: (Seq, Seq),
    /// Where its last stream led: behind one name there may be several gateways, and one has the tunnel.
    pub(super) peer: Option<SocketAddr>,
}

impl Pass {
    /// Whether anything got through since this was last asked.
    fn progressed(&mut self, tunnel: &TunnelHandle) -> bool {
        let Some(ResumePoint { rx_next, tx_first, .. }) = tunnel.resume_point() else { return false };
        std::mem::replace(&mut self.got_to, (rx_next, tx_first)) != (rx_next, tx_first)
    }

    pub(super) fn resume(&self, point: ResumePoint) -> Resume {
        let ResumePoint { epoch, rx_next, tx_first, tx_next } = point;
        Resume { tunnel_id: self.tunnel_id, token: self.token.clone(), epoch, rx_next, tx_first, tx_next }
    }

    pub(super) fn renew(&mut self, token: Bytes) {
        self.token = token;
    }
}

/// Why a tunnel is over.
#[derive(Debug)]
enum End {
    /// With its stream.
    With(Detached),
    /// No stream came in time.
    Late,
    /// The gateway knows it no more.
    Forgotten(ConnectError),
    /// It was to leave, and no stream was there to say so.
    Left,
}

impl Connector {
    /// One tunnel, to its end.
    pub(super) async fn hold(&self, registered: Registered) -> Again {
        let Registered { accepted, stream, said } = registered;
        let config = match self.settings.config.clone().adopt(&accepted) {
            Ok(config) => config,
            Err(error) => {
                warn!(gateway = %self.gateway(), "the gateway's limits cannot be used: {error}; is it of another release?");
                return Again::After(Duration::ZERO);
            }
        };
        let tunnel = TunnelHandle::instance(config, self.live.meters.tunnel.clone());
        self.live.meters.registered.increment(1);
        let process = GatewayProcess::of(accepted.tunnel_id);
        let _standing = Standing::new(self, tunnel.clone(), process);
        info!(
            gateway = %self.gateway(),
            instance = %self.settings.hello.instance_id,
            proxy = self.seat.dialler.proxy.as_ref().map(display),
            tls = stream.tls,
            "registered"
        );
        let events = Dispatcher {
            services: self.settings.services.clone(),
            tasks: self.live.tasks.clone(),
            meters: self.live.meters.clone(),
            seat: self.seat.clone(),
        };
        let held = Held { tunnel, events };
        let Accepted { tunnel_id, resume_token, gateways, .. } = accepted;
        // One that has only just started may not know the others yet: naming nobody, it takes back nobody.
        self.seat.named(&gateways, Listing::Hint);
        let pass = Pass { tunnel_id, token: resume_token, got_to: (Seq::STATE, Seq::STATE), peer: None };
        let end = tokio::select! {
            biased;
            end = self.carry_on(&held, stream, pass) => end,
            never = self.finish(&held.tunnel) => match never {},
            never = self.move_on(&held.tunnel) => match never {},
            never = self.tell_health(&held.tunnel, said) => match never {},
        };
        self.after(end, process, held.tunnel.open_calls())
    }

    /// Carries the tunnel over one stream after the other, until it is over.
    async fn carry_on(&self, held: &Held, mut stream: Stream, mut pass: Pass) -> End {
        let mut backoff = Backoff::new();
        loop {
            let began = Instant::now();
            let detached = match self.carry(held, stream, &mut pass).await {
                Carried::Moved(next) => {
                    stream = next;
                    continue;
                }
                Carried::To(detached) => detached,
            };
            // One that cannot be resumed is over with its stream.
            if held.tunnel.is_closed() {
                return End::With(detached);
            }
            let progressed = pass.progressed(&held.tunnel);
            if began.elapsed() > STABLE {
                backoff.reset();
            } else if progressed && backoff.tries() > 0 {
                // Whoever cuts it again and again does not keep it from going on.
                backoff.restart();
            }
            match self.resume(held, &detached, &mut pass, &mut backoff).await {
                Ok(next) => stream = next,
                Err(end) => return end,
            }
        }
    }

    /// Dials until another stream has the tunnel, or it is over.
    async fn resume(
        &self,
        held: &Held,
        lost: &Detached,
        pass: &mut Pass,
        backoff: &mut Backoff,
    ) -> Result<Stream, End> {
        let (began, calls) = (Instant::now(), held.tunnel.open_calls());
        warn!(gateway = %self.gateway(), calls, "the tunnel was lost: {lost}; dialling again, its calls wait");
        self.seat.attached(false);
        let stream = tokio::select! {
            biased;
            () = keep(&held.tunnel) => {
                let has_left = self.leaving.is_said() || self.seat.is_draining();
                return Err(if has_left { End::Left } else { End::Late });
            }
            stream = self.dial_again(held, pass, backoff) => stream?,
        };
        self.seat.attached(true);
        let (calls, after_ms) = (held.tunnel.open_calls(), began.elapsed().as_millis());
        info!(gateway = %self.gateway(), after_ms, calls, "the tunnel is resumed, its calls go on");
        Ok(stream)
    }

    async fn dial_again(&self, held: &Held, pass: &mut Pass, backoff: &mut Backoff) -> Result<Stream, End> {
        sleep(backoff.at_once()).await;
        loop {
            let resumed = match self.dial(pass.peer).await {
                Ok(ready) => self.resume_on(held, ready, pass).await,
                Err(error) => Err(NotResumed::Unknown(error)),
            };
            let error = match resumed {
                Ok(stream) => return Ok(stream),
                Err(NotResumed::Over) => return Err(End::Late),
                Err(NotResumed::Impossible(error)) => return Err(End::With(Detached::Protocol(error.to_string()))),
                Err(NotResumed::Refused(error) | NotResumed::Unknown(error)) => error,
            };
            let least = self.in_vain(&error);
            if matches!(error, ConnectError::Rejected { reason: "UNKNOWN", .. }) {
                return Err(End::Forgotten(error));
            }
            let tries = backoff.tries();
            let wait = backoff.next_wait().max(least);
            self.complain(&error, tries, wait);
            sleep(wait).await;
        }
    }

    /// Says how the tunnel ended, and when to register again.
    fn after(&self, end: End, process: GatewayProcess, calls: usize) -> Again {
        let gateway = self.gateway();
        match end {
            End::With(Detached::Closed(Close { code: CloseCode::Replaced, retry_after, .. })) => {
                Again::Replaced(process, retry_after.clamp(REPLACED_WAIT, LONGEST_WAIT))
            }
            End::With(detached) => {
                self.log(&detached);
                match detached {
                    Detached::Closed(close) => Again::After(close.retry_after.min(LONGEST_WAIT)),
                    Detached::Ended | Detached::Io(_) | Detached::Silent => Again::Soon,
                    _ => Again::After(Duration::ZERO),
                }
            }
            End::Late => {
                warn!(%gateway, "the tunnel is over, and its calls with it: the gateway could not be reached in time");
                Again::After(Duration::ZERO)
            }
            End::Forgotten(error) => {
                warn!(%gateway, calls, "the tunnel is over, and its calls with it: {error}");
                Again::Soon
            }
            End::Left => {
                info!(%gateway, "left while no stream was there");
                Again::Soon
            }
        }
    }

    /// Tells the gateway each change of health since it was told `told`.
    async fn tell_health(&self, tunnel: &TunnelHandle, mut told: Said) -> Infallible {
        let mut said = self.live.health.said();
        loop {
            let now = said.borrow_and_update().clone();
            if now != told {
                let Hello { weight, labels, .. } = &self.settings.hello;
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
                info!(gateway = %self.gateway(), health = ?now.health, not_serving, "told the gateway");
                told = now;
            }
            if said.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Once it is to leave: nothing new, what runs finishes, then the tunnel is closed; who carries it sees that.
    async fn finish(&self, tunnel: &TunnelHandle) -> Infallible {
        let by = self.leaving.said().await;
        let was_idle = tunnel.is_idle();
        tunnel.drain();
        let done = async {
            // Drain is acked like any batch: until then calls may come that the gateway sent before it knew.
            while !tunnel.is_settled() {
                // Nobody is there to be told, and nothing but that was to be said.
                if !self.seat.is_attached() && tunnel.open_calls() == 0 && (was_idle || tunnel.is_idle()) {
                    break;
                }
                sleep(DRAIN_TICK).await;
            }
        };
        let code = match timeout_at(by, done).await {
            Ok(()) => CloseCode::NoError,
            Err(_) => {
                let calls = tunnel.open_calls();
                warn!(gateway = %self.gateway(), calls, "calls still run after the drain timeout; they end now");
                CloseCode::Shutdown
            }
        };
        let reason = "the instance leaves".to_owned();
        tunnel.close(Close { code, reason, retry_after: Duration::ZERO });
        pending().await
    }

    /// Once the gateway drains and another has a tunnel: stays while calls come, of clients that have not heard of it yet,
    /// and drains when none has run for a while; who carries it sees that. With no other gateway it stays to the end.
    async fn move_on(&self, tunnel: &TunnelHandle) -> Infallible {
        self.seat.drains().await;
        self.seat.elsewhere().await;
        let mut quiet = Instant::now();
        while quiet.elapsed() < LATE_CALLS {
            if !tunnel.is_settled() {
                quiet = Instant::now();
            }
            sleep(DRAIN_TICK).await;
        }
        // A call that crosses this is refused, and goes to another instance.
        tunnel.drain();
        settled(tunnel).await;
        let reason = "the gateway drains, and there is another".to_owned();
        tunnel.close(Close { code: CloseCode::NoError, reason, retry_after: Duration::ZERO });
        pending().await
    }

    fn log(&self, detached: &Detached) {
        let gateway = &self.gateway();
        match detached {
            Detached::ClosedHere => info!(%gateway, "the tunnel is closed"),
            Detached::Closed(Close { code: CloseCode::PermissionDenied, .. }) => {
                warn!(%gateway, "the gateway does not let this instance stay: {detached}");
            }
            Detached::Closed(_) => info!(%gateway, "the tunnel ended: {detached}"),
            _ => warn!(%gateway, "the tunnel was lost: {detached}; the calls in it have ended"),
        }
    }
}

/// Waits until no call runs and the gateway has taken all that was said.
async fn settled(tunnel: &TunnelHandle) {
    while !tunnel.is_settled() {
        sleep(DRAIN_TICK).await;
    }
}

/// A tunnel that the backend counts and the other connectors see, for as long as this lives. Then it is over, and every
/// handler in it is dropped.
struct Standing<'a> {
    seat: &'a Seat,
    tunnel: TunnelHandle,
    _up: Up,
}

impl<'a> Standing<'a> {
    fn new(connector: &'a Connector, tunnel: TunnelHandle, process: GatewayProcess) -> Self {
        let _up = connector.live.tunnel_up(tunnel.clone());
        connector.seat.up(process);
        Self { seat: &connector.seat, tunnel, _up }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let (code, reason) = (CloseCode::Shutdown, String::new());
        self.tunnel.close(Close { code, reason, retry_after: Duration::ZERO });
        self.seat.down();
    }
}

/// How long to leave a gateway alone that gave this instance's id to another process: dialling at once would take it
/// back, and so on without end.
const REPLACED_WAIT: Duration = Duration::from_secs(5);

/// How long no call must have run for a draining gateway to be left: longer than the way of its clients' GOAWAY there and
/// back, and of the last calls behind it.
const LATE_CALLS: Duration = Duration::from_secs(2);

/// How often a draining tunnel is asked whether it is done.
const DRAIN_TICK: Duration = Duration::from_millis(5);
