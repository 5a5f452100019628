//! Each balancing, with backends that answer.

use std::time::Instant;

use grpcrouter_tests::{
    by_hand::ByHand,
    deadlines::long_enough,
    probe::say,
    world::{TestBackend, TestGateway, eventually},
};
use myservice::proto::Method2Request;

use super::*;

const THREE: [(&str, u32); 3] = [("a", 1), ("b", 1), ("c", 1)];

#[tokio::test]
async fn round_robin_gives_each_the_same_number_whatever_they_weigh() {
    let mut fleet = fleet(LoadBalancing::RoundRobin, &[("a", 9), ("b", 1), ("c", 1)]).await;

    assert_eq!(fleet.shares(30).await, shares([("a", 10), ("b", 10), ("c", 10)]));
    fleet.stop().await;
}

#[tokio::test]
async fn weighted_round_robin_gives_each_its_share() {
    let mut fleet = fleet(LoadBalancing::WeightedRoundRobin, &[("a", 6), ("b", 3), ("c", 1)]).await;

    let got = fleet.shares(200).await;

    for (id, due) in [("a", 120_usize), ("b", 60), ("c", 20)] {
        assert!(got[id].abs_diff(due) <= 2, "{id} of {got:?}");
    }
    fleet.stop().await;
}

#[tokio::test]
async fn random_reaches_everybody_and_takes_no_turns() {
    let mut fleet = fleet(LoadBalancing::Random, &THREE).await;
    let mut order = Vec::new();
    for _ in 0..90 {
        order.push(fleet.ask(None, "t").await.unwrap());
    }

    for (id, _) in THREE {
        let got = order.iter().filter(|one| *one == id).count();
        assert!((10..=60).contains(&got), "{id}: {got} of 90");
    }
    assert!(order.windows(2).any(|two| two[0] == two[1]), "{order:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn least_request_keeps_away_from_the_busy_one() {
    let mut fleet = fleet(LoadBalancing::LeastRequest, &[("a", 1), ("b", 1)]).await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut client = fleet.client.clone();
        stalled.push(tokio::spawn(async move { client.method1(request(Some("a"), say::STALL)).await }));
    }
    fleet.backends[0].probe.saw("method1 begins", 3).await;

    assert_eq!(fleet.shares(30).await, shares([("b", 30)]));

    stalled.iter().for_each(tokio::task::JoinHandle::abort);
    fleet.backends[0].probe.saw("method1 dropped", 3).await;
    fleet.gateway.idle().await;
    let after = fleet.shares(60).await;
    assert!(after["a"] >= 10 && after["b"] >= 10, "{after:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn peak_ewma_keeps_away_from_the_slow_one() {
    let mut fleet = fleet(LoadBalancing::PeakEwma, &[("a", 1), ("b", 1)]).await;
    let got = long_enough(async |deadline| {
        let mut slow = request(Some("a"), say::STALL);
        slow.set_timeout(deadline);
        fleet.client.method1(slow).await.unwrap_err();
        fleet.gateway.idle().await;
        let (began, got) = (Instant::now(), fleet.shares(30).await);
        // What b needs must be little beside it, on any machine.
        (began.elapsed() < deadline).then_some(got)
    })
    .await;

    assert_eq!(got, shares([("b", 30)]));
    fleet.stop().await;
}

#[tokio::test]
async fn consistent_hash_gives_a_key_to_the_same_instance_at_every_gateway_and_moves_only_what_a_newcomer_takes() {
    let mut other = fleet(LoadBalancing::ConsistentHash, &[("c", 1), ("a", 1), ("b", 1)]).await;
    let owners = other.owners(60).await;
    other.stop().await;

    let mut one = fleet(LoadBalancing::ConsistentHash, &THREE).await;
    assert_eq!(owners, one.owners(60).await);
    assert_eq!(owners, one.owners(60).await);
    assert!(THREE.iter().all(|(id, _)| owners.iter().any(|owner| owner == id)), "{owners:?}");

    let newcomer = TestBackend::start(&one.gateway, "d").await;
    one.backends.push(newcomer);
    let after = one.owners(60).await;
    let moved: Vec<_> = owners.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(_, after)| *after == "d"), "{moved:?}");
    assert!((1..=30).contains(&moved.len()), "{} of 60 moved", moved.len());

    // Gone as it came.
    one.backends.pop().unwrap().stop().await;
    one.gateway.instances(3).await;
    assert_eq!(one.owners(60).await, owners);
    // Without a key they take turns.
    assert_eq!(one.shares(9).await, shares([("a", 3), ("b", 3), ("c", 3)]));
    one.stop().await;
}

#[tokio::test]
async fn a_method_may_balance_otherwise_than_its_service() {
    let mut fleet = fleet(LoadBalancing::ConsistentHash, &THREE).await;
    let mut streamed = Vec::new();
    for _ in 0..6 {
        let request = Method2Request { text: "t".to_owned(), count: 1 };
        let mut answers = fleet.client.method2(request).await.unwrap().into_inner();
        streamed.push(answers.message().await.unwrap().unwrap().instance_id);
        assert!(answers.message().await.unwrap().is_none());
    }

    assert_eq!(streamed, ["a", "b", "c", "a", "b", "c"]);
    // Nobody claims this key: it is hashed for Method1 and unknown for Method2.
    fleet.ask(Some("tenant"), "t").await.unwrap();
    let mut request = Request::new(Method2Request { text: "t".to_owned(), count: 1 });
    request.metadata_mut().insert("instanceid", "tenant".parse().unwrap());
    assert_eq!(fleet.client.method2(request).await.unwrap_err().code(), tonic::Code::Unavailable);
    fleet.stop().await;
}

#[tokio::test]
async fn a_full_instance_is_passed_over() {
    let gateway = TestGateway::of(balanced(LoadBalancing::RoundRobin)).await;
    let full = ByHand::hello(gateway.address, &ByHand::introduction("full", 1).unwrap()).await.unwrap();
    gateway.instances(1).await;
    let mut holding = gateway.client().await;
    let held = tokio::spawn(async move { holding.method1(request(None, "held")).await });
    eventually("the call is held", || gateway.gateway.instances()[0].open_calls == 1).await;
    let mut backends = Vec::new();
    for id in ["a", "b"] {
        backends.push(TestBackend::start(&gateway, id).await);
    }
    let client = gateway.client().await;
    let mut fleet = Fleet { gateway, backends, client };

    assert_eq!(fleet.shares(10).await, shares([("a", 5), ("b", 5)]));

    held.abort();
    fleet.gateway.idle().await;
    full.die();
    fleet.stop().await;
}
