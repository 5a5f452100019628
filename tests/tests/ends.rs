//! How calls end when an instance or the gateway goes: what runs finishes, what was not started goes elsewhere, and what
//! is lost says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use grpcrouter_tests::{
    by_hand::ByHand,
    probe::say,
    world::{PATIENCE, TestBackend, TestGateway, eventually, no_task_left},
};
use myservice::proto::{Method1Request, Method1Response, Method2Request, my_service_client::MyServiceClient};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, transport::Channel};
use tonic_types::StatusExt;

type Answer = Result<Response<Method1Response>, Status>;

fn call(client: &MyServiceClient<Channel>, text: &str, key: Option<&str>) -> tokio::task::JoinHandle<Answer> {
    let mut client = client.clone();
    let mut request = Request::new(Method1Request { text: text.to_owned() });
    if let Some(key) = key {
        request.metadata_mut().insert("instanceid", key.parse().unwrap());
    }
    tokio::spawn(async move { client.method1(request).await })
}

fn outcome(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    assert_eq!(info.domain, "grpcrouter");
    info.metadata.get("outcome").cloned()
}

#[tokio::test]
async fn what_a_draining_instance_has_not_started_is_answered_by_another() {
    let gateway = TestGateway::start().await;
    let mut draining = ByHand::register(gateway.address, "draining").await.unwrap();
    gateway.instances(1).await;
    let client = gateway.client().await;
    let call = call(&client, "again", None);
    // The start is on its way when the instance decides to drain, and a second instance comes.
    eventually("the call is open", || gateway.gateway.stats().calls == 1).await;
    let backend = TestBackend::start(&gateway, "b").await;
    draining.drain();
    draining.receive().await.unwrap();
    draining.transmit().unwrap();

    let answer = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().unwrap().into_inner();

    assert_eq!((answer.text.as_str(), answer.instance_id.as_str()), ("again", "b"));
    draining.die();
    drop(client);
    gateway.instances(1).await;
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_call_by_key_that_its_instance_refuses_goes_to_no_other_and_says_that_it_was_not_started() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "b").await;
    let mut draining = ByHand::register(gateway.address, "draining").await.unwrap();
    gateway.instances(2).await;
    let client = gateway.client().await;
    draining.drain();
    let call = call(&client, "x", Some("draining"));
    draining.receive().await.unwrap();
    draining.transmit().unwrap();

    let status = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();

    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(backend.probe.log().is_empty());
    draining.die();
    drop(client);
    gateway.instances(1).await;
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_lost_instance_ends_its_calls_with_unavailable_and_says_that_they_may_have_been_executed() {
    let gateway = TestGateway::start_with(|builder| builder.resume_window(Duration::ZERO)).await;
    let mut instance = ByHand::register(gateway.address, "lost").await.unwrap();
    gateway.instances(1).await;
    let client = gateway.client().await;
    let call = call(&client, "x", None);
    instance.started().await.unwrap();

    instance.die();

    let status = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(outcome(&status).as_deref(), Some("MAYBE_EXECUTED"));
    drop(client);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_backend_that_stops_finishes_what_runs_and_takes_nothing_new() {
    let gateway = TestGateway::start().await;
    let stopping = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;
    let slow = Method2Request { text: say::SLOW.to_owned(), count: 4 };
    let mut answers = client.method2(slow).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let other = TestBackend::start(&gateway, "b").await;

    let stopped = stopping.begin_stop();
    gateway.instances(1).await;
    for _ in 0..10 {
        let answer = client.method1(Method1Request { text: "new".to_owned() }).await.unwrap().into_inner();
        assert_eq!(answer.instance_id, "b");
    }

    let rest: Vec<_> = answers.map(|answer| answer.unwrap().index).collect().await;
    assert_eq!(rest, [1, 2, 3]);
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    drop(client);
    gateway.stop(vec![other]).await;
}

#[tokio::test]
async fn a_gateway_that_stops_ends_what_does_not_finish_in_time() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let client = gateway.client().await;
    let call = call(&client, say::STALL, None);
    backend.probe.saw("method1 begins", 1).await;

    let served = gateway.begin_stop();

    let status = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    backend.probe.saw("method1 dropped", 1).await;
    backend.kill().await;
    drop(client);
    no_task_left().await;
}

#[tokio::test]
async fn a_backend_comes_back_to_a_gateway_that_was_started_again() {
    let gateway = TestGateway::start().await;
    let address = gateway.address.to_string();
    let backend = TestBackend::start(&gateway, "a").await;
    gateway.begin_stop().await.unwrap().unwrap();

    let gateway = TestGateway::start_on(&address).await;

    gateway.instances(1).await;
    let client = gateway.client().await;
    let answer = tokio::time::timeout(PATIENCE, call(&client, "back", Some("a"))).await.unwrap();
    assert_eq!(answer.unwrap().unwrap().into_inner().text, "back");
    drop(client);
    backend.kill().await;
    gateway.instances(0).await;
    gateway.stop(Vec::new()).await;
}
