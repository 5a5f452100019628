//! Many who watch, and some who do not read.

use ServingStatus::{NotServing, Serving};
use grpcrouter_tests::{
    deadlines::{grpc_timeout, long_enough},
    raw::{RawClient, frame},
    world::{TestBackend, TestGateway, eventually, tasks},
};

use super::*;

#[tokio::test]
async fn a_thousand_watch_and_one_more_is_told_that_there_is_no_room() {
    let gateway = TestGateway::start_with(|builder| builder.max_health_watches(1_000)).await;
    let mut askers = Vec::new();
    for _ in 0..8 {
        askers.push(Asker::of(gateway.address).await);
    }
    let mut watches = Vec::new();
    for number in 0..1_000 {
        let mut watch = askers[number % 8].watch(SERVICE).await.unwrap();
        assert_eq!(watch.next().await, Ok(NotServing));
        watches.push(watch);
    }
    let refused = askers[0].watch(SERVICE).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "1000 health watches are open already, and no more may be");
    assert_eq!(askers[0].check(SERVICE).await, Ok(NotServing));

    let backend = TestBackend::start(&gateway, "a").await;
    for watch in &mut watches {
        assert_eq!(watch.next().await, Ok(Serving));
    }

    // Who goes makes room.
    let busy = tasks();
    watches.truncate(999);
    eventually("the task of the watch has ended", || tasks() < busy).await;
    let mut again = askers[0].watch(SERVICE).await.unwrap();
    assert_eq!(again.next().await, Ok(Serving));
    drop((again, watches, askers));
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_nobody_and_is_told_the_last_state_alone() {
    let gateway = TestGateway::start_with(|builder| builder.drain_timeout(6 * PATIENCE)).await;
    let socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    // It has room for the first status, 7 bytes, and for half of the second.
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(10).handshake::<_, bytes::Bytes>(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let (response, mut request) = client.clone().ready().await.unwrap().send_request(watch(&gateway), false).unwrap();
    request.send_data(frame(&question(SERVICE)), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), [0, 0, 0, 0, 2, 8, 2][..]);

    let mut asker = Asker::of(gateway.address).await;
    let mut other = asker.watch(SERVICE).await.unwrap();
    assert_eq!(other.next().await, Ok(NotServing));
    for _ in 0..20 {
        come_and_go(&gateway, &mut other).await;
    }

    // It reads again: what it was told in part, and how it stands now. The forty changes are not kept.
    let mut rest = Vec::new();
    body.flow_control().release_capacity(7).unwrap();
    while rest.len() < 14 {
        let data = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        rest.extend_from_slice(&data);
    }
    assert_eq!(rest, [0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 2]);

    // One that has no room left does not keep the gateway from ending.
    come_and_go(&gateway, &mut other).await;
    drop((other, asker));
    timeout(PATIENCE, gateway.begin_stop()).await.expect("it stops").unwrap().unwrap();
    connection.abort();
}

#[tokio::test]
async fn a_watch_ends_with_its_connection_and_with_its_call() {
    let gateway = TestGateway::start().await;
    let before = tasks();
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let mut calls = Vec::new();
    for _ in 0..3 {
        let mut call = client.call("/grpc.health.v1.Health/Watch", &[]).await.unwrap();
        call.request.send_data(frame(&question("")), true).unwrap();
        let mut body = call.response.await.unwrap().into_body();
        body.data().await.unwrap().unwrap();
        calls.push((call.request, body));
    }
    let watching = tasks();

    calls[0].0.send_reset(h2::Reason::CANCEL);
    eventually("the cancelled one is gone", || tasks() == watching - 1).await;
    connection.abort();
    eventually("all are gone", || tasks() <= before).await;
    drop(calls);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_watch_has_a_deadline_like_any_call() {
    let gateway = TestGateway::start().await;
    let raw = gateway.raw().await;
    let body = long_enough(async |deadline| {
        let timeout_header = grpc_timeout(deadline);
        let mut call = raw.call("/grpc.health.v1.Health/Watch", &[("grpc-timeout", &timeout_header)]).await.unwrap();
        call.request.send_data(frame(&question("")), true).unwrap();
        let end = timeout(PATIENCE, call.end()).await.unwrap().unwrap();
        assert_eq!(end.code(), Code::DeadlineExceeded as i32);
        (!end.body.is_empty()).then_some(end.body)
    })
    .await;

    assert_eq!(body.as_ref(), &[0, 0, 0, 0, 2, 8, 1][..]);
    drop(raw);
    gateway.stop(Vec::new()).await;
}

/// An instance registers, and leaves when `watch` was told.
async fn come_and_go(gateway: &TestGateway, watch: &mut Watch) {
    let backend = TestBackend::start(gateway, "a").await;
    assert_eq!(watch.next().await, Ok(Serving));
    backend.stop().await;
    assert_eq!(watch.next().await, Ok(NotServing));
}

fn watch(gateway: &TestGateway) -> http::Request<()> {
    http::Request::post(format!("{}/grpc.health.v1.Health/Watch", gateway.uri()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}
