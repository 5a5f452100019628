//! The service of tests/proto/routing.proto, which tells who answered.

use std::{pin::Pin, sync::Arc};

use grpcrouter_runtime::{Backend, BackendBuilder, ServeError};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use self::proto::{
    Ask, Told,
    echo_server::{Echo, EchoServer},
};
use crate::world::{PATIENCE, TestGateway};

/// What is generated from routing.proto.
#[allow(missing_docs, missing_debug_implementations, clippy::all, reason = "the generators' own style")]
pub mod proto {
    include!("generated/routing.rs");
}

/// A backend that serves `routing.Echo`.
#[derive(Debug)]
pub struct EchoBackend {
    backend: Backend,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl EchoBackend {
    /// Dials out to `gateway` as `id` and returns when it is registered.
    pub async fn start(gateway: &TestGateway, id: &str) -> Self {
        let before = gateway.gateway.stats().instances;
        let backend = Self::dial(&gateway.uri(), id, |builder| builder);
        gateway.instances(before + 1).await;
        backend
    }

    /// Dials out to whatever is at `gateway`, with settings of its own.
    pub fn dial(gateway: &str, id: &str, settings: impl FnOnce(BackendBuilder) -> BackendBuilder) -> Self {
        let service = EchoServer::new(Teller { id: id.into() });
        let builder = Backend::builder().gateway(gateway).instance_id(id).add_service(service);
        let backend = settings(builder).build().expect("a backend");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn({
            let backend = backend.clone();
            async move { backend.serve(stopped).await }
        });
        Self { backend, stop, task }
    }

    /// Stops it gracefully.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.task).await.expect("the backend stops").expect("it").expect("stops well");
        assert_eq!(self.backend.stats().tunnels, 0);
    }
}

struct Teller {
    id: Arc<str>,
}

impl Teller {
    fn told(&self, messages: u32) -> Told {
        Told { instance: self.id.to_string(), messages }
    }

    async fn count(&self, request: Request<Streaming<Ask>>) -> Result<Told, Status> {
        let mut asks = request.into_inner();
        let mut messages = 0;
        while asks.message().await?.is_some() {
            messages += 1;
        }
        Ok(self.told(messages))
    }
}

type Tellings = Pin<Box<dyn Stream<Item = Result<Told, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Teller {
    type DownStream = Tellings;
    type BothStream = Tellings;

    async fn one(&self, _: Request<Ask>) -> Result<Response<Told>, Status> {
        Ok(Response::new(self.told(1)))
    }

    async fn down(&self, _: Request<Ask>) -> Result<Response<Tellings>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(self.told(1))))))
    }

    async fn up(&self, request: Request<Streaming<Ask>>) -> Result<Response<Told>, Status> {
        Ok(Response::new(self.count(request).await?))
    }

    async fn both(&self, request: Request<Streaming<Ask>>) -> Result<Response<Tellings>, Status> {
        let told = self.count(request).await?;
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(told)))))
    }
}
