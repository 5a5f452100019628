//! Resume as the gateway sees it: who gets a tunnel back and who does not, what a tunnel without a stream is, and what
//! ends it. The instances are driven by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "resume_gateway/away.rs"]
mod away;
#[path = "resume_gateway/counters.rs"]
mod counters;
#[path = "resume_gateway/races.rs"]
mod races;
#[path = "resume_gateway/tokens.rs"]
mod tokens;

use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{CallId, Headers, Hello, Rejected, ResponsePart, Trailers, Welcome};
use grpcrouter_runtime::{GatewayBuilder, InstanceState};
use grpcrouter_tests::{
    by_hand::{ByHand, Stream},
    raw::{RawCall, RawClient, RawEnd, frame},
    world::{PATIENCE, TestGateway, eventually, no_task_left},
};
use myservice::proto::{Method1Request, Method1Response};
use tokio::time::timeout;

const METHOD1: &str = "/myservice.MyService/Method1";

/// Longer than any test is patient.
const LONG: Duration = Duration::from_secs(300);

/// A gateway, an instance "a" of a test's own, and a client with a call that the instance has.
struct Place {
    gateway: TestGateway,
    instance: ByHand,
    client: RawClient,
    call: RawCall,
    id: CallId,
}

impl Place {
    async fn new() -> Self {
        Self::with(|builder| builder.resume_window(LONG)).await
    }

    async fn with(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let gateway = TestGateway::start_with(|builder| settings(builder.drain_timeout(LONG))).await;
        let mut instance = ByHand::register(gateway.address, "a").await.unwrap();
        gateway.instances(1).await;
        let client = gateway.raw().await;
        let call = begin(&client, &[]).await;
        let id = started(&mut instance).await;
        Self { gateway, instance, client, call, id }
    }

    /// The connection of the instance is lost, and the gateway knows it.
    async fn cut(&mut self) {
        self.instance.lose().await;
        self.state("a", Some(InstanceState::Away)).await;
    }

    /// The instance has its tunnel back.
    async fn resume(&mut self) {
        self.instance.resume(self.gateway.address).await.unwrap();
        self.state("a", Some(InstanceState::Ready)).await;
    }

    /// Returns when the last tunnel of `id` is so; `None`: it is gone.
    async fn state(&self, id: &str, state: Option<InstanceState>) {
        is(&self.gateway, id, state).await;
    }

    /// What the gateway answers to this Hello, which it does not take.
    async fn refused(&self, hello: &Hello) -> Rejected {
        match timeout(PATIENCE, Stream::open(self.gateway.address, &[], hello)).await.unwrap().unwrap() {
            (_, Welcome::Rejected(rejected)) => rejected,
            (_, welcome) => panic!("{welcome:?}"),
        }
    }

    /// The instance answers its call, and the client has exactly that; then all ends with nothing left.
    async fn goes_on(mut self) {
        self.instance.respond(self.id, answer("done")).unwrap();
        let end = end(self.call).await;
        assert_eq!((end.code(), end.body), (0, frame(&response("done"))));
        drop(self.client);
        self.instance.die();
        timeout(PATIENCE, self.gateway.begin_stop()).await.unwrap().unwrap().unwrap();
        no_task_left().await;
    }

    /// The call has ended for want of its instance.
    async fn is_lost(call: RawCall) {
        let end = end(call).await;
        assert_eq!((end.code(), end.reason().1.as_str()), (14, "MAYBE_EXECUTED"), "{end:?}");
    }
}

/// Returns when the last tunnel of `id` is so; `None`: it is gone.
async fn is(gateway: &TestGateway, id: &str, state: Option<InstanceState>) {
    let seen = || gateway.gateway.instances().into_iter().rev().find(|one| one.id == id).map(|one| one.state);
    eventually(&format!("{id} is {state:?}"), || seen() == state).await;
}

async fn begin(client: &RawClient, headers: &[(&str, &str)]) -> RawCall {
    let mut call = client.call(METHOD1, headers).await.unwrap();
    call.request.send_data(frame(&Method1Request { text: "x".to_owned() }), true).unwrap();
    call
}

async fn started(instance: &mut ByHand) -> CallId {
    timeout(PATIENCE, instance.started()).await.unwrap().unwrap().0
}

async fn end(call: RawCall) -> RawEnd {
    timeout(PATIENCE, call.end()).await.expect("an end").unwrap()
}

fn response(text: &str) -> Method1Response {
    Method1Response { text: text.to_owned(), ..Method1Response::default() }
}

/// A whole answer.
fn answer(text: &str) -> ResponsePart {
    let data = Bytes::from(frame(&response(text)).to_vec());
    ResponsePart { headers: Some(Headers::default()), data, trailers: Some(Trailers::default()) }
}
