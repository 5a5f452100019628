//! The two ways to a backend: through a gateway and by its own port. What holds on one holds on the other.

use std::{net::SocketAddr, time::Duration};

use grpcrouter_runtime::Backend;
use grpcrouter_tests::{
    probe::Probe,
    world::{PATIENCE, TestBackend, TestGateway},
};
use myservice::proto::{my_service_client::MyServiceClient, my_service_server::MyServiceServer};
use tokio::time::timeout;
use tonic::transport::Channel;

pub(crate) struct Road {
    pub(crate) name: &'static str,
    pub(crate) gateway: Option<TestGateway>,
    pub(crate) backend: TestBackend,
    pub(crate) probe: Probe,
    pub(crate) target: String,
}

impl Road {
    pub(crate) async fn both() -> [Self; 2] {
        Self::both_with_drain_timeout(PATIENCE).await
    }

    pub(crate) async fn both_with_drain_timeout(timeout: Duration) -> [Self; 2] {
        [Self::through_a_gateway(timeout).await, Self::direct_with_drain_timeout(timeout).await]
    }

    pub(crate) async fn direct() -> Self {
        Self::direct_with_drain_timeout(PATIENCE).await
    }

    async fn through_a_gateway(drain: Duration) -> Self {
        // A backend that is dropped says no word, and its calls wait for it so long.
        let gateway = TestGateway::start_with(|builder| builder.resume_window(Duration::from_secs(1))).await;
        let uri = gateway.uri();
        Self::start("through a gateway", Some(gateway), uri.clone(), drain, |builder| builder.gateway(uri)).await
    }

    async fn direct_with_drain_timeout(drain: Duration) -> Self {
        let mut road = Self::start("direct", None, String::new(), drain, |builder| builder.listen("127.0.0.1:0")).await;
        road.target = format!("http://{}", road.backend.backend.local_addr().unwrap());
        road
    }

    async fn start(
        name: &'static str,
        gateway: Option<TestGateway>,
        target: String,
        drain: Duration,
        way_in: impl FnOnce(grpcrouter_runtime::BackendBuilder) -> grpcrouter_runtime::BackendBuilder,
    ) -> Self {
        let probe = Probe::new("a");
        let builder =
            Backend::builder().instance_id("a").add_service(MyServiceServer::new(probe.clone())).drain_timeout(drain);
        let backend = way_in(builder).build().unwrap();
        let ready = backend.ready();
        let backend = TestBackend::serve(backend, probe.clone());
        timeout(PATIENCE, ready).await.expect("the backend is ready");
        Self { name, gateway, backend, probe, target }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.target.trim_start_matches("http://").parse().unwrap()
    }

    pub(crate) async fn client(&self) -> MyServiceClient<Channel> {
        connect(self.target.clone()).await
    }

    pub(crate) async fn end(self) {
        self.backend.stop().await;
        end(self.gateway).await;
    }
}

pub(crate) async fn connect(target: String) -> MyServiceClient<Channel> {
    MyServiceClient::connect(target).await.unwrap()
}

pub(crate) async fn end(gateway: Option<TestGateway>) {
    if let Some(gateway) = gateway {
        gateway.idle().await;
        gateway.instances(0).await;
        timeout(PATIENCE, gateway.begin_stop()).await.unwrap().unwrap().unwrap();
    }
}
