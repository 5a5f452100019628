//! What crosses, to the byte; and what a client that goes away looks like to a server behind an agent.

use grpcrouter_runtime::Upstream;
use grpcrouter_tests::{
    raw::frame,
    world::{PATIENCE, TestGateway},
};
use h2::Reason;
use myservice::proto::Method1Request;

use crate::SERVICE;
use crate::raw_upstream::{RawConnection, RawUpstream};
use crate::world::TestAgent;

/// A gateway, an agent that has registered, and the connection behind it.
async fn world() -> (TestGateway, RawUpstream, RawConnection, TestAgent) {
    let gateway = TestGateway::start().await;
    let mut upstream = RawUpstream::start().await;
    let agent = TestAgent::begin(&gateway, Upstream::new(upstream.address.to_string()).service(SERVICE));
    let mut connection = upstream.connection().await;
    let ready = agent.agent.ready();
    tokio::select! {
        () = ready => {}
        () = connection.idle() => {}
    }
    (gateway, upstream, connection, agent)
}

const METHOD1: &str = "/myservice.MyService/Method1";
const METHOD3: &str = "/myservice.MyService/Method3";

#[tokio::test]
async fn headers_messages_and_trailers_cross_as_they_are_both_ways() {
    let (gateway, upstream, mut connection, agent) = world().await;
    let raw = gateway.raw().await;
    let asked = frame(&Method1Request { text: "as it is".into() });
    let headers = [
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-data-bin", "AP8"),
        ("grpc-accept-encoding", "gzip,identity"),
        ("grpc-encoding", "gzip"),
        ("content-type", "application/grpc+json"),
        ("grpc-timeout", "10S"),
    ];
    let mut call = raw.call(METHOD1, &headers).await.unwrap();
    call.request.send_data(asked.clone(), true).unwrap();

    let mut came = connection.call().await;
    assert_eq!(came.upload().await, (asked, Ok(())));
    let head = &came.head;
    assert_eq!((head.method().as_str(), head.uri().path()), ("POST", METHOD1));
    let all = |name: &str| head.headers().get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((all("x-a"), all("x-data-bin")), (vec!["1", "2"], vec!["AP8"]));
    assert_eq!((all("grpc-encoding"), all("grpc-accept-encoding")), (vec!["gzip"], vec!["gzip,identity"]));
    assert_eq!((all("content-type"), all("te")), (vec!["application/grpc+json"], vec!["trailers"]));
    let left = all("grpc-timeout")[0];
    let (amount, unit) = left.split_at(left.len() - 1);
    assert!(unit == "u" && (9_000_000..10_000_000).contains(&amount.parse::<u32>().unwrap()), "{left}");

    came.answer(
        &[("x-b", "3"), ("x-b", "4"), ("grpc-encoding", "gzip")],
        b"\x01\x00\x00\x00\x02ok",
        &[
            ("grpc-status", "9"),
            ("grpc-message", "no%3A %C3%BC"),
            ("x-trailer-bin", "/w"),
            ("grpc-status-details-bin", "CAk"),
        ],
    );
    let end = call.end().await.unwrap();
    let values = |map: &http::HeaderMap, name: &str| {
        map.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&end.headers, "x-b"), ["3", "4"]);
    assert_eq!(values(&end.headers, "grpc-encoding"), ["gzip"]);
    assert_eq!(&end.body[..], b"\x01\x00\x00\x00\x02ok");
    assert_eq!((end.code(), end.message()), (9, "no: %C3%BC"));
    assert_eq!(values(&end.trailers, "x-trailer-bin"), ["/w"]);
    assert_eq!(values(&end.trailers, "grpc-status-details-bin"), ["CAk"]);
    agent.stop().await;
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn trailers_alone_stay_trailers_alone() {
    let (gateway, upstream, mut connection, agent) = world().await;
    let raw = gateway.raw().await;
    let call = tokio::spawn(async move { raw.unary(METHOD1, &[], &Method1Request::default()).await.unwrap() });

    connection.call().await.trailers_only(&[("grpc-status", "5"), ("x-why", "not here")]);

    let end = call.await.unwrap();
    assert_eq!((end.code(), end.headers.get("x-why").unwrap().to_str().unwrap()), (5, "not here"));
    assert!(end.body.is_empty() && end.headers.contains_key("grpc-status"));
    agent.stop().await;
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn an_upload_that_is_cancelled_is_reset_and_never_ended() {
    let (gateway, upstream, mut connection, agent) = world().await;
    let raw = gateway.raw().await;
    for half in 0..20 {
        let mut call = raw.call(METHOD3, &[]).await.unwrap();
        let part = frame(&Method1Request { text: "part".repeat(half) });
        call.request.send_data(part.clone(), false).unwrap();
        let mut came = connection.call().await;
        // Sometimes before the upstream has it, and sometimes after.
        if half % 2 == 0 {
            let data = came.body.data().await.unwrap().unwrap();
            assert_eq!(data, part);
        }

        call.request.send_reset(Reason::CANCEL);

        assert_eq!(came.upload().await.1, Err(Reason::CANCEL));
        assert_eq!(came.reset().await, Reason::CANCEL);
    }
    gateway.idle().await;
    agent.stop().await;
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn a_call_that_waits_for_its_answer_is_reset_when_its_client_goes() {
    let (gateway, upstream, mut connection, agent) = world().await;
    let (raw, client) = grpcrouter_tests::raw::RawClient::connect(gateway.address).await.unwrap();
    let mut call = raw.call(METHOD1, &[]).await.unwrap();
    call.request.send_data(frame(&Method1Request::default()), true).unwrap();
    let mut came = connection.call().await;
    assert_eq!(came.upload().await.1, Ok(()));

    // The whole connection dies.
    client.abort();

    assert_eq!(came.reset().await, Reason::CANCEL);
    agent.stop().await;
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn a_deadline_ends_the_call_at_the_upstream_too() {
    let (gateway, upstream, mut connection, agent) = world().await;
    let raw = gateway.raw().await;
    let call = tokio::spawn(async move {
        raw.unary(METHOD1, &[("grpc-timeout", "2S")], &Method1Request::default()).await.unwrap()
    });

    let mut came = connection.call().await;

    assert_eq!(came.reset().await, Reason::CANCEL);
    assert_eq!(call.await.unwrap().code(), 4);
    agent.stop().await;
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn what_the_upstream_resets_ends_as_grpc_says() {
    let (gateway, upstream, mut connection, agent) = world().await;
    for (reason, code) in [
        (Reason::CANCEL, 1),
        (Reason::INTERNAL_ERROR, 13),
        (Reason::PROTOCOL_ERROR, 13),
        (Reason::ENHANCE_YOUR_CALM, 8),
        (Reason::INADEQUATE_SECURITY, 7),
    ] {
        let raw = gateway.raw().await;
        let call = tokio::spawn(async move { raw.unary(METHOD1, &[], &Method1Request::default()).await.unwrap() });

        connection.call().await.answer.send_reset(reason);

        let end = call.await.unwrap();
        assert_eq!((end.code(), end.reason().0.as_str()), (code, "UPSTREAM_RESET"), "{reason:?}");
    }
    agent.stop().await;
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn an_upstream_may_answer_before_it_has_heard_all() {
    let (gateway, upstream, mut connection, agent) = world().await;
    let raw = gateway.raw().await;
    let mut call = raw.call(METHOD3, &[]).await.unwrap();
    call.request.send_data(frame(&Method1Request::default()), false).unwrap();

    connection.call().await.answer(&[], b"\x00\x00\x00\x00\x00", &[("grpc-status", "3")]);

    let end = tokio::time::timeout(PATIENCE, call.end()).await.unwrap().unwrap();
    assert_eq!((end.code(), &end.body[..]), (3, &b"\x00\x00\x00\x00\x00"[..]));
    drop(raw);
    agent.stop().await;
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}
