//! Keeps one tunnel to one gateway: dials, says Hello, carries calls over one stream after the other, and dials again for
//! ever.

mod held;
mod stream;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grpcrouter_protocol::{Accepted, Hello, Resume};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use self::stream::{Ready, Stream};
use super::dial::{GatewayAddress, Moving, Trail, Welcomed};
use super::health::Said;
use super::roster::{GatewayProcess, Listing, Seat};
use super::{Live, Settings};
use crate::backoff::Backoff;
use crate::error::ConnectError;

/// The side that dials out.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) seat: Arc<Seat>,
    /// Whether its gateway was set, and not named by another.
    pub(super) is_set: bool,
    pub(super) settings: Arc<Settings>,
    pub(super) live: Arc<Live>,
    pub(super) leaving: Leaving,
}

/// Whether to go, and until when what runs may finish.
#[derive(Debug, Clone)]
pub(super) struct Leaving(pub(super) watch::Receiver<Option<Instant>>);

/// When to register again.
#[derive(Debug)]
enum Again {
    /// At once, unless that was in vain before.
    Soon,
    /// After the usual wait, and no less than this.
    After(Duration),
    /// No sooner than this, for another tunnel of this instance id is at this gateway now. If it is one of our own, under
    /// another name of the gateway: when that is gone.
    Replaced(GatewayProcess, Duration),
}

/// A gateway let this instance in.
struct Registered {
    accepted: Accepted,
    stream: Stream,
    /// What Hello said.
    said: Said,
}

