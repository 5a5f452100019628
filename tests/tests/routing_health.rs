//! grpc.health.v1 over real sockets: of the gateway, of the services that it routes, and of a backend that is called
//! directly; asked once and watched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "routing_health/backend.rs"]
mod backend;
#[path = "routing_health/gateway.rs"]
mod gateway;
#[path = "routing_health/intake.rs"]
mod intake;
#[path = "routing_health/watchers.rs"]
mod watchers;

use std::net::SocketAddr;

use grpcrouter_tests::world::PATIENCE;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

const SERVICE: &str = "myservice.MyService";

/// A client that asks for health, on a connection of its own.
#[derive(Debug, Clone)]
struct Asker(HealthClient<Channel>);

impl Asker {
    async fn of(address: SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await;
        Self(HealthClient::new(channel.expect("it listens")))
    }

    async fn check(&mut self, service: &str) -> Result<ServingStatus, Code> {
        self.0.check(question(service)).await.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
    }

    async fn watch(&mut self, service: &str) -> Result<Watch, Status> {
        self.0.watch(question(service)).await.map(|answer| Watch(answer.into_inner()))
    }
}

/// One call of Watch.
#[derive(Debug)]
struct Watch(Streaming<HealthCheckResponse>);

impl Watch {
    /// What comes next: a status, or how the stream ends.
    async fn next(&mut self) -> Result<ServingStatus, Code> {
        let next = timeout(PATIENCE, self.0.message()).await.expect("news");
        next.map_err(|status| status.code()).map(|answer| answer.expect("a status at the end").status())
    }

    /// Nothing has come that was not read, and the stream is open. What was to come before some other news has come.
    async fn is_quiet(&mut self) -> bool {
        futures_util::poll!(std::pin::pin!(self.0.message())).is_pending()
    }
}

fn question(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}
