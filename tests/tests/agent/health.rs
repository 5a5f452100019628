//! The health of an upstream is that of the instance.

use grpcrouter_runtime::Upstream;
use grpcrouter_tests::world::{TestGateway, eventually};
use myservice::proto::Method1Request;
use tonic::Code;
use tonic_health::ServingStatus;

use crate::SERVICE;
use crate::world::{Server, TestAgent, With};

/// Whether the gateway has an instance that takes calls.
fn ready(gateway: &TestGateway) -> bool {
    gateway.gateway.instances().iter().any(|instance| instance.state == grpcrouter_runtime::InstanceState::Ready)
}

#[tokio::test]
async fn what_the_upstream_says_of_its_health_is_told_on() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With { health: true, ..With::default() }).await;
    let agent = TestAgent::start(&gateway, Upstream::new(server.address.to_string()).service(SERVICE)).await;
    let mut client = gateway.client().await;
    eventually("the instance is ready", || ready(&gateway)).await;

    server.health.set_service_status("", ServingStatus::NotServing).await;
    eventually("the instance is ill", || !ready(&gateway)).await;
    let status = client.method1(Method1Request { text: "now".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);

    server.health.set_service_status("", ServingStatus::Serving).await;
    eventually("the instance is well", || ready(&gateway)).await;
    client.method1(Method1Request { text: "now".into() }).await.unwrap();
    drop(client);
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn an_upstream_that_is_gone_does_not_serve_and_one_without_health_serves_while_it_is_there() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With::default()).await;
    let address = server.address;
    let agent = TestAgent::start(&gateway, Upstream::new(address.to_string()).service(SERVICE)).await;
    eventually("the instance is ready", || ready(&gateway)).await;

    server.die().await;
    eventually("the instance is ill", || !ready(&gateway)).await;
    assert_eq!(gateway.gateway.instances().len(), 1);

    let server = Server::start_on(With::default(), address).await;
    eventually("the instance is well", || ready(&gateway)).await;
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn a_watch_for_health_does_not_keep_an_upstream_from_stopping() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With { health: true, ..With::default() }).await;
    let agent = TestAgent::start(&gateway, Upstream::new(server.address.to_string()).service(SERVICE)).await;
    eventually("the instance is ready", || ready(&gateway)).await;

    // It says GOAWAY and waits for what runs.
    server.stop().await;

    agent.stop().await;
    gateway.stop(vec![]).await;
}
