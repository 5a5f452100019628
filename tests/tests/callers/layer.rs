//! The same checks as a layer around a tonic server and an axum app of the user's own.

use std::net::SocketAddr;

use axum::serve::ListenerExt as _;
use grpcrouter_runtime::{By, Callers, CallersLayer, Gateway, RateLimit};
use grpcrouter_tests::{
    probe::Probe,
    raw::{RawClient, RawEnd},
    world::{TestBackend, eventually},
};
use myservice::proto::{Method1Request, my_service_router::MyServiceRouter, my_service_server::MyServiceServer};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};

use crate::{Files, METHOD1, forge, header, refusal};

/// A server with the layer around all that clients reach: a router to a backend.
struct Mounted {
    address: SocketAddr,
    gateway: Gateway,
    server: JoinHandle<()>,
    register: JoinHandle<()>,
    backend: TestBackend,
}

impl Mounted {
    async fn start(layer: CallersLayer, axum: bool) -> Self {
        let gateway = Gateway::builder().add_router::<MyServiceRouter>().build().unwrap();
        let (listener, inner) = (bind().await, bind().await);
        let (address, inside) = (listener.local_addr().unwrap(), inner.local_addr().unwrap());
        let router = MyServiceRouter::new(&gateway);
        let server = tokio::spawn(async move {
            if axum {
                let app = axum::Router::new().route_service("/myservice.MyService/{method}", router).layer(layer);
                let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
                axum::serve(listener, app).await.unwrap();
            } else {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let server = tonic::transport::Server::builder().layer(layer).add_service(router);
                server.serve_with_incoming(incoming).await.unwrap();
            }
        });
        // Instances come by a door of their own.
        let register = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve(inner, std::future::pending::<()>()).await.unwrap() }
        });
        let probe = Probe::new("a");
        let service = MyServiceServer::new(probe.clone());
        let backend = grpcrouter_runtime::Backend::builder().gateway(format!("http://{inside}")).instance_id("a");
        let backend = TestBackend::serve(backend.add_service(service).build().unwrap(), probe);
        eventually("the backend has registered", || gateway.stats().instances == 1).await;
        Self { address, gateway, server, register, backend }
    }

    async fn call(&self, headers: &[(&str, &str)]) -> RawEnd {
        let client = RawClient::connect(self.address).await.unwrap().0;
        client.unary(METHOD1, headers, &Method1Request { text: "x".to_owned() }).await.unwrap()
    }

    async fn stop(self) {
        self.backend.stop().await;
        self.server.abort();
        self.register.abort();
        eventually("no call is open", || self.gateway.stats().calls == 0).await;
    }
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn the_layer_gives_the_answers_of_the_gateways_own_front() {
    let files = Files::new();
    let callers = files.callers();
    let token = format!("Bearer {}", forge::good());
    let front = crate::Place::new(callers.clone()).await;

    for axum in [false, true] {
        let place = Mounted::start(callers.layer().unwrap(), axum).await;
        let own = [("x-grpcrouter-principal", "jwt:root")];

        for headers in [&own[..], &[("authorization", "Bearer x")], &[("x-api-key", "grk_a_b")]] {
            assert_eq!(refusal(&place.call(headers).await), refusal(&front.call(headers).await), "{axum} {headers:?}");
        }
        let good = place.call(&[("authorization", &token), own[0]]).await;
        assert_eq!((good.code(), header(&good, "x-told-principal")), (0, "jwt:alice"), "{axum}: {}", good.message());
        assert!(!header(&good, "x-keys").contains("authorization"), "{axum}: {:?}", good.headers);
        assert_eq!(place.backend.probe.times("method1 begins"), 1, "{axum}");
        place.stop().await;
    }

    front.stop().await;
}

#[tokio::test]
async fn a_place_is_held_until_the_response_is_over() {
    let callers = Callers::new().limit(RateLimit::concurrent(1).key(By::Address));
    let layer =
        callers.layer().unwrap().address(|extensions| Some(extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip()));
    let place = Mounted::start(layer, false).await;
    let client = RawClient::connect(place.address).await.unwrap().0;
    let slow = myservice::proto::Method2Request { text: grpcrouter_tests::probe::say::STALL.to_owned(), count: 2 };

    let mut running = client.call("/myservice.MyService/Method2", &[]).await.unwrap();
    running.request.send_data(grpcrouter_tests::raw::frame(&slow), true).unwrap();
    let response = running.response.await.unwrap();
    let over = place.call(&[]).await;
    drop((response, running.request));
    eventually("the call is over", || place.gateway.stats().calls == 0).await;
    let after = place.call(&[]).await;

    assert_eq!((over.code(), after.code()), (crate::RESOURCE_EXHAUSTED, 0));
    place.stop().await;
}
