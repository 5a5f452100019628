//! What an instance may say of itself, and what it is told when it says too much.

use grpcrouter_protocol::{Hello, InstanceId};
use grpcrouter_tests::{by_hand::ByHand, world::TestGateway};

use super::*;

/// What the gateway answers to this.
async fn refusal(gateway: &TestGateway, hello: Hello) -> String {
    ByHand::hello(gateway.address, &hello).await.unwrap_err().to_string()
}

fn introduction(id: &str) -> Hello {
    ByHand::introduction(id, 16).unwrap()
}

#[tokio::test]
async fn keys_labels_and_names_without_measure_are_refused_with_the_limit() {
    let gateway = TestGateway::of(balanced(LoadBalancing::RoundRobin)).await;
    let keys =
        |count: usize| Hello { routing_keys: (0..count).map(|n| format!("k{n}")).collect(), ..introduction("a") };
    let labels = |count: usize| Hello {
        labels: (0..count).map(|n| (format!("l{n}"), "v".to_owned())).collect(),
        ..introduction("a")
    };

    let many = refusal(&gateway, keys(1_025)).await;
    assert!(
        many.contains("ResourceExhausted") && many.contains("1025 routing keys: an instance may name 1024"),
        "{many}"
    );
    for (hello, part) in [
        (keys(10_001), "routing_keys: 10001, at most 10000 are taken"),
        (keys(1_000_000), "message"),
        (labels(65), "labels: 65, at most 64 are taken"),
        (Hello { labels: [("l".to_owned(), "v".repeat(300))].into(), ..introduction("a") }, "label's value: 300"),
        (Hello { routing_keys: vec!["k".repeat(10_240)], ..introduction("a") }, "a routing key"),
        (Hello { routing_keys: vec![String::new()], ..introduction("a") }, "a routing key"),
        (Hello { software_version: "v".repeat(300), ..introduction("a") }, "software_version: 300"),
    ] {
        let refused = refusal(&gateway, hello).await;
        assert!(refused.contains(part), "{part:?} is not in {refused:?}");
    }
    assert_eq!(gateway.gateway.instances(), []);

    let most = Hello { instance_id: InstanceId::parse("most").unwrap(), ..keys(1_024) };
    let hand = ByHand::hello(gateway.address, &most).await.unwrap();
    assert_eq!(gateway.gateway.instances()[0].routing_keys.len(), 1_024);
    hand.die();
    gateway.instances(0).await;
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn weights_of_zero_and_without_measure_mean_one_and_a_thousand() {
    let gateway = TestGateway::of(balanced(LoadBalancing::WeightedRoundRobin)).await;
    for (id, said, meant) in [("zero", 0, 1), ("huge", u32::MAX, 1000)] {
        let hand = ByHand::hello(gateway.address, &Hello { weight: said, ..introduction(id) }).await.unwrap();
        assert_eq!(gateway.gateway.instances()[0].weight, meant, "{id}");
        hand.die();
        gateway.instances(0).await;
    }
    gateway.stop(Vec::new()).await;
}
