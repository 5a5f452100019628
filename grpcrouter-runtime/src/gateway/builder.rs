//! Sets what a gateway is to be; `build()` checks it once.

mod connections;
#[cfg(feature = "callers")]
mod gate;
mod peers;
mod registration;
mod services;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use grpcrouter_protocol::{Config, WindowPool};
use tokio::sync::watch;

use super::{
    Gateway, GatewayCore, Limits,
    admission::Admission,
    arrivals::Arrivals,
    connection::Times,
    doors::Doors,
    health,
    meters::Meters,
    own::OwnServices,
    reflection::{self, Reflection},
    register::Resumable,
    registry::{InstanceChange, OnChange, Registry},
    retries::{Retries, RetryBudget},
    route::Routes,
    service_routes::ServiceRoutes,
    stats::Counts,
    tls::GatewayTls,
};
use crate::{clock, codegen::Router, error::ConfigError};

/// Sets up a [`Gateway`]. Nothing is checked before [`build`](Self::build).
///
/// # Examples
/// ```no_run
/// # use grpcrouter_runtime::{ConfigError, Gateway, codegen::Router};
/// # fn example<OrdersRouter: Router, StockRouter: Router>() -> Result<Gateway, ConfigError> {
/// Gateway::builder()
///     .add_router::<OrdersRouter>()
///     .add_router::<StockRouter>()
///     .drain_timeout(std::time::Duration::from_secs(10))
///     .build()
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is built before build()"]
pub struct GatewayBuilder {
    eject_after: u32,
    on_change: Vec<OnChange>,
    services: Vec<ServiceRoutes>,
    descriptors: Vec<Bytes>,
    any_service: Option<ServiceRoutes>,
    drain_timeout: Duration,
    tls: Option<GatewayTls>,
    times: Times,
    max_connections: usize,
    max_connections_per_address: usize,
    max_calls: usize,
    max_open_calls: u32,
    resume_window: Duration,
    max_message_size: usize,
    max_parked_calls: usize,
    window_memory: u64,
    retry_budget: RetryBudget,
    health: bool,
    reflection: bool,
    max_health_watches: usize,
    admin_beyond_loopback: bool,
    said: registration::Said,
    said_of_peers: peers::Said,
    #[cfg(feature = "callers")]
    callers: Option<super::callers::Callers>,
}

impl GatewayBuilder {
    pub(super) fn new() -> Self {
        Self {
            services: Vec::new(),
            descriptors: Vec::new(),
            any_service: None,
            drain_timeout: DRAIN_TIMEOUT,
            tls: None,
            times: Times::default(),
            max_connections: MAX_CONNECTIONS,
            max_connections_per_address: connections::MAX_CONNECTIONS_PER_ADDRESS,
            max_calls: MAX_CALLS,
            eject_after: EJECT_AFTER,
            on_change: Vec::new(),
            max_open_calls: Config::default().max_open_calls,
            resume_window: RESUME_WINDOW,
            max_message_size: usize::MAX,
            max_parked_calls: MAX_PARKED_CALLS,
            window_memory: WINDOW_MEMORY,
            retry_budget: RetryBudget::default(),
            health: true,
            reflection: true,
            max_health_watches: MAX_HEALTH_WATCHES,
            admin_beyond_loopback: false,
            said: registration::Said::default(),
            said_of_peers: peers::Said::default(),
            #[cfg(feature = "callers")]
            callers: None,
        }
    }

    /// Serves the service of a generated router: its methods, its prefix, its routing, as the proto file says. Once for
    /// each service.
    pub fn add_router<R: Router>(mut self) -> Self {
        self.services.push(ServiceRoutes::generated(R::SPEC));
        self
    }

    /// Serves a service that has no generated router, by what is said of it here. Once for each service.
    pub fn add_service(mut self, routes: ServiceRoutes) -> Self {
        self.services.push(routes);
        self
    }

    /// How long running calls may go on when the gateway is told to stop; then they end UNAVAILABLE. Default 30 s: longer
    /// than usual calls, and as long as orchestrators wait before they kill. Zero: they end at once.
    pub fn drain_timeout(mut self, value: Duration) -> Self {
        self.drain_timeout = value;
        self
    }

    /// How many connections of clients and instances [`Gateway::serve`] holds at once; one more is closed at once.
    /// Default 10,000, at least 1. An idle connection costs about 20 KiB; what its calls may cost comes on top.
    pub fn max_connections(mut self, value: usize) -> Self {
        self.max_connections = value;
        self
    }

    /// How many calls are open at once in all; one more is answered RESOURCE_EXHAUSTED, and was not sent. At least 1.
    /// Default 50,000: an open call costs some KiB, and at worst 480 KiB beside
    /// [`window_memory`](Self::window_memory) if neither its client nor its instance reads: what the client sent ahead
    /// (256 KiB), a window each way (64 KiB), what the HTTP/2 library holds for the client (64 KiB), and metadata (32
    /// KiB).
    pub fn max_calls(mut self, value: usize) -> Self {
        self.max_calls = value;
        self
    }

