//! The gateway's own health: "" is the gateway, and a service serves as long as anybody takes its calls.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::{self, Display},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::sync::watch;
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use super::{Gateway, GatewayCore, own::OwnService, registry::Registry, route::Routes, stats::Counts};
use crate::health::{self, Book, HEALTH, Services};

/// The gRPC service `grpc.health.v1.Health` of a gateway, as a tower service for a server of your own; from
/// [`Gateway::health_service`](super::Gateway::health_service).
#[derive(Clone)]
pub struct HealthService {
    core: Arc<GatewayCore>,
}

impl Gateway {
    /// The health of this gateway and of the services that it routes, `grpc.health.v1.Health`, for a tonic server or an
    /// axum app of your own. [`serve`](Self::serve) has it already.
    ///
    /// The name "" is the gateway: it serves until it is told to stop. The name of a service, as clients call it or as
    /// instances register it, serves while at least one instance takes its calls. Of any other name Check says NOT_FOUND
    /// and Watch SERVICE_UNKNOWN. A watch tells each change at once, says NOT_SERVING when the gateway is told to stop,
    /// and ends UNAVAILABLE with it.
    pub fn health_service(&self) -> HealthService {
        HealthService { core: self.core().clone() }
    }
}

/// Whose health can be asked for: all that is routed here, by either name.
pub(super) fn services(routes: &Routes, registry: &Registry) -> Services {
    let targets: HashMap<_, _> = registry.serving().collect();
    let mut services: HashMap<_, _> =
        targets.iter().map(|(name, serving)| ((*name).to_owned(), serving.clone())).collect();
    for (name, target) in routes.services_and_targets() {
        if let Some(serving) = targets.get(target) {
            services.insert(name.to_owned(), serving.clone());
        }
    }
    services
}

/// Answers from these.
pub(super) fn service(services: watch::Receiver<Services>, counts: &Counts, max_watches: usize) -> OwnService {
    OwnService::new(health::HealthService::server(Book { whole: counts.whole(), services }, max_watches))
}

impl fmt::Debug for HealthService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthService").finish_non_exhaustive()
    }
}

impl NamedService for HealthService {
    const NAME: &'static str = HEALTH;
}

impl<B> Service<Request<B>> for HealthService
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let core = self.core.clone();
        Box::pin(async move { Ok(core.health.answer(&core, request).await) })
    }
}
