//! A tonic server that can be stopped and started again, and an agent in front of it.

use std::net::SocketAddr;

use grpcrouter_runtime::{Agent, AgentError, Backend, BackendBuilder, Upstream};
use grpcrouter_tests::{
    probe::Probe,
    world::{PATIENCE, TestGateway},
};
use myservice::proto::my_service_server::MyServiceServer;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::server::HealthReporter;

/// What the server of a test has beside its service.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct With {
    pub(crate) reflection: bool,
    pub(crate) health: bool,
    /// Streams that one connection may have; 0: any number.
    pub(crate) streams: u32,
}

/// The server: an unmodified one, in a runtime of its own, with which all of it goes at once.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) probe: Probe,
    pub(crate) address: SocketAddr,
    pub(crate) health: HealthReporter,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    runtime: Runtime,
}

impl Server {
    pub(crate) async fn start(with: With) -> Self {
        Self::start_on(with, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_on(with: With, address: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(listen(address)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = Probe::new("upstream");
        let (health, health_server) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(myservice::proto::my_service_router::FILE_DESCRIPTOR_SET)
            .build_v1()
            .unwrap();
        let server = tonic::transport::Server::builder()
            .max_concurrent_streams((with.streams > 0).then_some(with.streams))
            .add_service(MyServiceServer::new(probe.clone()))
            .add_optional_service(with.reflection.then_some(reflection))
            .add_optional_service(with.health.then_some(health_server));
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await.unwrap();
        });
        Self { probe, address, health, stop, task, runtime }
    }

    /// Stops as a server does that is asked to: running calls finish.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        timeout(PATIENCE, self.task).await.expect("the server stops").unwrap();
        self.runtime.shutdown_background();
    }

    /// Dies with all of its connections.
    pub(crate) async fn die(self) {
        let runtime = self.runtime;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }
}

/// Also at once after another listened there.
pub(crate) async fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct TestAgent {
    pub(crate) agent: Agent,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), AgentError>>,
}

impl TestAgent {
    /// Dials `gateway` for `upstream`, and is not waited for.
    pub(crate) fn begin(gateway: &TestGateway, upstream: Upstream) -> Self {
        let uri = gateway.uri();
        let settings = move || -> BackendBuilder { Backend::builder().gateway(&uri).instance_id("agent") };
        let agent = Agent::new(upstream, settings).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn({
            let agent = agent.clone();
            async move { agent.serve(stopped).await }
        });
        Self { agent, stop, task }
    }

    /// The same, and registered.
    pub(crate) async fn start(gateway: &TestGateway, upstream: Upstream) -> Self {
        let agent = Self::begin(gateway, upstream);
        timeout(PATIENCE, agent.agent.ready()).await.expect("the agent registers");
        agent
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        timeout(PATIENCE, self.task).await.expect("the agent stops").unwrap().unwrap();
    }

    /// How it ends of its own accord.
    pub(crate) async fn end(self) -> Result<(), AgentError> {
        timeout(PATIENCE, self.task).await.expect("the agent ends").unwrap()
    }
}
