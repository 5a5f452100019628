//! A gateway, a relay that can be cut, and a backend that dials through it.

use std::time::Duration;

use grpcrouter_runtime::{Backend, GatewayBuilder};
use grpcrouter_tests::{
    lines::Lines,
    probe::Probe,
    relay::{Cut, Relay},
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::{my_service_client::MyServiceClient, my_service_server::MyServiceServer};
use tokio::time::timeout;
use tonic::transport::Channel;

/// All of it, with one instance.
pub(crate) struct Road {
    pub(crate) gateway: TestGateway,
    pub(crate) relay: Relay,
    pub(crate) backend: TestBackend,
}

impl Road {
    pub(crate) async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    /// The gateway with settings of its own.
    pub(crate) async fn with(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let gateway = TestGateway::start_with(settings).await;
        let relay = Relay::to(gateway.address).await;
        let probe = Probe::new("a");
        let service = MyServiceServer::new(probe.clone()).max_decoding_message_size(usize::MAX);
        let builder = Backend::builder().gateway(relay.uri()).instance_id("a").add_service(service);
        // No test waits for it: what ends does so by itself.
        let backend = builder.drain_timeout(Duration::from_secs(300)).build().expect("a backend");
        let backend = TestBackend::serve(backend, probe);
        gateway.instances(1).await;
        eventually("the backend has its tunnel", || backend.backend.stats().tunnels == 1).await;
        Self { gateway, relay, backend }
    }

    /// A client that takes messages of any size.
    pub(crate) async fn client(&self) -> MyServiceClient<Channel> {
        self.gateway.client().await.max_decoding_message_size(usize::MAX)
    }

    /// Cuts the connection, and returns when the tunnel goes on over another; `lines` listens.
    pub(crate) async fn cut(&self, how: Cut, lines: &Lines) {
        let resumed = || lines.with(&["the tunnel is resumed"]).len();
        let (taken, before) = (self.relay.taken(), resumed());
        self.relay.cut(how);
        self.is_back(taken + 1).await;
        // One that is cut again and again before that is dialled ever more seldom, until it is too late.
        eventually("the tunnel is resumed", || resumed() > before).await;
    }

    /// Returns when so many connections have come, and one of them is there.
    pub(crate) async fn is_back(&self, taken: u64) {
        let back = async {
            self.relay.has_taken(taken).await;
            self.relay.has_open(1).await;
        };
        if timeout(PATIENCE, back).await.is_err() {
            panic!("{} connections came instead of {taken}, and {} are there", self.relay.taken(), self.relay.open());
        }
    }

    /// Cuts the connection and lets nobody back.
    pub(crate) async fn lose(&self) {
        self.relay.refuse(true);
        self.relay.cut(Cut::Reset);
        timeout(PATIENCE, self.relay.has_open(0)).await.expect("the connection is cut");
    }

    /// Stops everything and checks that nothing is left.
    pub(crate) async fn end(self) {
        let Self { gateway, relay, backend } = self;
        gateway.idle().await;
        backend.stop().await;
        drop(relay);
        gateway.stop(Vec::new()).await;
    }
}

/// The two ways in which a connection ends, in turn.
pub(crate) fn how(round: usize) -> Cut {
    if round.is_multiple_of(2) { Cut::Reset } else { Cut::Finish }
}

/// Text that is another one for each seed, and in which every byte is in its place or is seen not to be.
pub(crate) fn text(seed: usize, length: usize) -> String {
    let mut text = String::with_capacity(length + 24);
    while text.len() < length {
        text.push_str(&format!("{seed}.{} ", text.len()));
    }
    text.truncate(length);
    text
}
