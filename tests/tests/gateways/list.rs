//! The list of gateways, as instances are told it.

use grpcrouter_protocol::Event;
use grpcrouter_tests::{
    by_hand::ByHand,
    world::{TestGateway, no_task_left},
};

use super::heard;

#[tokio::test]
async fn an_instance_is_told_of_the_other_gateways_when_it_is_let_in() {
    let all = ["https://a.example", "https://b.example:8443", "https://c.example"];
    let gateway = TestGateway::start_with(|builder| builder.advertise("https://a.example").peers(all)).await;

    let instance = ByHand::register(gateway.address, "a").await.unwrap();

    assert_eq!(instance.accepted.gateways, ["https://b.example:8443", "https://c.example:443"]);
    instance.die();
    gateway.begin_stop().await.unwrap().unwrap();
    no_task_left().await;
}

#[tokio::test]
async fn a_name_is_looked_up_and_whoever_came_before_the_answer_is_told_of_it() {
    // Every machine knows this name. It may have the address of IPv6 too.
    let gateway = TestGateway::start_with(|builder| builder.peers_dns("http://localhost:7")).await;
    let found = "http://127.0.0.1:7".to_owned();

    let mut instance = ByHand::register(gateway.address, "a").await.unwrap();

    let told = match std::mem::take(&mut instance.accepted.gateways) {
        none if none.is_empty() => match heard(&mut instance).await {
            Event::PeersChanged { gateways } => gateways,
            other => panic!("{other:?}"),
        },
        told => told,
    };
    assert!(told.contains(&found), "{told:?}");
    instance.die();
    gateway.begin_stop().await.unwrap().unwrap();
    no_task_left().await;
}
