//! A tunnel without a stream, and something else that happens to it: its time is over, the gateway stops, another process
//! or the same one comes anew.

use std::time::Duration;

use grpcrouter_protocol::{Hello, Incarnation, RejectReason};
use grpcrouter_runtime::InstanceState;
use grpcrouter_tests::{
    by_hand::ByHand,
    world::{PATIENCE, no_task_left},
};
use tokio::time::timeout;

use super::{Place, answer, begin, end, is, started};

/// Another process of the same instance id.
fn another(hello: &Hello) -> Hello {
    Hello { incarnation: Incarnation([9; 16]), ..hello.clone() }
}

#[tokio::test]
async fn after_the_window_the_calls_have_ended_and_the_tunnel_is_unknown() {
    let mut place = Place::with(|builder| builder.resume_window(Duration::from_millis(100))).await;
    place.instance.lose().await;

    Place::is_lost(place.call).await;
    is(&place.gateway, "a", None).await;
    // The instance waits a second longer than the gateway, so it still asks.
    let asked = place.instance.asks().unwrap();
    let refused = {
        let place_gateway = place.gateway.address;
        let (_, welcome) = grpcrouter_tests::by_hand::Stream::open(place_gateway, &[], &asked).await.unwrap();
        match welcome {
            grpcrouter_protocol::Welcome::Rejected(rejected) => rejected,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused.reason, RejectReason::Unknown);
    drop(place.client);
    timeout(PATIENCE, place.gateway.begin_stop()).await.unwrap().unwrap().unwrap();
    no_task_left().await;
}

#[tokio::test]
async fn with_no_window_a_lost_stream_is_the_end_and_there_is_no_token() {
    let mut place = Place::with(|builder| builder.resume_window(Duration::ZERO)).await;
    assert_eq!((place.instance.token.len(), place.instance.accepted.resume_window), (0, Duration::ZERO));

    place.instance.lose().await;

    Place::is_lost(place.call).await;
    is(&place.gateway, "a", None).await;
    drop(place.client);
    timeout(PATIENCE, place.gateway.begin_stop()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_gateway_that_stops_gives_tunnels_back_and_ends_when_their_calls_have() {
    let Place { gateway, mut instance, client, call, id } = Place::new().await;
    let address = gateway.address;
    let stopped = gateway.begin_stop();
    instance.lose().await;
    // A plain Hello is sent on; the tunnel is given back.
    let plain = ByHand::introduction("b", 16).unwrap();
    let rejected = ByHand::knock(address, None, &[], &plain).await.unwrap().unwrap_err();
    assert_eq!(rejected.reason, RejectReason::Draining);

    instance.resume(address).await.unwrap();

    assert!(!stopped.is_finished());
    instance.respond(id, answer("done")).unwrap();
    assert_eq!(end(call).await.code(), 0);
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    drop(client);
    instance.die();
    no_task_left().await;
}

#[tokio::test]
async fn a_process_that_was_started_again_ends_the_calls_of_the_one_before_at_once() {
    let mut place = Place::new().await;
    place.cut().await;

    let mut next = ByHand::hello(place.gateway.address, &another(&place.instance.hello)).await.unwrap();

    Place::is_lost(place.call).await;
    let asked = place.instance.asks().unwrap();
    let (_, welcome) = grpcrouter_tests::by_hand::Stream::open(place.gateway.address, &[], &asked).await.unwrap();
    assert!(matches!(welcome, grpcrouter_protocol::Welcome::Rejected(it) if it.reason == RejectReason::Unknown));
    place.call = begin(&place.client, &[]).await;
    place.id = started(&mut next).await;
    place.instance = next;
    place.goes_on().await;
}

#[tokio::test]
async fn the_same_process_that_says_a_plain_hello_has_given_its_tunnel_up() {
    let mut place = Place::new().await;
    place.cut().await;

    let mut anew = ByHand::hello(place.gateway.address, &place.instance.hello).await.unwrap();

    Place::is_lost(place.call).await;
    place.call = begin(&place.client, &[]).await;
    place.id = started(&mut anew).await;
    place.instance = anew;
    place.goes_on().await;
}

#[tokio::test]
async fn one_that_was_taken_over_keeps_its_calls_as_long_as_it_keeps_its_stream() {
    let mut place = Place::new().await;
    let second = begin(&place.client, &[]).await;
    let second_id = started(&mut place.instance).await;
    let mut next = ByHand::hello(place.gateway.address, &another(&place.instance.hello)).await.unwrap();
    place.state("a", Some(InstanceState::Ready)).await;

    place.instance.respond(second_id, answer("still here")).unwrap();
    assert_eq!(end(second).await.code(), 0);
    place.instance.lose().await;

    Place::is_lost(place.call).await;
    place.call = begin(&place.client, &[]).await;
    place.id = started(&mut next).await;
    place.instance = next;
    place.goes_on().await;
}

#[tokio::test]
async fn one_that_drains_keeps_its_calls_over_a_cut_though_its_successor_is_here() {
    let mut place = Place::new().await;
    place.instance.drain();
    place.instance.transmit().unwrap();
    place.state("a", Some(InstanceState::Draining)).await;
    let next = ByHand::hello(place.gateway.address, &another(&place.instance.hello)).await.unwrap();
    place.state("a", Some(InstanceState::Ready)).await;

    place.instance.lose().await;
    place.instance.resume(place.gateway.address).await.unwrap();

    next.die();
    place.goes_on().await;
}
