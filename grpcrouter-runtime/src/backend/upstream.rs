//! Services of a gRPC server that knows nothing of gateways: calls go to it as they came, byte for byte.
//! [`Upstream`] says where it is; [`Agent`] finds out what it has.

mod address;
mod agent;
mod discover;
mod exchange;
mod link;
mod mirror;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use self::address::Address;
pub use self::agent::{Agent, AgentError};
use self::exchange::UpstreamService;
use self::link::Link;
use self::mirror::Mirror;
use super::BackendHealth;
use super::dispatch::Services;
use crate::error::ConfigError;

/// A gRPC server beside this process, in any language and unmodified, whose services a backend brings to a gateway.
///
/// All four kinds of calls go through as they come: a cancelled call is cancelled there, deadlines shrink by the time spent,
/// metadata, trailers and compression are untouched. One HTTP/2 connection without TLS is kept, and dialled again when it
/// ends; while there is none, calls fail UNAVAILABLE and the backend tells its gateways that it does not serve. What
/// `grpc.health.v1.Health` says there is told on as the backend's own health.
///
/// Given to [`BackendBuilder::upstream`](super::BackendBuilder::upstream) with its services named, or to an [`Agent`], which
/// asks for them.
///
/// ```no_run
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// use grpcrouter_runtime::{Backend, Upstream};
///
/// Backend::builder()
///     .gateway("http://gateway:8080")
///     .upstream(Upstream::new("127.0.0.1:50051").service("shop.Orders"))
///     .build()?
///     .serve(tokio::signal::ctrl_c())
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Upstream {
    address: String,
    services: Vec<Arc<str>>,
}

impl Upstream {
    /// The server at `address`: `HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`. Checked when the backend is built; nothing is
    /// dialled before it serves.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), services: Vec::new() }
    }

    /// A service that it has, by its full name, such as `shop.Orders`. May be given again.
    #[must_use = "a setting that is thrown away has no effect"]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.services.push(name.into().into());
        self
    }

    fn link(&self) -> Result<Link, ConfigError> {
        Ok(Link::new(Address::parse(&self.address)?))
    }
}

/// What a backend does for an upstream while it serves.
#[derive(Clone, Debug)]
pub(super) struct Attended {
    link: Link,
    services: Vec<Arc<str>>,
    /// False where an agent, which outlives the backend, does it.
    drives: bool,
}

impl Attended {
    /// Adds what upstreams have to `services`.
    ///
    /// # Errors
    /// An address is none; one names no service, or one that is there already.
    pub(super) fn add_all(
        upstreams: &[Upstream],
        attended: &[Self],
        services: &mut Services,
    ) -> Result<Vec<Self>, ConfigError> {
        let named = upstreams.iter().map(Self::of).collect::<Result<Vec<_>, _>>()?;
        attended.iter().cloned().chain(named).map(|each| each.added(services)).collect()
    }

    fn of(upstream: &Upstream) -> Result<Self, ConfigError> {
        if upstream.services.is_empty() {
            let why =
                "it names no service; name each with .service(\"package.Service\"), or let an Agent ask the server";
            return Err(ConfigError::setting("upstream", format!("{:?}", upstream.address), why));
        }
        Ok(Self { link: upstream.link()?, services: upstream.services.clone(), drives: true })
    }

    fn added(self, services: &mut Services) -> Result<Self, ConfigError> {
        for name in &self.services {
            if name.is_empty() || name.contains(['/', ' ']) || name.chars().any(char::is_control) {
                let why = "it is no full name of a service, such as package.Service";
                return Err(ConfigError::setting("service", format!("{name:?}"), why));
            }
            services
                .add_named(name.clone(), UpstreamService::new(self.link.clone()))
                .map_err(|service| ConfigError::DuplicateService { service: service.to_string() })?;
        }
        Ok(self)
    }

    /// Begins, and waits a moment until it is known whether the upstream serves: what is said of it at the gateway is then
    /// true from the start. The tasks end when `tasks` is dropped.
    pub(super) async fn start(&self, health: &BackendHealth, tasks: &mut JoinSet<()>) {
        let mirror = Mirror::new(self.link.clone(), &self.services, health.clone());
        let mut heard = mirror.heard();
        if self.drives {
            let link = self.link.clone();
            tasks.spawn(async move { match link.run().await {} });
        }
        tasks.spawn(async move { match mirror.run().await {} });
        let _ = timeout(HEARING, heard.wait_for(|heard| *heard)).await;
    }
}

/// An upstream that is there answers at once; one that is not is not waited for.
const HEARING: Duration = Duration::from_secs(1);
