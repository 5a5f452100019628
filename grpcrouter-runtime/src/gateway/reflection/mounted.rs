//! Reflection as tower services, for a server of the user's own.

use std::{
    convert::Infallible,
    fmt::{self, Display},
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use super::{V1, V1_ALPHA, service::services};
use crate::gateway::{Gateway, GatewayCore, own::OwnService};

/// The gRPC service `grpc.reflection.v1.ServerReflection` of a gateway, or v1alpha, as a tower service for a server of your
/// own; from [`Gateway::reflection_services`].
pub struct ReflectionService<V> {
    core: Arc<GatewayCore>,
    service: OwnService,
    version: PhantomData<fn() -> V>,
}

/// Marks the service of the version v1.
#[derive(Debug, Clone, Copy)]
pub struct ReflectionV1;

/// Marks the service of the version v1alpha, which older clients ask for.
#[derive(Debug, Clone, Copy)]
pub struct ReflectionV1Alpha;

impl Gateway {
    /// Reflection, for a tonic server or an axum app of your own: both versions that clients ask for. They know what
    /// [`serve`](Self::serve) tells, and nothing of other services of that server. None if it is
    /// [turned off](crate::GatewayBuilder::reflection).
    pub fn reflection_services(
        &self,
    ) -> Option<(ReflectionService<ReflectionV1>, ReflectionService<ReflectionV1Alpha>)> {
        let reflection = self.core().reflection.as_ref()?;
        let [v1, v1alpha] = services(reflection);
        Some((ReflectionService::new(self.core(), v1), ReflectionService::new(self.core(), v1alpha)))
    }
}

impl<V> ReflectionService<V> {
    fn new(core: &Arc<GatewayCore>, service: OwnService) -> Self {
        Self { core: core.clone(), service, version: PhantomData }
    }
}

impl<V> Clone for ReflectionService<V> {
    fn clone(&self) -> Self {
        Self::new(&self.core, self.service.clone())
    }
}

impl<V> fmt::Debug for ReflectionService<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReflectionService").finish_non_exhaustive()
    }
}

impl NamedService for ReflectionService<ReflectionV1> {
    const NAME: &'static str = V1;
}

impl NamedService for ReflectionService<ReflectionV1Alpha> {
    const NAME: &'static str = V1_ALPHA;
}

impl<V, B> Service<Request<B>> for ReflectionService<V>
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
        let (core, service) = (self.core.clone(), self.service.clone());
        Box::pin(async move { Ok(service.answer(&core, request).await) })
    }
}
