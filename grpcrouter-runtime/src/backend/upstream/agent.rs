//! The agent: a backend for whatever services an upstream turns out to have, made anew when they change.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::discover::{DiscoverError, Found, discover};
use super::link::{Link, State};
use super::{Attended, Upstream};
use crate::backend::{Backend, BackendBuilder};
use crate::backoff::Backoff;
use crate::error::{ConfigError, ServeError};

/// A backend in front of an [`Upstream`] whose services are asked for: `grpcrouter agent` as a library.
///
/// It waits for the upstream, asks its reflection (`grpc.reflection.v1`, else `v1alpha`) for the services and their
/// descriptors, unless they are named, and registers them. When the upstream comes back with other services, a new backend
/// registers them under the same instance id, and the one before finishes its calls.
///
/// ```no_run
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// use grpcrouter_runtime::{Agent, Backend, Upstream};
///
/// let settings = || Backend::builder().gateway("http://gateway:8080").instance_id("a");
/// Agent::new(Upstream::new("127.0.0.1:50051"), settings)?.serve(tokio::signal::ctrl_c()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Agent {
    upstream: Upstream,
    link: Link,
    settings: Arc<dyn Fn() -> BackendBuilder + Send + Sync>,
    instance_id: String,
    /// What is registered now.
    registered: Arc<watch::Sender<Vec<Arc<str>>>>,
}

/// Why an agent does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// What the upstream has cannot be offered.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The backend could not go on.
    #[error(transparent)]
    Serve(#[from] ServeError),

    /// Nobody says which services there are.
    #[error(
        "the services of the upstream {upstream} are not known: {why}; name each of them (--service package.Service, or \
         Upstream::service), or switch on the server's reflection"
    )]
    NoServices {
        /// Its address.
        upstream: String,
        /// What it answered.
        why: String,
    },
}

impl Agent {
    /// An agent for `upstream`. `settings` makes the builder of its backend, once for each time that the services change: all
    /// but the services and their descriptors.
    ///
    /// # Errors
    /// The address of the upstream is none, or the settings cannot be used.
    pub fn new(
        upstream: Upstream,
        settings: impl Fn() -> BackendBuilder + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let link = upstream.link()?;
        // Whatever is wrong with the settings shall be known before the upstream is there.
        let probe = Found { services: vec![NOT_KNOWN_YET.into()], descriptors: None };
        let instance_id = attend(settings(), &link, &probe).build()?.instance_id().to_owned();
        Ok(Self { upstream, link, settings: Arc::new(settings), instance_id, registered: Arc::default() })
    }

    /// The name of its backend among its like: the one that was set, or the one that was made up.
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// The full names of what is registered at each gateway now; empty while nothing is.
    pub fn services(&self) -> Vec<String> {
        self.registered.borrow().iter().map(ToString::to_string).collect()
    }

