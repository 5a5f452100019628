//! The backend: any tonic services, reached through a gateway that it dials, by a port of its own, or both.

mod answering;
mod builder;
mod check;
mod connector;
mod descriptors;
mod dial;
mod direct;
mod dispatch;
mod fleet;
mod health;
mod instance_call;
mod meters;
mod request_body;
mod roster;
#[cfg(feature = "agent")]
mod upstream;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grpcrouter_protocol::{Config, Hello};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::builder::BackendBuilder;
pub use self::check::{CheckedStep, CheckedTls, CheckedWelcome, GatewayCheck};
use self::dial::{Dialler, WayOut};
use self::direct::Direct;
use self::dispatch::Services;
use self::fleet::Fleet;
pub use self::health::BackendHealth;
use self::meters::Meters;
#[cfg(feature = "agent")]
pub use self::upstream::{Agent, AgentError, Upstream};
use crate::error::ServeError;
use crate::tunnel::TunnelHandle;

/// A backend: services that are reached through a gateway, directly, or both.
///
/// It dials out, so it may sit behind a firewall or NAT where nothing can dial in. Clones are the same backend.
///
/// ```no_run
/// # use std::convert::Infallible;
/// # use tonic::{body::Body, codegen::{http, Service}, server::NamedService};
/// # async fn serve<S>(my_service: S) -> Result<(), Box<dyn std::error::Error>>
/// # where
/// #     S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
/// #         + NamedService + Clone + Send + Sync + 'static,
/// #     S::Future: Send + 'static,
/// # {
/// use grpcrouter_runtime::Backend;
///
/// Backend::builder()
///     .gateway("http://gateway:8080")
///     .instance_id("a")
///     .add_service(my_service)
///     .build()?
///     .serve(tokio::signal::ctrl_c())
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Backend {
    settings: Arc<Settings>,
    live: Arc<Live>,
}

/// What a backend does right now. All of it is zero once [`Backend::serve`] has returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendStats {
    /// Tunnels to gateways; those that wait for a new connection among them.
    pub tunnels: usize,
    /// Calls in the hands of the services, however they came.
    pub calls: usize,
    /// Bytes of answers that wait in tunnels, for credit or for the connection.
    pub queued_bytes: usize,
}

impl Backend {
    /// Begins to set up a backend.
    pub fn builder() -> BackendBuilder {
        BackendBuilder::new()
    }

    /// Serves until `shutdown` resolves (with whatever), then takes no new call, lets what runs finish for as long as
    /// the drain timeout, and returns.
    ///
    /// A gateway that is not there, or goes away, is dialled again for ever; the log says why and when.
    ///
    /// Once at a time: a second one beside it would register under the same name and be sent the first one's calls. When
    /// it has returned, the backend may be served again.
    ///
    /// # Errors
    /// The address to listen at cannot be taken.
    ///
    /// # Panics
    /// When it is polled outside of a tokio runtime, or in one without I/O and time: build it with `enable_all()`.
    ///
    /// # Cancel safety
    /// Dropping the future ends everything at once: tunnels, connections and handlers.
    pub fn serve<F>(&self, shutdown: F) -> impl Future<Output = Result<(), ServeError>> + Send + use<F>
    where
        F: Future + Send,
        F::Output: Send,
    {
        let backend = self.clone();
        async move {
            let mut ways = JoinSet::new();
            // Dropped with this future; then it cancels as well.
            let stop = CancellationToken::new();
            backend.live.health.stops(false);
            // Until all has drained; then it ends.
            #[cfg(feature = "agent")]
            let mut attending = JoinSet::new();
            #[cfg(feature = "agent")]
            for upstream in &backend.settings.upstreams {
                upstream.start(&backend.live.health, &mut attending).await;
            }
            backend.start(&mut ways, &stop).await?;
            {
                let mut shutdown = pin!(shutdown);
                tokio::select! {
                    _ = shutdown.as_mut() => {}
                    Some(ended) = ways.join_next() => {
                        // A way in goes on for ever, unless it panics.
                        if let Err(panic) = ended {
                            tracing::error!(%panic, "a way into the backend broke; stopping");
                        }
                    }
                }
            }
            info!(calls = backend.live.tasks.len(), "stopping: no new calls, what runs may finish");
            backend.live.health.stops(true);
            stop.cancel();
            while ways.join_next().await.is_some() {}
            // Every call has ended; its handler goes as soon as it gives way.
            backend.live.tasks.close();
            if tokio::time::timeout(HARD_TIMEOUT, backend.live.tasks.wait()).await.is_err() {
                warn!(calls = backend.live.tasks.len(), "handlers that block their thread are left behind");
            }
            backend.live.tasks.reopen();
            Ok(())
        }
    }