    /// How many calls one tunnel carries at once; an instance may ask for less. 1 to 1,048,576, default 1024. A call whose client or
    /// instance does not read may hold a window of 64 KiB in each direction, and its part of
    /// [`window_memory`](Self::window_memory).
    pub fn max_open_calls(mut self, value: u32) -> Self {
        self.max_open_calls = value;
        self
    }

    /// How long the calls of an instance are kept after its connection was lost; they go on when it has dialled again,
    /// which takes it milliseconds if the way is there. Default 15 s: longer than a router takes to start anew, and not
    /// longer than clients are patient. At most 300 s; zero: its calls end at once, as they do after this time,
    /// UNAVAILABLE. An instance that is away gets no new calls; what it may have in memory here is up to 16 MiB of what it
    /// has not acknowledged, and the windows of its calls.
    pub fn resume_window(mut self, value: Duration) -> Self {
        self.resume_window = value;
        self
    }

    /// The longest message that a call may carry in either direction, in bytes as they travel. Default none: messages
    /// pass through piece by piece, so a long one costs the gateway no more memory than a short one, and the limits of
    /// client and service hold. A longer message ends its call with RESOURCE_EXHAUSTED as soon as its length is known,
    /// before any of it is passed on.
    pub fn max_message_size(mut self, value: usize) -> Self {
        self.max_message_size = value;
        self
    }

    /// How many calls wait at once for an instance to come, where the option `wait_for_instance` says that they may, or for
    /// two seconds where the only instance has just lost its connection; one more is answered RESOURCE_EXHAUSTED at once.
    /// Default 1,000: a fleet that restarts keeps its callers for a moment, a service that nobody runs does not fill the
    /// memory. A call that waits costs some KiB and what its client has sent, at most 256 KiB. Zero: none waits, for whatever reason.
    pub fn max_parked_calls(mut self, value: usize) -> Self {
        self.max_parked_calls = value;
        self
    }

    /// How many bytes the windows of all calls may take beyond their first 64 KiB. A window doubles, up to 4 MiB, while
    /// its client reads faster than the way to the instance and back lets more come; so long ways cost no speed. A tunnel
    /// takes at most 64 MiB of it, and nobody more than is left for the others. Default 512 MiB: what is not needed is
    /// not used. Zero: windows stay as they are.
    pub fn window_memory(mut self, bytes: u64) -> Self {
        self.window_memory = bytes;
        self
    }

    /// How many calls may go to another instance after one gave them back or was lost with them, for each service that
    /// instances register. Default 20 % of its calls and 10 a second; a call beyond that ends UNAVAILABLE, with its
    /// outcome.
    pub fn retry_budget(mut self, value: RetryBudget) -> Self {
        self.retry_budget = value;
        self
    }

    /// Whether [`Gateway::serve`] answers `grpc.health.v1.Health`, as [`Gateway::health_service`] says. Default true. A
    /// router of your own for that service comes before it.
    pub fn health(mut self, on: bool) -> Self {
        self.health = on;
        self
    }

    /// How many Watch calls of `grpc.health.v1.Health` are open at once; one more is answered RESOURCE_EXHAUSTED. Default
    /// 10,000, as many as there may be connections. One costs some KiB, whether its client reads or not.
    pub fn max_health_watches(mut self, value: usize) -> Self {
        self.max_health_watches = value;
        self
    }

    /// Whether [`Gateway::serve_admin`] may listen at an address that is not a loopback one. Default false: whoever reaches
    /// it learns who is connected, and there are no credentials.
    pub fn admin_beyond_loopback(mut self, may: bool) -> Self {
        self.admin_beyond_loopback = may;
        self
    }

    /// How many calls of an instance must fail in a row, none answered in between, for the gateway to leave it out for a
    /// while: 10 seconds at first, longer if it goes on, then it is let in step by step. Default 10, zero: never.
    ///
    /// A failure is UNAVAILABLE, INTERNAL or UNKNOWN from the service itself, or a broken protocol. Only one that fails
    /// by itself is left out, never more than half of a service's instances, and never the only one that has a key.
    pub fn eject_after(mut self, failures: u32) -> Self {
        self.eject_after = failures;
        self
    }

    /// Whether clients may ask for the descriptors of the services, `grpc.reflection.v1.ServerReflection` and v1alpha, as
    /// `grpcurl`, `buf curl` and others do before they call. Default yes: whoever may call a service may know its shape.
    /// They are those of generated code and those that instances offer. A router of your own for that service comes
    /// before it.
    pub fn reflection(mut self, enable: bool) -> Self {
        self.reflection = enable;
        self
    }

    /// Calls `callback` with each change among the instances. Where the change happens, so it must not take long: what
    /// takes long reads [`Gateway::watch`] in a task of its own. May be set several times.
    pub fn on_change(mut self, callback: impl Fn(&InstanceChange) + Send + Sync + 'static) -> Self {
        self.on_change.push(OnChange::new(callback));
        self
    }

