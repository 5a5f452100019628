//! gRPC as a client and a service see it through the gateway: what comes in, what crosses and in which form, how streams
//! end, and each answer that the gateway or the backend gives in place of the service.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "semantics/answers.rs"]
mod answers;
#[path = "semantics/embedded.rs"]
mod embedded;
#[path = "semantics/intake.rs"]
mod intake;
#[path = "semantics/metadata.rs"]
mod metadata;
#[path = "semantics/reasons.rs"]
mod reasons;
#[path = "semantics/sizes.rs"]
mod sizes;
#[path = "semantics/streams.rs"]
mod streams;

use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{CallId, Event, Headers, ResponsePart, Start, Trailers};
use grpcrouter_runtime::GatewayBuilder;
use grpcrouter_tests::{
    by_hand::ByHand,
    raw::{RawCall, RawClient, RawEnd, frame},
    world::{PATIENCE, TestGateway},
};
use myservice::proto::Method1Request;
use tokio::{task::JoinHandle, time::timeout};

const METHOD1: &str = "/myservice.MyService/Method1";
const METHOD2: &str = "/myservice.MyService/Method2";
const METHOD3: &str = "/myservice.MyService/Method3";
const STREAM_METHOD: &str = "/myservice.MyService/StreamMethod";

/// A raw client on one side of a gateway, an instance by hand on the other.
struct Between {
    gateway: TestGateway,
    instance: ByHand,
    client: RawClient,
    connection: JoinHandle<()>,
}

/// A call as the instance has it.
struct Taken {
    id: CallId,
    start: Start,
    /// What remains, if there is a deadline.
    left: Option<Duration>,
    data: Bytes,
    half_close: bool,
}

impl Between {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let gateway = TestGateway::start_with(settings).await;
        let instance = ByHand::register(gateway.address, "by hand").await.unwrap();
        gateway.instances(1).await;
        let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
        Self { gateway, instance, client, connection }
    }

    /// Begins a call with a small message.
    async fn call(&self, path: &str, headers: &[(&str, &str)]) -> RawCall {
        let mut call = self.client.call(path, headers).await.unwrap();
        call.request.send_data(message(), true).unwrap();
        call
    }

    /// The next call that reaches the instance.
    async fn taken(&mut self) -> Taken {
        loop {
            let event = timeout(PATIENCE, self.instance.event()).await.unwrap().unwrap();
            if let Event::Started { call: id, start, deadline, data, half_close } = event {
                // Acks the start, so that the gateway does not wait for it.
                self.instance.transmit().unwrap();
                let left = deadline.map(|deadline| self.instance.left(deadline));
                return Taken { id, start, left, data, half_close };
            }
        }
    }

    /// A whole call: begun with these headers, answered with this.
    async fn exchange(&mut self, headers: &[(&str, &str)], part: ResponsePart) -> (Taken, RawEnd) {
        let call = self.call(METHOD1, headers).await;
        let taken = self.taken().await;
        self.instance.respond(taken.id, part).unwrap();
        (taken, end(call).await)
    }

    async fn stop(self) {
        self.instance.die();
        drop(self.client);
        self.connection.abort();
        self.gateway.stop(Vec::new()).await;
    }
}

async fn end(call: RawCall) -> RawEnd {
    timeout(PATIENCE, call.end()).await.unwrap().unwrap()
}

fn message() -> Bytes {
    frame(&Method1Request { text: "x".to_owned() })
}

/// A message of so many bytes, prefix and all.
fn long(length: u32) -> Bytes {
    [&[0][..], &length.to_be_bytes(), &vec![7; length as usize]].concat().into()
}

/// A good answer of nothing but a head and the status.
fn ok() -> ResponsePart {
    ResponsePart { headers: Some(Headers::default()), data: Bytes::new(), trailers: Some(Trailers::default()) }
}
