//! The connection to an upstream: refused, lost, left and found again.

use std::time::Duration;

use grpcrouter_runtime::Upstream;
use grpcrouter_tests::{
    raw::RawClient,
    world::{PATIENCE, TestGateway, eventually},
};
use myservice::proto::Method1Request;
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt;

use crate::SERVICE;
use crate::raw_upstream::RawUpstream;
use crate::world::{Server, TestAgent, With};

const METHOD1: &str = "/myservice.MyService/Method1";

#[tokio::test]
async fn an_upstream_that_is_not_there_yet_is_waited_for() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With::default()).await;
    let address = server.address;
    server.die().await;
    let agent = TestAgent::begin(&gateway, Upstream::new(address.to_string()).service(SERVICE));
    // Long enough for a few tries.
    assert!(timeout(Duration::from_millis(300), agent.agent.ready()).await.is_err());
    assert_eq!(gateway.gateway.stats().instances, 0);

    let server = Server::start_on(With::default(), address).await;

    timeout(PATIENCE, agent.agent.ready()).await.unwrap();
    assert_eq!(agent.agent.services(), [SERVICE]);
    let answer = gateway.client().await.method1(Method1Request { text: "up".into() }).await.unwrap();
    assert_eq!(answer.into_inner().text, "up");
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn calls_of_an_upstream_that_dies_end_unavailable_and_work_again_when_it_is_back() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With::default()).await;
    let address = server.address;
    let agent = TestAgent::start(&gateway, Upstream::new(address.to_string()).service(SERVICE)).await;
    let mut client = gateway.client().await;
    let running = tokio::spawn({
        let mut client = client.clone();
        async move { client.method1(Method1Request { text: "stall".into() }).await.unwrap_err() }
    });
    server.probe.saw("method1 begins", 1).await;

    server.die().await;

    let status = running.await.unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with(&format!("the connection to the upstream {address} was lost: ")), "{status}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((&*info.reason, &*info.metadata["outcome"]), ("UPSTREAM_UNAVAILABLE", "MAYBE_EXECUTED"));

    // Meanwhile, whoever calls hears at once that nobody is there.
    let status = client.method1(Method1Request { text: "now".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);

    let server = Server::start_on(With::default(), address).await;
    let mut answer = None;
    for _ in 0..3_000 {
        answer = client.method1(Method1Request { text: "again".into() }).await.ok();
        if answer.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // waits because the agent dials again when it will
    }
    assert_eq!(answer.expect("an answer").into_inner().text, "again");
    drop(client);
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn calls_that_an_upstream_refuses_before_they_begin_are_offered_again_whole() {
    let gateway = TestGateway::start().await;
    let mut upstream = RawUpstream::start().await;
    let agent = TestAgent::begin(&gateway, Upstream::new(upstream.address.to_string()).service(SERVICE));
    let mut connection = upstream.connection().await;
    tokio::select! {
        () = agent.agent.ready() => {}
        () = connection.idle() => {}
    }
    let raw = gateway.raw().await;
    let question = Method1Request { text: "again and whole".into() };
    let asked = question.clone();
    let call = tokio::spawn(async move { raw.unary(METHOD1, &[], &asked).await.unwrap() });

    for _ in 0..2 {
        let mut refused = connection.call().await;
        assert_eq!(refused.upload().await, (grpcrouter_tests::raw::frame(&question), Ok(())));
        refused.answer.send_reset(h2::Reason::REFUSED_STREAM);
    }
    let mut taken = connection.call().await;
    assert_eq!(taken.upload().await, (grpcrouter_tests::raw::frame(&question), Ok(())));
    taken.answer(&[], b"", &[("grpc-status", "0")]);
    assert_eq!(call.await.unwrap().code(), 0);

    // One that goes on refusing is believed.
    let raw = gateway.raw().await;
    let call = tokio::spawn(async move { raw.unary(METHOD1, &[], &question).await.unwrap() });
    for _ in 0..3 {
        connection.call().await.answer.send_reset(h2::Reason::REFUSED_STREAM);
    }
    let end = call.await.unwrap();
    assert_eq!((end.code(), end.reason()), (14, ("UPSTREAM_UNAVAILABLE".into(), "NOT_STARTED".into())));
    agent.stop().await;
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn an_upstream_that_says_goaway_finishes_what_runs_and_gets_new_calls_on_a_new_connection() {
    let gateway = TestGateway::start().await;
    let mut upstream = RawUpstream::start().await;
    let agent = TestAgent::begin(&gateway, Upstream::new(upstream.address.to_string()).service(SERVICE));
    let mut first = upstream.connection().await;
    tokio::select! {
        () = agent.agent.ready() => {}
        () = first.idle() => {}
    }
    let begin = |raw: RawClient| {
        tokio::spawn(async move { raw.unary(METHOD1, &[], &Method1Request::default()).await.unwrap().code() })
    };
    let running = begin(gateway.raw().await);
    let running_there = first.call().await;

    first.go_away();

    let mut second = upstream.connection().await;
    let next = begin(gateway.raw().await);
    second.call().await.answer(&[], b"", &[("grpc-status", "0")]);
    assert_eq!(next.await.unwrap(), 0);
    running_there.answer(&[], b"", &[("grpc-status", "7")]);
    assert_eq!(running.await.unwrap(), 7);

    // And one that is cut is dialled again.
    second.cut();
    let mut third = upstream.connection().await;
    tokio::select! {
        () = third.idle() => {}
        () = eventually("the agent serves again", || gateway.gateway.stats().instances == 1) => {}
    }
    agent.stop().await;
    drop((upstream, first, second, third));
    gateway.stop(vec![]).await;
}

#[cfg(unix)]
#[tokio::test]
async fn an_upstream_may_listen_at_a_unix_socket() {
    use myservice::proto::my_service_server::MyServiceServer;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let probe = grpcrouter_tests::probe::Probe::new("by socket");
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(MyServiceServer::new(probe))
            .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener)),
    );
    // After the server: its task is not the gateway's.
    let gateway = TestGateway::start().await;
    let agent = TestAgent::start(&gateway, Upstream::new(format!("unix:{}", path.display())).service(SERVICE)).await;

    let answer = gateway.client().await.method1(Method1Request { text: "hi".into() }).await.unwrap().into_inner();

    assert_eq!(answer.instance_id, "by socket");
    agent.stop().await;
    gateway.stop(vec![]).await;
    server.abort();
}
