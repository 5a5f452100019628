//! Every strategy of routing over real sockets: from generated routers, and said by hand; with keys that are right, missing,
//! broken, doubled and endless.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "routing_strategies/by_hand.rs"]
mod by_hand;
#[path = "routing_strategies/field.rs"]
mod field;
#[path = "routing_strategies/header.rs"]
mod header;
#[path = "routing_strategies/metadata.rs"]
mod metadata;
#[path = "routing_strategies/parked.rs"]
mod parked;
#[path = "routing_strategies/path.rs"]
mod path;

use grpcrouter_runtime::GatewayBuilder;
use grpcrouter_tests::{
    echo::{
        EchoBackend,
        proto::{self, Ask, Told, ask::Customer, ask::customer::KnownBy},
    },
    raw::{RawCall, RawClient, RawEnd, frame},
    world::{PATIENCE, TestGateway},
};
use http::{HeaderValue, Request};
use prost::Message as _;

/// A gateway, its backends and a client of it.
struct Place {
    gateway: TestGateway,
    backends: Vec<EchoBackend>,
    client: RawClient,
}

impl Place {
    /// The generated gateway of tests/proto/routing.proto.
    async fn new(ids: &[&str]) -> Self {
        Self::of(proto::gateway(), ids).await
    }

    async fn of(builder: GatewayBuilder, ids: &[&str]) -> Self {
        let gateway = TestGateway::of(builder).await;
        let mut backends = Vec::new();
        for id in ids {
            backends.push(EchoBackend::start(&gateway, id).await);
        }
        let client = gateway.raw().await;
        Self { gateway, backends, client }
    }

    /// A unary call with these headers.
    async fn call(&self, path: &str, headers: &[(&str, &str)]) -> RawEnd {
        self.ask(path, headers, &Ask::default()).await
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)], ask: &Ask) -> RawEnd {
        let mut call = self.client.call(path, headers).await.unwrap();
        call.request.send_data(frame(ask), true).unwrap();
        ended(call).await
    }

    /// The same, with headers of any bytes.
    async fn call_with(&self, path: &str, headers: &[(&str, &[u8])]) -> RawEnd {
        let mut head = Request::post(format!("{}{path}", self.gateway.uri()))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        for (name, value) in headers {
            head = head.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let mut call = self.client.send(head.body(()).unwrap()).await.unwrap();
        call.request.send_data(frame(&Ask::default()), true).unwrap();
        ended(call).await
    }

    /// Who answered two calls, together: "ab" if they were balanced over a and b.
    async fn two(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let mut both = [who(&self.call(path, headers).await), who(&self.call(path, headers).await)];
        both.sort();
        both.concat()
    }

    async fn end(self) {
        let Self { gateway, backends, client } = self;
        drop(client);
        gateway.idle().await;
        for backend in backends {
            backend.stop().await;
        }
        gateway.stop(Vec::new()).await;
    }
}

/// How the call ended, which it does in time.
async fn ended(call: RawCall) -> RawEnd {
    tokio::time::timeout(PATIENCE, call.end()).await.expect("an end").unwrap()
}

/// The instance that answered.
fn who(end: &RawEnd) -> String {
    told(end).instance
}

fn told(end: &RawEnd) -> Told {
    assert_eq!(end.code(), 0, "{}", text(end));
    Told::decode(&end.body[5..]).unwrap()
}

/// The call was refused with INVALID_ARGUMENT for this reason, and the text has all of these.
fn invalid(end: &RawEnd, reason: &str, parts: &[&str]) {
    assert_eq!((end.code(), end.reason()), (3, (reason.to_owned(), "NOT_SENT".to_owned())), "{}", text(end));
    for part in parts {
        assert!(text(end).contains(part), "{part:?} is not in {:?}", text(end));
    }
}

/// The gRPC message, decoded.
fn text(end: &RawEnd) -> String {
    tonic::Status::from_header_map(&end.trailers).map(|status| status.message().to_owned()).unwrap_or_default()
}

/// A request whose customer has this id.
fn of_customer(id: &str) -> Ask {
    let customer = Customer { name: "n".into(), known_by: Some(KnownBy::Id(id.to_owned())) };
    Ask { customer: Some(customer), ..Ask::default() }
}
