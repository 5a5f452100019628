//! A gateway and backends in this process, on real sockets, that leave nothing behind.

use std::{net::SocketAddr, time::Duration};

use grpcrouter_runtime::{Backend, BackendBuilder, Gateway, GatewayBuilder, ServeError};
use myservice::proto::{
    my_service_client::MyServiceClient, my_service_router::MyServiceRouter, my_service_server::MyServiceServer,
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tonic::transport::Channel;

use crate::{probe::Probe, raw::RawClient};

/// What is waited for must come within this. Only a test that fails waits so long, so there is room for a machine that
/// is fifty times slower.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns when `is_so`; for what nobody announces.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(2)).await; // waits because nothing announces a counter's change
    }
}

/// A gateway that serves the example's router.
#[derive(Debug)]
pub struct TestGateway {
    /// The gateway itself.
    pub gateway: Gateway,
    /// Where it listens.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
    tasks_before: usize,
}

impl TestGateway {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    /// Starts it on `address`.
    ///
    /// # Panics
    /// If the address is taken.
    pub async fn start_on(address: &str) -> Self {
        Self::start_as(address, |builder| builder).await
    }

    /// Starts it on a free port, with settings of its own.
    pub async fn start_with(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        Self::start_as("127.0.0.1:0", settings).await
    }

    async fn start_as(address: &str, settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let builder = Gateway::builder()
            .add_router::<MyServiceRouter>()
            // A test may begin to call on a connection long after it was made.
            .opening_timeout(PATIENCE)
            .drain_timeout(Duration::from_secs(2));
        Self::serve(address, settings(builder)).await
    }

    /// Starts one on a free port that serves just this.
    pub async fn of(builder: GatewayBuilder) -> Self {
        Self::serve("127.0.0.1:0", builder).await
    }

    async fn serve(address: &str, builder: GatewayBuilder) -> Self {
        let tasks_before = tasks();
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let gateway = builder.build().expect("a gateway");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve(listener, stopped).await }
        });
        Self { gateway, address, stop, task, tasks_before }
    }

    /// "http://ADDRESS".
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A tonic client on a connection of its own.
    pub async fn client(&self) -> MyServiceClient<Channel> {
        MyServiceClient::connect(self.uri()).await.expect("the gateway listens")
    }

    /// A client that is nothing but HTTP/2.
    pub async fn raw(&self) -> RawClient {
        RawClient::connect(self.address).await.expect("the gateway listens").0
    }

    /// Returns when so many instances are registered.
    pub async fn instances(&self, count: usize) {
        eventually(&format!("{count} instances"), || self.gateway.stats().instances == count).await;
    }

    /// Returns when no call is open and no byte is queued.
    pub async fn idle(&self) {
        eventually("no open call and no queued byte at the gateway", || {
            let stats = self.gateway.stats();
            stats.calls == 0 && stats.queued_bytes == 0
        })
        .await;
    }

    /// Asks it to stop, and does not wait.
    pub fn begin_stop(self) -> JoinHandle<Result<(), ServeError>> {
        let _ = self.stop.send(());
        self.task
    }

    /// Stops everything and checks that nothing is left: no call, no byte, no task.
    pub async fn stop(self, backends: Vec<TestBackend>) {
        self.idle().await;
        for backend in backends {
            backend.stop().await;
        }
        self.instances(0).await;
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.task).await.expect("the gateway stops").expect("it").expect("stops well");
        let stats = self.gateway.stats();
        assert_eq!((stats.calls, stats.queued_bytes, stats.tunnels, stats.connections), (0, 0, 0, 0));
        let before = self.tasks_before;
        eventually("as many tasks as before", || tasks() <= before).await;
    }
}

/// A backend that serves a [`Probe`].
#[derive(Debug)]
pub struct TestBackend {
    /// Its service.
    pub probe: Probe,
    /// The backend itself.
    pub backend: Backend,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl TestBackend {
    /// Dials out to `gateway` as `id` and returns when it is registered.
    pub async fn start(gateway: &TestGateway, id: &str) -> Self {
        let before = gateway.gateway.stats().instances;
        let backend = Self::dial(&gateway.uri(), id);
        gateway.instances(before + 1).await;
        backend
    }

    /// Dials out to whatever is at `gateway`.
    pub fn dial(gateway: &str, id: &str) -> Self {
        let probe = Probe::new(id);
        let backend = Backend::builder()
            .gateway(gateway)
            .instance_id(id)
            .add_service(MyServiceServer::new(probe.clone()))
            .dial_timeout(PATIENCE)
            .drain_timeout(PATIENCE)
            .build()
            .expect("a backend");
        Self::serve(backend, probe)
    }

    /// Dials out as `id` with settings of its own and returns when it is registered. Its messages may be of any size.
    pub async fn start_with(
        gateway: &TestGateway,
        id: &str,
        settings: impl FnOnce(BackendBuilder) -> BackendBuilder,
    ) -> Self {
        let before = gateway.gateway.stats().instances;
        let probe = Probe::new(id);
        let service = MyServiceServer::new(probe.clone()).max_decoding_message_size(usize::MAX);
        let builder = Backend::builder().gateway(gateway.uri()).instance_id(id).add_service(service);
        let backend = Self::serve(settings(builder).build().expect("a backend"), probe);
        gateway.instances(before + 1).await;
        backend
    }

    /// Serves `backend`, whose service is `probe`.
    pub fn serve(backend: Backend, probe: Probe) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn({
            let backend = backend.clone();
            async move { backend.serve(stopped).await }
        });
        Self { probe, backend, stop, task }
    }

    /// Stops it gracefully and checks that nothing is left.
    pub async fn stop(self) {
        let backend = self.backend.clone();
        eventually("no open call and no queued byte at the backend", || {
            let stats = backend.stats();
            stats.calls == 0 && stats.queued_bytes == 0
        })
        .await;
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.task).await.expect("the backend stops").expect("it").expect("stops well");
        assert_eq!(self.backend.stats().tunnels, 0);
    }

    /// Asks it to stop, and does not wait: what runs finishes.
    pub fn begin_stop(self) -> JoinHandle<Result<(), ServeError>> {
        let _ = self.stop.send(());
        self.task
    }

    /// Ends it without a word, as a killed process would.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Returns when this test's runtime has no task any more: for tests that end otherwise than by [`TestGateway::stop`].
pub async fn no_task_left() {
    eventually("no task left", || tasks() == 0).await;
}

/// Live tasks of this runtime.
pub fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
