//! An instance that keeps failing by itself is left out for a while.

use grpcrouter_runtime::{InstanceChange, InstanceState};
use grpcrouter_tests::{
    probe::say,
    world::{TestBackend, TestGateway},
};
use tonic::Code;

use super::*;

async fn panics(fleet: &mut Fleet, key: &str, times: usize) {
    for _ in 0..times {
        assert_eq!(fleet.ask(Some(key), say::PANIC).await.unwrap_err().code(), Code::Unknown);
    }
}

#[tokio::test]
async fn one_that_fails_ten_calls_in_a_row_gets_no_more_but_for_its_own_key() {
    let mut fleet = fleet(LoadBalancing::RoundRobin, &[("a", 1), ("b", 1), ("c", 1)]).await;
    let mut watch = fleet.gateway.gateway.watch();
    panics(&mut fleet, "a", 9).await;
    assert_eq!(fleet.gateway.gateway.instances()[0].state, InstanceState::Ready);

    panics(&mut fleet, "a", 1).await;

    let Some(InstanceChange::Changed(one)) = watch.next().await else { panic!("no change") };
    assert_eq!((one.id.as_str(), one.state), ("a", InstanceState::Ejected));
    assert_eq!(fleet.shares(20).await, shares([("b", 10), ("c", 10)]));
    assert_eq!(fleet.ask(Some("a"), "t").await.unwrap(), "a");

    // Of two that are left one more would be more than half.
    panics(&mut fleet, "b", 30).await;
    assert_eq!(fleet.shares(20).await, shares([("b", 10), ("c", 10)]));
    fleet.stop().await;
}

#[tokio::test]
async fn answers_that_a_client_asked_for_eject_nobody() {
    let mut fleet = fleet(LoadBalancing::RoundRobin, &[("a", 1), ("b", 1)]).await;

    for _ in 0..30 {
        assert_eq!(fleet.ask(Some("a"), say::FAIL).await.unwrap_err().code(), Code::FailedPrecondition);
    }

    assert_eq!(fleet.shares(20).await, shares([("a", 10), ("b", 10)]));
    fleet.stop().await;
}

#[tokio::test]
async fn it_can_be_turned_off_or_made_stricter() {
    for (after, share) in [(0, 10), (3, 0)] {
        let gateway = TestGateway::of(balanced(LoadBalancing::RoundRobin).eject_after(after)).await;
        let backends = vec![TestBackend::start(&gateway, "a").await, TestBackend::start(&gateway, "b").await];
        let client = gateway.client().await;
        let mut fleet = Fleet { gateway, backends, client };

        panics(&mut fleet, "a", 12).await;

        assert_eq!(fleet.shares(20).await.get("a").copied().unwrap_or(0), share, "eject_after({after})");
        fleet.stop().await;
    }
}
