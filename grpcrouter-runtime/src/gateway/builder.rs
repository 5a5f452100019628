//! Sets what a gateway is to be; `build()` checks it once.

use std::{sync::Arc, time::Duration};

use grpcrouter_protocol::Config;

use super::{Gateway, GatewayCore, Limits, registry::Registry, route::Routes, stats::Counts};
use crate::{
    codegen::{Router, ServiceSpec},
    error::ConfigError,
};

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
    specs: Vec<&'static ServiceSpec>,
    drain_timeout: Duration,
    max_connections: usize,
    max_open_calls: u32,
    max_message_size: usize,
}

impl GatewayBuilder {
    pub(super) fn new() -> Self {
        Self {
            specs: Vec::new(),
            drain_timeout: DRAIN_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            max_open_calls: Config::default().max_open_calls,
            max_message_size: usize::MAX,
        }
    }

    /// Serves the service of a generated router: its methods, its prefix, its routing, as the proto file says. Once for
    /// each service.
    pub fn add_router<R: Router>(mut self) -> Self {
        self.specs.push(R::SPEC);
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

    /// How many calls one tunnel carries at once; an instance may ask for less. 1 to 1,048,576, default 1024. A call whose client or
    /// instance does not read may hold a window of 64 KiB in each direction.
    pub fn max_open_calls(mut self, value: u32) -> Self {
        self.max_open_calls = value;
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

    /// Checks all that was set.
    ///
    /// # Errors
    /// Nothing to serve; an option of a proto file that this version does not serve or that cannot be meant; two routers
    /// for one path; a limit that cannot work.
    pub fn build(self) -> Result<Gateway, ConfigError> {
        if self.specs.is_empty() {
            return Err(ConfigError::NothingToServe {
                who: "the gateway",
                hint: "add the generated router of a service with .add_router::<MyServiceRouter>()",
            });
        }
        if self.max_connections == 0 {
            return Err(ConfigError::setting("max_connections", 0, "nobody could connect: use 1 or more"));
        }
        let tunnel = Config { max_open_calls: self.max_open_calls, ..Config::default() }
            .checked()
            .map_err(|error| ConfigError::setting("max_open_calls", self.max_open_calls, error.problem))?;
        let routes = Routes::new(&self.specs)?;
        let registry = Registry::new(routes.targets());
        let limits = Limits {
            drain_timeout: self.drain_timeout,
            max_connections: self.max_connections,
            max_message_size: self.max_message_size,
            tunnel,
        };
        Ok(Gateway { core: Arc::new(GatewayCore { routes, registry, counts: Counts::default(), limits }) })
    }
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONNECTIONS: usize = 10_000;

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
        assert!(error(Gateway::builder().max_connections(0)).starts_with("max_connections(0) cannot be used: "));
    }
}