impl Connector {
    /// Runs until it is to leave, and on until the calls of that moment have finished or their time is over.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new();
        // As long as there is a tunnel, be it under another name.
        let mut way = None;
        while !self.leaving.is_said() {
            let began = Instant::now();
            let (again, problem) = match self.register().await {
                None => return,
                Some(Ok(registered)) => {
                    way.get_or_insert_with(|| self.is_set.then(|| self.live.way_open()));
                    (self.hold(registered).await, None)
                }
                Some(Err(error)) => (Again::After(self.in_vain(&error)), Some(error)),
            };
            if self.leaving.is_said() {
                return;
            }
            // A tunnel that held for a while was a success; one that broke at once was not.
            if began.elapsed() > STABLE {
                backoff.reset();
            }
            let tries = backoff.tries() + 1;
            let wait = match again {
                Again::Soon => backoff.at_once(),
                Again::After(least) => backoff.next_wait().max(least),
                Again::Replaced(process, least) => match self.leaving.or(self.has_twin(process, least)).await {
                    None => return,
                    Some(true) => {
                        info!(gateway = %self.gateway(), "this gateway has a tunnel under another name; one is enough");
                        if self.leaving.or(self.seat.twin_goes(process)).await.is_none() {
                            return;
                        }
                        backoff.at_once()
                    }
                    Some(false) => {
                        warn!(
                            gateway = %self.gateway(), instance = %self.settings.hello.instance_id,
                            "another process took over this instance id; give each process its own with .instance_id(..)"
                        );
                        if self.seat.is_alone() { backoff.next_wait().max(least) } else { backoff.next_wait() }
                    }
                },
            };
            way = None;
            // One line for each dial.
            match problem {
                Some(error) => self.complain(&error, tries, wait),
                None => info!(gateway = %self.gateway(), wait_ms = wait.as_millis(), "dialling again"),
            }
            if self.leaving.or(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    fn gateway(&self) -> &GatewayAddress {
        &self.seat.dialler.gateway
    }

    /// Of a gateway that is dialled because another names it, and that cannot be reached from here, every line would be
    /// the same: they become fewer.
    fn complain(&self, error: &ConnectError, tries: u32, wait: Duration) {
        let (gateway, step, wait_ms) = (self.gateway(), error.step().as_str(), wait.as_millis());
        if self.is_set {
            warn!(%gateway, step, tries, wait_ms, "{error}");
        } else if tries.is_power_of_two() {
            warn!(
                %gateway, step, tries, wait_ms,
                "{error} (it is dialled since another gateway names it; .follow_gateways(false) or \
                 --no-follow-gateways turns that off)"
            );
        } else {
            debug!(%gateway, step, tries, wait_ms, "{error}");
        }
    }

    /// Whether another connector has a tunnel to this process, or will have one within `least`: it may be about to hear its
    /// Welcome.
    async fn has_twin(&self, process: GatewayProcess, least: Duration) -> bool {
        !self.seat.is_alone() && timeout(least, self.seat.twin_comes(process)).await.is_ok()
    }

    /// A dial led to no stream: counts it, and hears where it may be better. How long the gateway wants to be left alone.
    fn in_vain(&self, error: &ConnectError) -> Duration {
        self.live.meters.not_registered(error);
        match error {
            ConnectError::Rejected { gateways, retry_after, .. } => {
                self.seat.named(gateways, Listing::Hint);
                (*retry_after).min(LONGEST_WAIT)
            }
            _ => Duration::ZERO,
        }
    }

    /// Dials, says Hello and hears Welcome. None if it was to leave before Hello.
    ///
    /// From Hello on the gateway may send calls, before Welcome is here: an instance that went away without a word would
    /// lose them. So who is to leave then waits for Welcome, at most until its time is over, and drains.
    async fn register(&self) -> Option<Result<Registered, ConnectError>> {
        let ready = match self.leaving.or(self.dial(None)).await? {
            Ok(ready) => ready,
            Err(error) => return Some(Err(error)),
        };
        let (hello, said) = self.hello(None);
        let greeted = tokio::select! {
            biased;
            greeted = ready.say(&self.seat.dialler, &hello) => greeted,
            () = self.leaving.over() => return None,
        };
        Some(match greeted {
            Ok((Welcomed::Accepted(accepted), stream)) => Ok(Registered { accepted, stream, said }),
            Ok((Welcomed::Resumed(_), _)) => Err(self.seat.dialler.unasked()),
            Err(error) => Err(error),
        })
    }

    /// All steps up to Hello. Where a name leads to several gateways, the one at `peer` is tried first.
    async fn dial(&self, peer: Option<SocketAddr>) -> Result<Ready, ConnectError> {
        let dialler = &self.seat.dialler;
        let due = Instant::now() + dialler.timeout;
        let mut trail = Trail::new(dialler.timeout).preferring(peer);
        let (dialled, connection) = dialler.dial(due, &mut trail).await?;
        Ok(Ready { dialled, connection: Box::pin(driven(connection)), trail, due })
    }

    /// What to say of this instance, and what that says of its health.
    fn hello(&self, resume: Option<Resume>) -> (Hello, Said) {
        let said = self.live.health.said().borrow().clone();
        let mut hello = Hello { health: said.health, resume, ..self.settings.hello.clone() };
        hello.services.iter_mut().for_each(|offer| offer.not_serving = said.is_ill(&offer.name));
        (hello, said)
    }
}

impl Leaving {
    fn is_said(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until it is said. Gives back until when what runs may finish.
    async fn said(&self) -> Instant {
        match self.0.clone().wait_for(Option::is_some).await.map(|by| *by) {
            Ok(Some(by)) => by,
            // Whoever would say so is gone, and this with it in a moment.
            _ => pending().await,
        }
    }

    /// Waits until nothing may run any more.
    async fn over(&self) {
        sleep_until(self.said().await).await;
    }

    /// What `future` gives, or None if it is said before.
    async fn or<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.said() => None,
            done = future => Some(done),
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

/// How long a stream must have held for the next dial to be at once again: one that is cut every second costs a dial a
/// second, and one that is cut each time costs the usual waits.
const STABLE: Duration = Duration::from_secs(1);

/// However long a gateway asks to be left alone: one that says so by mistake must not be left alone for good.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