    /// Checks all that was set.
    ///
    /// # Errors
    /// Nothing to serve; an option of a proto file that this version does not serve or that cannot be meant; two routers
    /// for one path; a limit that cannot work.
    pub fn build(self) -> Result<Gateway, ConfigError> {
        let services = self.all_services()?;
        if self.max_calls == 0 {
            return Err(ConfigError::setting("max_calls", 0, "nothing could be called: use 1 or more"));
        }
        self.check_connections()?;
        self.check_exposure()?;
        let peers = self.said_of_peers.peers()?;
        let tunnel = self.tunnel()?;
        let routes = Routes::new(&services, self.any_service.as_ref())?;
        let registry = Registry::new(routes.balancings(), routes.room(), self.eject_after, self.on_change);
        let meters = Meters::new(&routes);
        let retries = Retries::new(self.retry_budget, routes.balancings().count(), routes.room(), clock::now());
        let windows = WindowPool::new(self.window_memory);
        let limits = Limits {
            drain_timeout: self.drain_timeout,
            max_connections: self.max_connections,
            max_connections_per_address: self.max_connections_per_address,
            times: self.times,
            max_calls: self.max_calls,
            max_message_size: self.max_message_size,
            max_parked_calls: self.max_parked_calls,
            admin_beyond_loopback: self.admin_beyond_loopback,
            tunnel,
        };
        let admission = Admission::new(self.said.policy)?;
        let doors = Doors {
            address: self.said.listen,
            may_be_exposed: self.said.insecure,
            register_elsewhere: self.said.register_elsewhere,
            register_tls: self.said.register_tls.map(GatewayTls::open).transpose()?.map(Arc::new),
        };
        let tls = self.tls.map(GatewayTls::open).transpose()?.map(Arc::new);
        let counts = Counts::default();
        let book = watch::Sender::new(health::services(&routes, &registry));
        let health = health::service(book.subscribe(), &counts, self.max_health_watches);
        let mut own = OwnServices::default();
        if self.health {
            own.add(health.clone());
        }
        let reflection = self.reflection.then(|| Arc::new(Reflection::new(&services, own.names())));
        reflection.iter().flat_map(reflection::services).for_each(|service| own.add(service));
        // What users route themselves is theirs.
        own.leave(&routes);
        #[cfg(not(feature = "callers"))]
        let gate = None;
        #[cfg(feature = "callers")]
        let gate = self.callers.map(|callers| callers.gate()).transpose()?;
        let core = GatewayCore {
            process: rand::random(),
            arrivals: Arrivals::default(),
            tls,
            routes,
            registry,
            counts,
            windows,
            meters,
            retries,
            book,
            health,
            own,
            reflection,
            gate,
            doors,
            admission,
            peers,
            resumable: Resumable::default(),
            limits,
        };
        Ok(Gateway { core: Arc::new(core) })
    }
}

impl GatewayBuilder {
    /// What holds for each tunnel.
    fn tunnel(&self) -> Result<Config, ConfigError> {
        let config =
            Config { max_open_calls: self.max_open_calls, resume_window: self.resume_window, ..Config::default() };
        config.checked().map_err(|error| match error.field {
            "resume_window" => {
                let why = format!("in milliseconds, {}; no client is so patient", error.problem);
                ConfigError::setting("resume_window", format!("{:?}", self.resume_window), why)
            }
            _ => ConfigError::setting("max_open_calls", self.max_open_calls, error.problem),
        })
    }
}

/// As in the protocol's page of numbers: longer than a cut, shorter than a client's patience.
const RESUME_WINDOW: Duration = Duration::from_secs(15);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONNECTIONS: usize = 10_000;
/// Clients that ask for health have a watch on each connection.
const MAX_HEALTH_WATCHES: usize = MAX_CONNECTIONS;

/// Ten answers in a row are no bad luck; with a hundred calls a second they are a tenth of a second.
const EJECT_AFTER: u32 = 10;
const MAX_CALLS: usize = 50_000;
const WINDOW_MEMORY: u64 = 512 << 20;
const MAX_PARKED_CALLS: usize = 1_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_gateway_without_a_router_has_nothing_to_serve() {
        let error = Gateway::builder().build().unwrap_err().to_string();

        assert!(error.contains(".add_router::<MyServiceRouter>()"), "{error}");
    }

    #[test]
    fn a_limit_that_cannot_work_is_named() {
        let error = |builder: GatewayBuilder| {
            builder.add_router::<crate::gateway::tests::OrdersRouter>().build().unwrap_err().to_string()
        };

        assert!(error(Gateway::builder().max_open_calls(0)).starts_with("max_open_calls(0) cannot be used: "));
        let long = Gateway::builder().resume_window(Duration::from_secs(301));
        assert!(error(long).starts_with("resume_window(301s) cannot be used: "));
        assert!(error(Gateway::builder().max_calls(0)).starts_with("max_calls(0) cannot be used: "));
        assert!(error(Gateway::builder().max_connections(0)).starts_with("max_connections(0) cannot be used: "));
    }
}
