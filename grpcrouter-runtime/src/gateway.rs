//! The gateway: accepts ordinary gRPC clients and carries their calls through the tunnels of the instances that dialled
//! in. `forward` is the product in five steps; everything else here serves it.

mod admission;
mod balancer;
mod bridge;
mod builder;
mod client_call;
mod connection;
mod embed;
mod forward;
mod front;
mod register;
mod registry;
mod route;
mod stats;
mod strategy;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use grpcrouter_protocol::Config;
use tokio::net::TcpListener;

pub use self::{
    builder::GatewayBuilder,
    embed::{Channel, ChannelFuture},
    register::RegisterService,
    stats::GatewayStats,
};
use self::{registry::Registry, route::Routes, stats::Counts};
use crate::error::ServeError;

/// Carries the calls of gRPC clients to the instances of their services.
///
/// Instances dial in and register; clients call as if the services ran here. A clone is the same gateway.
///
/// # Examples
/// ```no_run
/// # async fn example<R: grpcrouter_runtime::codegen::Router>() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = grpcrouter_runtime::Gateway::builder().add_router::<R>().build()?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// gateway.serve(listener, async { tokio::signal::ctrl_c().await.ok(); }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gateway {
    core: Arc<GatewayCore>,
}

impl Gateway {
    /// Starts with nothing: add a router for each service.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::new()
    }

    /// Accepts clients and instances from `listener` until `shutdown` is done, whatever it gives.
    ///
    /// Then nothing new is accepted, running calls finish within the drain timeout of the builder, what still runs ends
    /// with UNAVAILABLE, and every tunnel is closed: also those that came through [`register_service`], for a gateway
    /// ends as a whole.
    ///
    /// [`register_service`]: Self::register_service
    ///
    /// # Errors
    /// The listener broke. A single connection that fails does not end the gateway.
    ///
    /// # Cancel safety
    /// Dropping the future ends everything at once: each call is cancelled, each connection closed.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future) -> Result<(), ServeError> {
        front::serve(&self.core, listener, shutdown).await
    }

    /// The service where instances register, `grpcrouter.Router`, for a tonic server or an axum app of your own.
    ///
    /// [`serve`](Self::serve) has it already.
    pub fn register_service(&self) -> RegisterService {
        RegisterService::new(self.core.clone())
    }

    /// What the gateway holds now. All zero but `connections`, `tunnels` and `instances` when nobody calls.
    pub fn stats(&self) -> GatewayStats {
        self.core.stats()
    }

    /// For the doors beside the front, which forward calls too.
    pub(crate) fn core(&self) -> &Arc<GatewayCore> {
        &self.core
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("services", &self.core.routes.services()).finish_non_exhaustive()
    }
}

/// What all parts of one gateway share.
#[derive(Debug)]
pub(crate) struct GatewayCore {
    pub(crate) routes: Routes,
    pub(crate) registry: Registry,
    pub(crate) counts: Counts,
    pub(crate) limits: Limits,
}

/// What the builder set.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) drain_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) tunnel: Config,
}

impl GatewayCore {
    fn stats(&self) -> GatewayStats {
        let tunnels = self.registry.tunnels();
        GatewayStats {
            connections: self.counts.connections(),
            calls: self.counts.calls(),
            tunnels: tunnels.len(),
            instances: self.registry.ready_instances(),
            queued_bytes: tunnels.iter().map(|instance| instance.tunnel.queued_bytes()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::codegen::{Kind, MethodSpec, Router, ServiceSpec};

    /// Stands for a generated router.
    pub(super) struct OrdersRouter;

    impl Router for OrdersRouter {
        const SPEC: &'static ServiceSpec = &ServiceSpec::new("shop.Orders", "shop.Orders")
            .routing_key("instanceid")
            .methods(&[MethodSpec::new("shop.Orders", "Buy", "/shop.Orders/Buy", Kind::Unary)]);
    }

    /// A gateway that serves it.
    pub(super) fn gateway() -> Gateway {
        Gateway::builder().add_router::<OrdersRouter>().build().unwrap()
    }

    #[test]
    fn a_new_gateway_holds_nothing() {
        assert_eq!(gateway().stats(), GatewayStats::default());
    }

    #[test]
    fn a_gateway_shows_what_it_serves() {
        assert_eq!(format!("{:?}", gateway()), r#"Gateway { services: ["shop.Orders"], .. }"#);
    }
}
