//! What became of a call whose instance did not answer it: each outcome on each way, who executed it and how often, and
//! which calls go to another instance.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "outcomes/again.rs"]
mod again;
#[path = "outcomes/budget.rs"]
mod budget;
#[path = "outcomes/inside.rs"]
mod inside;
#[path = "outcomes/never.rs"]
mod never;
#[path = "outcomes/told.rs"]
mod told;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grpcrouter_protocol::{CallId, Event, Headers, ResponsePart, Start, Trailers};
use grpcrouter_runtime::{Gateway, GatewayBuilder, IdempotencyLevel, ServiceRoutes};
use grpcrouter_tests::{
    by_hand::ByHand,
    raw::{RawCall, RawClient, RawEnd, frame},
    world::{PATIENCE, TestGateway, eventually},
};
use myservice::proto::Method1Request;
use tokio::{task::JoinHandle, time::timeout};

const METHODS: [&str; 4] = ["Method1", "Method2", "Method3", "StreamMethod"];

/// One of the four kinds of methods.
#[derive(Debug, Clone, Copy)]
struct Kind {
    path: &'static str,
    /// The client sends a stream.
    uploads: bool,
}

const UNARY: Kind = Kind { path: "/myservice.MyService/Method1", uploads: false };
const UPLOAD: Kind = Kind { path: "/myservice.MyService/Method3", uploads: true };
const KINDS: [Kind; 4] = [
    UNARY,
    Kind { path: "/myservice.MyService/Method2", uploads: false },
    UPLOAD,
    Kind { path: "/myservice.MyService/StreamMethod", uploads: true },
];

/// A gateway, and a client that mends nothing.
struct Place {
    gateway: TestGateway,
    client: RawClient,
    connection: JoinHandle<()>,
}

impl Place {
    /// Of the example's service, all of whose methods have this level.
    async fn of(level: IdempotencyLevel) -> Self {
        Self::with(level, |builder| builder).await
    }

    async fn with(level: IdempotencyLevel, settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let routes = ServiceRoutes::new("myservice.MyService").routing_key("instanceid");
        let routes =
            routes.unary(METHODS[0]).server_streaming(METHODS[1]).client_streaming(METHODS[2]).bidi(METHODS[3]);
        let routes = METHODS.into_iter().fold(routes, |routes, method| routes.idempotency_level(method, level));
        let builder = Gateway::builder().add_service(routes).drain_timeout(Duration::from_secs(2));
        Self::on(TestGateway::of(settings(cut_is_lost(builder))).await).await
    }

    async fn on(gateway: TestGateway) -> Self {
        let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
        Self { gateway, client, connection }
    }

    /// One more instance of the service.
    async fn instance(&self, id: &str) -> Instance {
        Instance(instance(&self.gateway, id).await)
    }

    /// The same, while others may come or go.
    async fn instance_beside(&self, id: &str) -> Instance {
        let instance = ByHand::register(self.gateway.address, id).await.unwrap();
        let gateway = &self.gateway.gateway;
        eventually("it is there", || gateway.instances().iter().any(|one| one.id == id)).await;
        Instance(instance)
    }

    /// Begins a call; its only message, or the first of several, is `text`.
    async fn call(&self, kind: Kind, headers: &[(&str, &str)], text: &str) -> RawCall {
        let mut call = self.client.call(kind.path, headers).await.unwrap();
        call.request.send_data(message(text), !kind.uploads).unwrap();
        call
    }

    /// No call but this one ever came to `instance`.
    async fn had_none(&self, instance: &mut Instance, id: &str) {
        let call = self.call(UNARY, &[("instanceid", id), ("x-which", "last")], "last").await;
        let taken = instance.taken().await;
        assert_eq!(taken.header("x-which").as_deref(), Some("last"), "a call came to {id} before");
        instance.answer(&taken);
        assert_eq!(end(call).await.code(), 0);
    }

    async fn stop(self, instances: Vec<Instance>) {
        instances.into_iter().for_each(Instance::die);
        drop(self.client);
        self.connection.abort();
        self.gateway.stop(Vec::new()).await;
    }
}

/// An instance whose stream is cut is lost at once: these tests are about what becomes of its calls then.
fn cut_is_lost(builder: GatewayBuilder) -> GatewayBuilder {
    builder.resume_window(Duration::ZERO)
}

async fn instance(gateway: &TestGateway, id: &str) -> ByHand {
    let before = gateway.gateway.stats().instances;
    let instance = ByHand::register(gateway.address, id).await.unwrap();
    gateway.instances(before + 1).await;
    instance
}

/// An instance that does what a test says.
struct Instance(ByHand);

/// A call as an instance has it.
struct Taken {
    id: CallId,
    start: Start,
    data: BytesMut,
    half_close: bool,
}

impl Taken {
    fn header(&self, name: &str) -> Option<String> {
        let found = self.start.metadata.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
    }

    fn attempts(&self) -> Option<String> {
        self.header("grpc-previous-rpc-attempts")
    }
}

impl Instance {
    async fn event(&mut self) -> Event {
        let event = timeout(PATIENCE, self.0.event()).await.unwrap().unwrap();
        // The gateway is told that it came.
        self.0.transmit().unwrap();
        event
    }

    /// The next call, as far as it comes with its start.
    async fn taken(&mut self) -> Taken {
        loop {
            if let Event::Started { call: id, start, data, half_close, .. } = self.event().await {
                self.0.consumed(id, data.len()).unwrap();
                return Taken { id, start, data: BytesMut::from(&data[..]), half_close };
            }
        }
    }

    /// More of the call, until so much of it is there.
    async fn read(&mut self, taken: &mut Taken, len: usize) {
        while taken.data.len() < len {
            self.more(taken).await;
        }
    }

    async fn read_to_end(&mut self, taken: &mut Taken) {
        while !taken.half_close {
            self.more(taken).await;
        }
    }

    async fn more(&mut self, taken: &mut Taken) {
        if let Event::Request { call, data, half_close } = self.event().await
            && call == taken.id
        {
            taken.data.extend_from_slice(&data);
            taken.half_close = half_close;
            self.0.consumed(call, data.len()).unwrap();
        }
    }

    fn respond(&mut self, taken: &Taken, headers: bool, trailers: bool) {
        let headers = headers.then(Headers::default);
        let part = ResponsePart { headers, data: Bytes::new(), trailers: trailers.then(Trailers::default) };
        self.0.respond(taken.id, part).unwrap();
    }

    fn answer(&mut self, taken: &Taken) {
        self.respond(taken, true, true);
    }

    fn die(self) {
        self.0.die();
    }
}

async fn end(call: RawCall) -> RawEnd {
    timeout(PATIENCE, call.end()).await.unwrap().unwrap()
}

fn message(text: &str) -> Bytes {
    frame(&Method1Request { text: text.to_owned() })
}

/// A message of so many bytes, prefix and all.
fn long(length: usize) -> Bytes {
    let body = u32::try_from(length - 5).unwrap();
    [&[0][..], &body.to_be_bytes(), &vec![7; length - 5]].concat().into()
}

#[track_caller]
fn is(end: &RawEnd, code: i32, reason: &str, outcome: &str) {
    assert_eq!((end.http_status, end.code()), (200, code), "{}", end.message());
    assert_eq!(end.reason(), (reason.to_owned(), outcome.to_owned()), "{}", end.message());
}

const DEADLINE_EXCEEDED: i32 = 4;
const UNAVAILABLE: i32 = 14;
