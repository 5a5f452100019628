//! What changes while the gateway runs: the balancing, the weights, who is here; and what is told of it.

use std::sync::{Arc, Mutex};

use grpcrouter_protocol::{Health, Time, Update};
use grpcrouter_runtime::{InstanceChange, InstanceState};
use grpcrouter_tests::{
    by_hand::ByHand,
    world::{TestBackend, TestGateway},
};
use tonic::Code;

use super::*;

#[tokio::test]
async fn the_balancing_of_a_service_can_be_changed_while_calls_come() {
    let mut fleet = fleet(LoadBalancing::RoundRobin, &[("a", 8), ("b", 1), ("c", 1)]).await;
    assert_eq!(fleet.shares(6).await, shares([("a", 2), ("b", 2), ("c", 2)]));
    assert_eq!(fleet.ask(Some("tenant"), "t").await.unwrap_err().code(), Code::Unavailable);

    fleet.gateway.gateway.balance("myservice.MyService", LoadBalancing::WeightedRoundRobin).unwrap();
    assert!(fleet.shares(100).await["a"].abs_diff(80) <= 2);

    fleet.gateway.gateway.balance("myservice.MyService", LoadBalancing::ConsistentHash).unwrap();
    let owner = fleet.ask(Some("tenant"), "t").await.unwrap();
    assert_eq!(fleet.ask(Some("tenant"), "t").await.unwrap(), owner);

    let error = fleet.gateway.gateway.balance("shop.Orders", LoadBalancing::Random).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no router of this gateway leads to the service shop.Orders; there are routers for myservice.MyService"
    );
    fleet.stop().await;
}

#[tokio::test]
async fn an_instance_can_change_its_weight_labels_and_health() {
    let gateway = TestGateway::of(balanced(LoadBalancing::WeightedRoundRobin)).await;
    let mut watch = gateway.gateway.watch();
    let mut hand = ByHand::register(gateway.address, "hand").await.unwrap();
    assert!(matches!(watch.next().await, Some(InstanceChange::Joined(one)) if one.id == "hand" && one.weight == 1));
    let mut say = |version, health, weight| {
        let labels = BTreeMap::from([("zone".to_owned(), format!("z{version}"))]);
        hand.tunnel.update(
            Update { version, health, weight, labels, load_permille: 500, not_serving: Vec::new() },
            Time::default(),
        );
        hand.transmit().unwrap();
    };

    say(1, Health::Serving, 7);
    let Some(InstanceChange::Changed(one)) = watch.next().await else { panic!("no change") };
    assert_eq!((one.weight, one.labels["zone"].as_str(), one.load_permille), (7, "z1", 500));
    assert_eq!(one.state, InstanceState::Ready);

    say(2, Health::NotServing, 7);
    let Some(InstanceChange::Changed(one)) = watch.next().await else { panic!("no change") };
    assert_eq!((one.state, gateway.gateway.stats().instances), (InstanceState::NotServing, 0));

    // Huge and zero are taken for the nearest that means something; so the proto file says.
    say(3, Health::Serving, u32::MAX);
    assert!(matches!(watch.next().await, Some(InstanceChange::Changed(one)) if one.weight == 1000));
    say(4, Health::Serving, 0);
    assert!(matches!(watch.next().await, Some(InstanceChange::Changed(one)) if one.weight == 1));

    hand.drain();
    hand.transmit().unwrap();
    assert!(matches!(watch.next().await, Some(InstanceChange::Changed(one)) if one.state == InstanceState::Draining));
    hand.die();
    let Some(InstanceChange::Left { instance, why }) = watch.next().await else { panic!("not left") };
    assert_eq!(instance.id, "hand");
    assert!(!why.is_empty());
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn the_list_the_watch_and_the_callback_tell_the_same() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let builder = balanced(LoadBalancing::RoundRobin).on_change({
        let told = told.clone();
        move |change| {
            let line = match change {
                InstanceChange::Joined(one) => format!("{} joined", one.id),
                InstanceChange::Changed(one) => format!("{} is {:?}", one.id, one.state),
                InstanceChange::Left { instance, .. } => format!("{} left", instance.id),
                other => format!("{other:?}"),
            };
            told.lock().unwrap().push(line);
        }
    });
    let gateway = TestGateway::of(builder).await;
    let mut watch = gateway.gateway.watch();
    let backend =
        TestBackend::start_with(&gateway, "a", |builder| builder.label("zone", "b").routing_key("eu").weight(5)).await;
    gateway.client().await.method1(request(Some("eu"), "t")).await.unwrap();
    gateway.idle().await;

    let list = gateway.gateway.instances();
    assert_eq!(list.len(), 1);
    let one = &list[0];
    assert_eq!((one.id.as_str(), one.weight, one.calls, one.open_calls), ("a", 5, 1, 0));
    assert_eq!((one.routing_keys.as_slice(), one.labels["zone"].as_str()), (["eu".to_owned()].as_slice(), "b"));
    assert_eq!(
        (one.services.as_slice(), one.state),
        (["myservice.MyService".to_owned()].as_slice(), InstanceState::Ready)
    );
    assert!(one.peer.starts_with("127.0.0.1:"), "{}", one.peer);

    backend.stop().await;
    gateway.instances(0).await;
    let mut watched = Vec::new();
    while !matches!(watched.last(), Some(InstanceChange::Left { .. })) {
        watched.push(watch.next().await.unwrap());
    }
    assert_eq!(*told.lock().unwrap(), ["a joined", "a is Draining", "a left"]);
    assert_eq!(watched.len(), 3);
    assert_eq!(gateway.gateway.instances(), []);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_service_without_instances_is_unavailable_and_one_without_a_router_is_unimplemented() {
    let gateway = TestGateway::of(balanced(LoadBalancing::RoundRobin)).await;
    let mut client = gateway.client().await;
    assert_eq!(client.method1(request(None, "t")).await.unwrap_err().code(), Code::Unavailable);

    let backend = TestBackend::start(&gateway, "a").await;
    client.method1(request(None, "t")).await.unwrap();
    backend.stop().await;
    gateway.instances(0).await;

    let status = client.method1(request(None, "t")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the last one, a, left"), "{}", status.message());
    // A method that is not among the routes, of a service that is known.
    let streaming = tokio_stream::empty::<myservice::proto::Method3Request>();
    assert_eq!(client.method3(streaming).await.unwrap_err().code(), Code::Unimplemented);
    drop(client);
    gateway.stop(Vec::new()).await;
}