    /// Waits until the services are registered at each gateway. That takes a [`serve`](Self::serve) that runs beside it.
    ///
    /// # Cancel safety
    /// Dropping the future early leaves no trace.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut registered = self.registered.subscribe();
        async move {
            // The sender lives as long as the agent serves.
            let _ = registered.wait_for(|services| !services.is_empty()).await;
        }
    }

    /// Serves until `shutdown` resolves, then drains as [`Backend::serve`] does, and returns. An upstream or a gateway that is
    /// not there is waited for; the log says so. Once at a time.
    ///
    /// # Errors
    /// The upstream does not say which services it has, or they cannot be offered; a port to listen at cannot be taken.
    ///
    /// # Panics
    /// When it is polled outside of a tokio runtime, or in one without I/O and time.
    ///
    /// # Cancel safety
    /// Dropping the future ends everything at once: tunnels, connections and calls.
    pub async fn serve<F>(&self, shutdown: F) -> Result<(), AgentError>
    where
        F: Future + Send,
        F::Output: Send,
    {
        let mut shutdown = pin!(shutdown);
        // Outlives the backends: their calls go on while they drain.
        let mut link = JoinSet::new();
        link.spawn({
            let link = self.link.clone();
            async move { match link.run().await {} }
        });
        let mut round = tokio::select! {
            biased;
            _ = shutdown.as_mut() => return Ok(()),
            found = self.find() => Some(found?),
        };
        // The backend of now, and those before it that drain.
        let mut backends: JoinSet<Result<(), ServeError>> = JoinSet::new();
        let mut result = Ok(());
        while let Some((found, seen)) = round.take() {
            info!(upstream = %self.link.address(), services = %found.services.join(", "), "offering the services of the upstream");
            let backend = attend((self.settings)(), &self.link, &found).instance_id(&*self.instance_id).build()?;
            let stop = CancellationToken::new();
            backends.spawn(backend.serve(stop.clone().cancelled_owned()));
            let registered = self.registered(&backend, &found);
            tokio::select! {
                biased;
                _ = shutdown.as_mut() => {}
                other = self.other(&found, seen) => round = Some(other),
                never = registered => match never {},
                // A backend goes on for ever, unless it cannot listen.
                ended = failed(&mut backends) => result = Err(ended.into()),
            }
            self.registered.send_replace(Vec::new());
            stop.cancel();
        }
        while backends.join_next().await.is_some() {}
        result
    }

    /// What the upstream has, as soon as it is there, and by which connection it was told.
    async fn find(&self) -> Result<(Found, u64), AgentError> {
        let mut backoff = Backoff::new();
        loop {
            let number = self.up(0).await;
            match discover(&self.link, &self.upstream.services).await {
                Ok(found) => return Ok((found, number)),
                Err(error @ (DiscoverError::NoReflection | DiscoverError::Empty)) => {
                    let upstream = self.link.address().to_string();
                    return Err(AgentError::NoServices { upstream, why: error.to_string() });
                }
                Err(error) => {
                    warn!(upstream = %self.link.address(), "the services of the upstream are not known yet: {error}; asking again");
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Waits until the upstream has come back with anything but `found`.
    async fn other(&self, found: &Found, mut seen: u64) -> (Found, u64) {
        loop {
            let number = self.up(seen).await;
            match discover(&self.link, &self.upstream.services).await {
                Ok(other) if other != *found => return (other, number),
                Ok(_) => seen = number,
                Err(DiscoverError::Failed(why)) => {
                    warn!(upstream = %self.link.address(), "asking the upstream for its services again: {why}");
                    sleep(Backoff::new().next_wait()).await;
                }
                Err(error) => {
                    warn!(upstream = %self.link.address(), "offering the services of before: {error}");
                    seen = number;
                }
            }
        }
    }

    /// The number of the next connection after `seen`.
    async fn up(&self, seen: u64) -> u64 {
        let mut state = self.link.watch();
        loop {
            if let State::Up(open) = &*state.borrow_and_update()
                && open.number > seen
            {
                return open.number;
            }
            if state.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn registered(&self, backend: &Backend, found: &Found) -> std::convert::Infallible {
        backend.ready().await;
        self.registered.send_replace(found.services.clone());
        std::future::pending().await
    }
}

/// The first backend that ends with an error.
async fn failed(backends: &mut JoinSet<Result<(), ServeError>>) -> ServeError {
    loop {
        match backends.join_next().await {
            Some(Ok(Err(error))) => return error,
            // One that has drained, or was dropped.
            Some(_) => {}
            None => return std::future::pending().await,
        }
    }
}

fn attend(builder: BackendBuilder, link: &Link, found: &Found) -> BackendBuilder {
    let builder = builder.attending(Attended { link: link.clone(), services: found.services.clone(), drives: false });
    match &found.descriptors {
        Some(descriptors) => builder.descriptors(descriptors.clone()),
        None => builder,
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("upstream", &self.upstream)
            .field("instance_id", &self.instance_id)
            .field("services", &self.services())
            .finish_non_exhaustive()
    }
}

/// Stands for the services while settings are checked.
const NOT_KNOWN_YET: &str = "grpcrouter.NotKnownYet";
