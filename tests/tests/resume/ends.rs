//! What ends while there is no connection, and what ends because there was none for too long.

use std::time::Duration;

use grpcrouter_tests::{
    probe::say,
    relay::Cut,
    world::{PATIENCE, eventually},
};
use myservice::proto::{Method1Request, Method2Request};
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::world::Road;

/// Longer than any test is patient: what ends does so by itself.
const LONG: Duration = Duration::from_secs(300);

fn stall() -> Method1Request {
    Method1Request { text: say::STALL.to_owned() }
}

async fn answers(road: &Road) {
    let mut client = road.client().await;
    let answer = client.method1(Method1Request { text: "x".to_owned() });
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().into_inner().instance_id, "a");
}

#[tokio::test]
async fn a_deadline_that_passes_while_there_is_no_connection_ends_the_call_on_both_sides() {
    let road = Road::start().await;
    // It enforces nothing itself: what it sees is what the gateway did.
    let client = road.gateway.raw().await;
    let call =
        tokio::spawn(
            async move { client.unary("/myservice.MyService/Method1", &[("grpc-timeout", "2S")], &stall()).await },
        );
    road.backend.probe.saw("method1 begins", 1).await;

    road.lose().await;

    let end = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
    assert_eq!(end.code(), Code::DeadlineExceeded as i32);
    assert_eq!(road.relay.open(), 0, "there was no connection all the time");
    road.backend.probe.saw("method1 dropped", 1).await;
    road.relay.refuse(false);
    road.gateway.instances(1).await;
    answers(&road).await;
    assert_eq!(road.gateway.gateway.stats().tunnels, 1);
    road.end().await;
}

#[tokio::test]
async fn a_call_that_its_client_leaves_while_there_is_no_connection_is_cancelled_when_there_is_one() {
    let road = Road::start().await;
    let mut client = road.client().await;
    let call = tokio::spawn(async move { client.method1(stall()).await });
    road.backend.probe.saw("method1 begins", 1).await;
    road.lose().await;

    call.abort();
    road.gateway.idle().await;
    // Nobody can have told it.
    assert_eq!(road.backend.probe.times("method1 dropped"), 0);

    road.relay.refuse(false);
    road.backend.probe.saw("method1 dropped", 1).await;
    answers(&road).await;
    road.end().await;
}

#[tokio::test]
async fn a_tunnel_without_a_connection_for_too_long_is_over_with_its_calls_and_the_instance_comes_back() {
    let road = Road::with(|builder| builder.resume_window(Duration::from_millis(300))).await;
    let mut client = road.client().await;
    let call = tokio::spawn(async move { client.method1(stall()).await });
    road.backend.probe.saw("method1 begins", 1).await;

    road.lose().await;

    let status = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().metadata["outcome"], "MAYBE_EXECUTED", "{status:?}");
    road.backend.probe.saw("method1 dropped", 1).await;
    eventually("the backend has no tunnel", || road.backend.backend.stats().tunnels == 0).await;

    road.relay.refuse(false);
    road.gateway.instances(1).await;
    answers(&road).await;
    assert_eq!(road.backend.probe.times("method1 begins"), 2);
    road.end().await;
}

#[tokio::test]
async fn a_gateway_that_was_killed_and_started_again_knows_no_tunnel_and_gets_a_new_one() {
    // It does not wait for so long to know it.
    let road = Road::with(|builder| builder.resume_window(LONG)).await;
    let mut client = road.client().await;
    let call = tokio::spawn(async move { client.method1(stall()).await });
    road.backend.probe.saw("method1 begins", 1).await;
    let address = road.gateway.address;

    // The new one is there before the backend hears of the old one's end.
    road.relay.hold(grpcrouter_tests::relay::Way::Back);
    let served = road.gateway.begin_stop();
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    assert!(timeout(PATIENCE, call).await.unwrap().unwrap().is_err());
    let gateway = grpcrouter_tests::world::TestGateway::start_on(&address.to_string()).await;
    road.relay.release();
    road.relay.cut(Cut::Reset);

    gateway.instances(1).await;
    road.backend.probe.saw("method1 dropped", 1).await;
    let road = Road { gateway, ..road };
    answers(&road).await;
    road.end().await;
}

#[tokio::test]
async fn a_backend_that_is_stopped_while_there_is_no_connection_comes_back_to_finish_its_calls() {
    let road = Road::start().await;
    let mut client = road.client().await;
    let request = Method2Request { text: say::SLOW.to_owned(), count: 4 };
    let mut answers = timeout(PATIENCE, client.method2(request)).await.unwrap().unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    road.lose().await;

    let Road { gateway, relay, backend } = road;
    let stopped = backend.begin_stop();
    relay.refuse(false);

    for index in 1..4 {
        let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().expect("an answer");
        assert_eq!(answer.index, index);
    }
    assert_eq!(timeout(PATIENCE, answers.message()).await.unwrap().unwrap(), None);
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    drop((client, answers, relay));
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_backend_that_is_stopped_with_nothing_to_finish_does_not_wait_for_a_gateway_that_is_gone() {
    let road = Road::with(|builder| builder.resume_window(LONG)).await;
    road.lose().await;

    let Road { gateway, relay, backend } = road;
    timeout(PATIENCE, backend.begin_stop()).await.unwrap().unwrap().unwrap();

    assert_eq!(relay.open(), 0);
    gateway.begin_stop().abort();
}
