//! A gateway without its own front: its routers and the door for instances as services of a tonic server and of an axum
//! app. Backends register through that server, and clients call through it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "mounted/calls.rs"]
mod calls;
#[path = "mounted/ends.rs"]
mod ends;

use std::net::SocketAddr;
use std::time::Duration;

use axum::routing::get;
use axum::serve::ListenerExt as _;
use grpcrouter_runtime::codegen::Prefixed;
use grpcrouter_runtime::{Backend, Gateway};
use grpcrouter_tests::{
    probe::Probe,
    raw::RawClient,
    world::{PATIENCE, TestBackend, eventually},
};
use myservice::proto::{
    my_service_client::MyServiceClient, my_service_router::MyServiceRouter, my_service_server::MyServiceServer,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};

/// What the services are mounted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mount {
    /// The router as a tower service, in a tonic server.
    Tonic,
    /// The router as the service's own trait, in the service's own tonic server.
    Typed,
    /// The router as a tower service, in an axum app.
    Axum,
}

const MOUNTS: [Mount; 3] = [Mount::Tonic, Mount::Typed, Mount::Axum];

/// A server of the user's own with a gateway in it, and its backends.
struct Place {
    gateway: Gateway,
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
    backends: Vec<TestBackend>,
}

impl Place {
    async fn new(mount: Mount, ids: &[&str]) -> Self {
        let gateway = Gateway::builder().add_router::<MyServiceRouter>().drain_timeout(DRAIN_TIMEOUT).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(mount, gateway.clone(), listener, stop.clone()));
        let mut place = Self { gateway, address, stop, server, backends: Vec::new() };
        for id in ids {
            place.backend(id).await;
        }
        place
    }

    /// Starts a backend that dials the server and takes messages of any length.
    async fn backend(&mut self, id: &str) {
        let probe = Probe::new(id);
        let backend = Backend::builder()
            .gateway(self.uri())
            .instance_id(id)
            .add_service(MyServiceServer::new(probe.clone()).max_decoding_message_size(usize::MAX))
            .build()
            .unwrap();
        self.backends.push(TestBackend::serve(backend, probe));
        let count = self.backends.len();
        eventually("the backend has registered", || self.gateway.stats().instances == count).await;
    }

    fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    fn probe(&self) -> &Probe {
        &self.backends.first().unwrap().probe
    }

    async fn client(&self) -> MyServiceClient<Channel> {
        MyServiceClient::connect(self.uri()).await.unwrap().max_decoding_message_size(usize::MAX)
    }

    async fn raw(&self) -> RawClient {
        RawClient::connect(self.address).await.unwrap().0
    }

    async fn idle(&self) {
        eventually("no open call and no queued byte", || {
            let stats = self.gateway.stats();
            stats.calls == 0 && stats.queued_bytes == 0
        })
        .await;
    }

    /// Stops all, backends first, and checks that nothing is left.
    async fn end(self) {
        self.idle().await;
        for backend in self.backends {
            backend.stop().await;
        }
        self.stop.cancel();
        timeout(PATIENCE, self.server).await.expect("the server stops").unwrap();
        assert_eq!(self.gateway.stats().tunnels, 0);
    }
}

/// Serves as the user's main function would: the server and the end of the gateway side by side.
async fn serve(mount: Mount, gateway: Gateway, listener: TcpListener, stop: CancellationToken) {
    let drained = {
        let (gateway, stop) = (gateway.clone(), stop.clone());
        async move {
            stop.cancelled().await;
            gateway.drain().await;
        }
    };
    let stopped = stop.cancelled_owned();
    let router = MyServiceRouter::new(&gateway);
    let register = gateway.register_service();
    if mount == Mount::Axum {
        let app = axum::Router::new()
            .route("/", get(async || "a page of the app's own"))
            .route_service("/grpcrouter.Router/{*method}", register)
            .route_service("/myservice.MyService/{*method}", router.clone())
            .route_service("/api/v1/myservice.MyService/{*method}", Prefixed(router));
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let server = axum::serve(listener, app).with_graceful_shutdown(stopped);
        tokio::join!(async { server.await.unwrap() }, drained);
        return;
    }
    let builder = Server::builder().initial_stream_window_size(WINDOW);
    let mut builder = builder.initial_connection_window_size(WINDOW);
    let routes = builder.add_service(register).add_service(Prefixed(router.clone()));
    let routes = match mount {
        Mount::Typed => routes.add_service(MyServiceServer::new(router).max_decoding_message_size(usize::MAX)),
        _ => routes.add_service(router),
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = routes.serve_with_incoming_shutdown(incoming, stopped);
    tokio::join!(async { server.await.unwrap() }, drained);
}

/// Bytes of answers on their way from one instance.
const WINDOW: u32 = 16 * 1024 * 1024;

/// For what does not finish by itself.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