    /// Waits until every way in is open: the port is listened at, and each gateway that was set has a tunnel. That takes a
    /// [`serve`](Self::serve) that runs beside it, and for ever if a gateway never comes.
    ///
    /// # Cancel safety
    /// Dropping the future early leaves no trace.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let expected = self.settings.gateways.len() + usize::from(self.settings.listen.is_some());
        let mut open = self.live.open.subscribe();
        async move {
            // The sender lives as long as any clone of the backend.
            let _ = open.wait_for(|open| *open >= expected).await;
        }
    }

    /// The name of this backend among its like, that a routing key must have to reach it: the one that was set, or the
    /// one that was made up.
    pub fn instance_id(&self) -> &str {
        self.settings.hello.instance_id.as_str()
    }

    /// Where it listens for direct calls, once [`ready`](Self::ready), with the port that the system chose if it was to
    /// choose. None while it does not listen.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.live.state().listening
    }

    /// Where to say that it, or one of its services, cannot serve now.
    pub fn health(&self) -> BackendHealth {
        self.live.health.clone()
    }

    /// Moves each tunnel to a new connection, with all calls in it: none ends, and nothing is sent twice. For what a
    /// connection keeps as long as it lives: a client certificate that was renewed, an address that its name leads to no
    /// more, a network that changed. Returns at once; the log tells what came of it. A tunnel stays where it is for as long
    /// as there is no better connection.
    pub fn reconnect(&self) {
        self.live.moves.send_replace(());
    }

    /// What it does right now, to watch it or to check that nothing leaks. Takes the lock of each tunnel for a moment: for
    /// every second, not for every call.
    pub fn stats(&self) -> BackendStats {
        let tunnels: Vec<TunnelHandle> = self.live.state().tunnels.iter().map(|(_, tunnel)| tunnel.clone()).collect();
        BackendStats {
            tunnels: tunnels.len(),
            calls: self.live.tasks.len(),
            queued_bytes: tunnels.iter().map(TunnelHandle::queued_bytes).sum(),
        }
    }

    fn new(settings: Settings, live: Live) -> Self {
        Self { settings: Arc::new(settings), live: Arc::new(live) }
    }

    async fn start(&self, ways: &mut JoinSet<()>, stop: &CancellationToken) -> Result<(), ServeError> {
        let settings = &self.settings;
        if let Some(address) = &settings.listen {
            let listener = TcpListener::bind(address).await.map_err(|error| ServeError::listen(address, error))?;
            let local = listener.local_addr().map_err(|error| ServeError::listen(address, error))?;
            info!(address = %local, "listening for direct calls");
            let direct = Direct {
                listener,
                services: settings.services.clone(),
                tasks: self.live.tasks.clone(),
                meters: self.live.meters.clone(),
                drain_timeout: settings.drain_timeout,
            };
            let listening = (self.live.listening(local), self.live.way_open());
            let stop = stop.clone();
            ways.spawn(async move {
                direct.run(stop).await;
                drop(listening);
            });
        }
        if !settings.gateways.is_empty() {
            let fleet = Fleet { settings: settings.clone(), live: self.live.clone() };
            ways.spawn(fleet.run(stop.clone()));
        }
        Ok(())
    }
}

/// How long a handler whose call has ended may keep [`Backend::serve`] from returning: only one that blocks does so.
const HARD_TIMEOUT: Duration = Duration::from_secs(1);

/// What was set, checked.
#[derive(Debug)]
struct Settings {
    gateways: Vec<Dialler>,
    /// The way to the gateways that those name; None: they are not followed.
    followed_by: Option<WayOut>,
    listen: Option<String>,
    hello: Hello,
    config: Config,
    services: Arc<Services>,
    drain_timeout: Duration,
    #[cfg(feature = "agent")]
    upstreams: Vec<upstream::Attended>,
}

/// What lives at the moment.
#[derive(Debug)]
struct Live {
    /// One for each call.
    tasks: TaskTracker,
    /// How many of the ways in that were set are open.
    open: watch::Sender<usize>,
    /// Asks every tunnel to move to another connection.
    moves: watch::Sender<()>,
    meters: Arc<Meters>,
    health: BackendHealth,
    state: Mutex<LiveState>,
}

#[derive(Debug, Default)]
struct LiveState {
    tunnels: Vec<(u64, TunnelHandle)>,
    tunnels_ever: u64,
    listening: Option<SocketAddr>,
}

impl Live {
    fn new(meters: Meters, health: BackendHealth) -> Self {
        let (tasks, open, moves) = (TaskTracker::new(), watch::Sender::new(0), watch::Sender::new(()));
        Self { tasks, open, moves, meters: Arc::new(meters), health, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a tunnel until the guard goes.
    fn tunnel_up(self: &Arc<Self>, tunnel: TunnelHandle) -> Up {
        let mut state = self.state();
        state.tunnels_ever += 1;
        let id = state.tunnels_ever;
        state.tunnels.push((id, tunnel));
        drop(state);
        self.meters.tunnel.came();
        Up { live: self.clone(), what: What::Tunnel(id) }
    }

    /// Says where the port is until the guard goes.
    fn listening(self: &Arc<Self>, address: SocketAddr) -> Up {
        self.state().listening = Some(address);
        Up { live: self.clone(), what: What::Port }
    }

    /// Counts a way in that was set until the guard goes.
    fn way_open(self: &Arc<Self>) -> Up {
        self.open.send_modify(|open| *open += 1);
        Up { live: self.clone(), what: What::Way }
    }
}

/// What is there until this goes.
#[derive(Debug)]
struct Up {
    live: Arc<Live>,
    what: What,
}

#[derive(Debug)]
enum What {
    Tunnel(u64),
    Port,
    Way,
}

impl Drop for Up {
    fn drop(&mut self) {
        match self.what {
            What::Tunnel(id) => {
                self.live.state().tunnels.retain(|(other, _)| *other != id);
                self.live.meters.tunnel.went();
            }
            What::Port => self.live.state().listening = None,
            What::Way => self.live.open.send_modify(|open| *open = open.saturating_sub(1)),
        }
    }
}
