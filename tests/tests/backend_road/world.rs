//! The world around: clients that never rest, and gateways that are none or will not.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use grpcrouter_protocol::{RejectReason, Rejected, Welcome, encode_welcome};
use grpcrouter_tests::world::{TestGateway, eventually};
use myservice::proto::Method1Request;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Clients that call without a pause; no call may fail.
pub(crate) struct Callers {
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<usize>>,
}

impl Callers {
    pub(crate) async fn start(gateway: &TestGateway) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let mut client = gateway.client().await;
            let stop = stop.clone();
            tasks.push(tokio::spawn(async move {
                let mut calls = 0;
                while !stop.is_cancelled() {
                    client.method1(Method1Request { text: "x".to_owned() }).await.expect("no call fails");
                    calls += 1;
                }
                calls
            }));
        }
        Self { stop, tasks }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            assert!(task.await.unwrap() > 0);
        }
    }
}

/// Begins four calls, which must all be answered, and returns when the gateway has them. They end with who answered.
pub(crate) async fn four_calls(gateway: &TestGateway) -> Vec<tokio::task::JoinHandle<String>> {
    let client = gateway.client().await;
    let calls = (0..4).map(|_| {
        let mut client = client.clone();
        let request = Method1Request { text: "x".to_owned() };
        tokio::spawn(async move { client.method1(request).await.expect("no call fails").into_inner().instance_id })
    });
    let calls = calls.collect();
    eventually("the gateway has four calls", || gateway.gateway.stats().calls == 4).await;
    calls
}

/// An address at which nothing listens.
pub(crate) async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Plays a gateway that rejects whoever comes.
pub(crate) async fn refuse(socket: TcpStream, retry_after: Duration) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    while let Some(Ok((_request, mut respond))) = connection.accept().await {
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        let rejected = Welcome::Rejected(Rejected {
            reason: RejectReason::Flapping,
            message: "two of them".to_owned(),
            retry_after,
            gateways: Vec::new(),
            versions: None,
        });
        let welcome: Bytes = encode_welcome(&rejected);
        stream.send_data(welcome, false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        stream.send_trailers(trailers).unwrap();
    }
}
