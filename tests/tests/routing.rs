//! How calls find an instance: by the key in the metadata, else in turns; under the bare path and under the prefix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use grpcrouter_tests::{
    raw::RawClient,
    world::{TestBackend, TestGateway},
};
use myservice::proto::{Method1Request, Method1Response, my_service_client::MyServiceClient};
use prost::Message;
use tonic::{Code, Request};

fn keyed(key: &str) -> Request<Method1Request> {
    let mut request = Request::new(Method1Request { text: "k".to_owned() });
    request.metadata_mut().insert("instanceid", key.parse().unwrap());
    request
}

async fn three() -> (TestGateway, Vec<TestBackend>) {
    let gateway = TestGateway::start().await;
    let mut backends = Vec::new();
    for id in ["a", "b", "c"] {
        backends.push(TestBackend::start(&gateway, id).await);
    }
    (gateway, backends)
}

#[tokio::test]
async fn a_key_names_the_instance() {
    let (gateway, backends) = three().await;
    let mut client = gateway.client().await;
    for key in ["b", "a", "c", "c", "b"] {
        assert_eq!(client.method1(keyed(key)).await.unwrap().into_inner().instance_id, key);
    }
    drop(client);
    gateway.stop(backends).await;
}

#[tokio::test]
async fn without_a_key_the_instances_take_turns() {
    let (gateway, backends) = three().await;
    let mut client = gateway.client().await;
    let mut answered = BTreeMap::new();
    for _ in 0..30 {
        let answer = client.method1(Method1Request { text: "t".to_owned() }).await.unwrap().into_inner();
        *answered.entry(answer.instance_id).or_insert(0) += 1;
    }
    assert_eq!(answered, BTreeMap::from([("a".to_owned(), 10), ("b".to_owned(), 10), ("c".to_owned(), 10)]));
    drop(client);
    gateway.stop(backends).await;
}

#[tokio::test]
async fn an_unknown_key_is_unavailable_and_never_answered_by_another() {
    let (gateway, backends) = three().await;
    let mut client = gateway.client().await;

    let status = client.method1(keyed("nobody")).await.unwrap_err();

    assert_eq!(status.code(), Code::Unavailable);
    for part in ["instanceid", "nobody", "myservice.MyService"] {
        assert!(status.message().contains(part), "{part:?} is not in {:?}", status.message());
    }
    drop(client);
    gateway.stop(backends).await;
}

#[tokio::test]
async fn the_path_prefix_is_served_beside_the_bare_path_and_the_backend_sees_the_bare_one() {
    let (gateway, backends) = three().await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    for path in ["/myservice.MyService/Method1", "/api/v1/myservice.MyService/Method1"] {
        let end = client.unary(path, &[], &Method1Request { text: "p".to_owned() }).await.unwrap();
        assert_eq!(end.code(), 0, "{path}: {}", end.message());
        assert_eq!(Method1Response::decode(&end.body[5..]).unwrap().text, "p");
    }
    drop(client);
    connection.abort();
    let channel = tonic::transport::Endpoint::new(gateway.uri()).unwrap().connect().await.unwrap();
    let origin = format!("{}/api/v1", gateway.uri()).parse().unwrap();
    let mut client = MyServiceClient::with_origin(channel, origin);
    assert_eq!(client.method1(keyed("b")).await.unwrap().into_inner().instance_id, "b");
    drop(client);
    gateway.stop(backends).await;
}

#[tokio::test]
async fn the_latest_hello_of_an_instance_takes_the_new_calls() {
    let gateway = TestGateway::start().await;
    let old = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;
    client.method1(keyed("a")).await.unwrap();
    old.probe.saw("method1 done", 1).await;

    let new = TestBackend::dial(&gateway.uri(), "a");
    grpcrouter_tests::world::eventually("the new one has a tunnel", || new.backend.stats().tunnels == 1).await;
    for _ in 0..10 {
        client.method1(keyed("a")).await.unwrap();
    }

    new.probe.saw("method1 done", 10).await;
    assert_eq!(old.probe.log().len(), 2);
    old.kill().await;
    drop(client);
    gateway.stop(vec![new]).await;
}
