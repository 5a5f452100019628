//! Counts: exact after a known mix of calls, bounded whatever is called, and back to nothing in the end.

use std::collections::BTreeMap;

use grpcrouter_tests::{
    by_hand::ByHand,
    probe::say,
    raw::{RawClient, frame},
    world::{PATIENCE, TestBackend, TestGateway, eventually, no_task_left},
};
use myservice::proto::{
    Method1Request, Method2Request, Method3Request, StreamRequest, my_service_client::MyServiceClient,
    my_service_router::MyServiceRouter,
};
use tonic::{Code, Request, transport::Channel};

use crate::recorded::Recorded;

/// Builds a gateway that is recorded.
async fn gateway(recorded: &Recorded) -> TestGateway {
    let _guard = recorded.record();
    TestGateway::start().await
}

fn text(text: &str) -> Method1Request {
    Method1Request { text: text.to_owned() }
}

fn unary(kind: &str, method: &str) -> String {
    format!("grpc_method={method:?},grpc_service=\"myservice.MyService\",grpc_type={kind:?}")
}

fn handled(code: &str, kind: &str, method: &str) -> String {
    format!("grpc_server_handled_total{{grpc_code={code:?},{}}}", unary(kind, method))
}

fn started(kind: &str, method: &str) -> String {
    format!("grpc_server_started_total{{{}}}", unary(kind, method))
}

/// Twelve calls, of all four kinds and with many ends.
async fn mix(client: &MyServiceClient<Channel>, raw: &RawClient, backend: &TestBackend) {
    let mut client = client.clone();
    for _ in 0..3 {
        client.method1(text("x")).await.unwrap();
    }
    let mut answers = client.method2(Method2Request { text: "x".to_owned(), count: 2 }).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let messages = ["a", "b"].map(|text| Method3Request { text: text.to_owned() });
    client.method3(tokio_stream::iter(messages)).await.unwrap();
    let messages = ["a", "b"].map(|text| StreamRequest { text: text.to_owned() });
    let mut answers = client.stream_method(tokio_stream::iter(messages)).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}

    for _ in 0..2 {
        assert_eq!(client.method1(text(say::FAIL)).await.unwrap_err().code(), Code::FailedPrecondition);
    }
    for times in 1..=2 {
        let mut client = client.clone();
        let stalled = tokio::spawn(async move { client.method1(text(say::STALL)).await });
        backend.probe.saw("method1 begins", 5 + times).await;
        stalled.abort();
        backend.probe.saw("method1 dropped", times).await;
    }
    // Without a timer of its own, which might be the first.
    let late = raw.unary("/myservice.MyService/Method1", &[("grpc-timeout", "1S")], &text(say::STALL)).await.unwrap();
    assert_eq!(late.code(), 4);
    let mut nobody = Request::new(text("x"));
    nobody.metadata_mut().insert("instanceid", "z".parse().unwrap());
    assert_eq!(client.method1(nobody).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_known_mix_of_calls_is_counted_exactly_at_both_ends() {
    let (mut at_gateway, mut at_backend) = (Recorded::new(), Recorded::new());
    let gateway = gateway(&at_gateway).await;
    let guard = at_backend.record();
    let backend = TestBackend::start(&gateway, "a").await;
    let client = gateway.client().await;

    let raw = gateway.raw().await;
    mix(&client, &raw, &backend).await;
    drop(raw);
    gateway.idle().await;
    eventually("no call at the backend", || backend.backend.stats().calls == 0).await;

    drop(guard);
    let expected = |kind: fn(&str) -> &str, refused: bool| {
        let one = kind("unary");
        let mut expected = BTreeMap::from([
            (handled("OK", one, "Method1"), 3.0),
            (handled("OK", kind("server_stream"), "Method2"), 1.0),
            (handled("OK", kind("client_stream"), "Method3"), 1.0),
            (handled("OK", kind("bidi_stream"), "StreamMethod"), 1.0),
            (handled("FailedPrecondition", one, "Method1"), 2.0),
            (handled("Canceled", one, "Method1"), 2.0),
            (handled("DeadlineExceeded", one, "Method1"), 1.0),
            (started(one, "Method1"), if refused { 9.0 } else { 8.0 }),
            (started(kind("server_stream"), "Method2"), 1.0),
            (started(kind("client_stream"), "Method3"), 1.0),
            (started(kind("bidi_stream"), "StreamMethod"), 1.0),
        ]);
        if refused {
            expected.insert(handled("Unavailable", one, "Method1"), 1.0);
        }
        expected
    };
    assert_eq!(at_gateway.counted("grpc_server_"), expected(|kind| kind, true));
    assert_eq!(at_backend.counted("grpc_server_"), expected(|_| "unknown", false));
    assert_eq!(at_gateway.sum("grpcrouter_calls_sent_total"), 11.0);
    assert_eq!(at_gateway.sum("grpcrouter_calls_refused_total"), 0.0);
    // Small calls never wait for credit.
    assert_eq!((at_gateway.sum("grpcrouter_stalls_total"), at_backend.sum("grpcrouter_stalls_total")), (0.0, 0.0));
    drop(client);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn calls_through_a_router_of_this_process_are_counted_as_those_of_clients_are() {
    let mut recorded = Recorded::new();
    let gateway = gateway(&recorded).await;
    let backend = TestBackend::start(&gateway, "a").await;
    let router = MyServiceRouter::new(&gateway.gateway);

    router.typed_client().method1(text("x")).await.unwrap();
    let failed = router.typed_client().method1(text(say::FAIL)).await.unwrap_err();
    let nobody = router.typed_client_for(http::HeaderValue::from_static("z")).method1(text("x")).await.unwrap_err();
    let stalled = tokio::spawn({
        let mut client = router.typed_client();
        async move { client.method1(text(say::STALL)).await }
    });
    backend.probe.saw("method1 begins", 3).await;
    stalled.abort();
    gateway.idle().await;

    assert_eq!((failed.code(), nobody.code()), (Code::FailedPrecondition, Code::Unavailable));
    let expected = BTreeMap::from([
        (handled("OK", "unary", "Method1"), 1.0),
        (handled("FailedPrecondition", "unary", "Method1"), 1.0),
        (handled("Unavailable", "unary", "Method1"), 1.0),
        (handled("Canceled", "unary", "Method1"), 1.0),
        (started("unary", "Method1"), 4.0),
    ]);
    assert_eq!(recorded.counted("grpc_server_"), expected);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_thousand_names_that_nobody_serves_make_no_series() {
    let (mut at_gateway, mut at_backend) = (Recorded::new(), Recorded::new());
    let gateway = gateway(&at_gateway).await;
    let guard = at_backend.record();
    let backend = TestBackend::start_with(&gateway, "a", |builder| builder.listen("127.0.0.1:0")).await;
    tokio::time::timeout(PATIENCE, backend.backend.ready()).await.unwrap();
    let direct = RawClient::connect(backend.backend.local_addr().unwrap()).await.unwrap().0;
    let client = gateway.raw().await;
    let before = (at_gateway.series().len(), at_backend.series().len());

    for number in 0..500 {
        for path in [format!("/myservice.MyService/M{number}"), format!("/s{number}.S/M")] {
            assert_eq!(client.unary(&path, &[], &text("x")).await.unwrap().code(), 12, "{path}");
            assert_eq!(direct.unary(&path, &[], &text("x")).await.unwrap().code(), 12, "{path}");
        }
    }
    gateway.idle().await;
    eventually("no call at the backend", || backend.backend.stats().calls == 0).await;

    drop(guard);
    assert_eq!((at_gateway.series().len(), at_backend.series().len()), before);
    let unknown = r#"grpc_method="unknown",grpc_service="unknown",grpc_type="unknown""#;
    let expected = BTreeMap::from([
        (format!(r#"grpc_server_handled_total{{grpc_code="Unimplemented",{unknown}}}"#), 1000.0),
        (format!("grpc_server_started_total{{{unknown}}}"), 1000.0),
    ]);
    assert_eq!(at_gateway.counted("grpc_server_"), expected);
    assert_eq!(at_backend.counted("grpc_server_"), expected);
    drop((client, direct));
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn what_goes_up_and_down_is_right_while_a_call_runs_and_nothing_in_the_end() {
    const UP_AND_DOWN: [&str; 6] = [
        "grpcrouter_calls_in_flight{side=\"backend\"}",
        "grpcrouter_calls_in_flight{side=\"gateway\"}",
        "grpcrouter_connections{}",
        "grpcrouter_instances{}",
        "grpcrouter_tunnels{side=\"backend\"}",
        "grpcrouter_tunnels{side=\"gateway\"}",
    ];
    let mut recorded = Recorded::new();
    let (gateway, backend) = {
        let _guard = recorded.record();
        let gateway = TestGateway::start().await;
        let backend = TestBackend::start(&gateway, "a").await;
        (gateway, backend)
    };
    let client = gateway.client().await;
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.method1(text(say::STALL)).await })
        })
        .collect();
    backend.probe.saw("method1 begins", 2).await;

    let values = UP_AND_DOWN.map(|name| recorded.series()[name]);

    // The instance's connection is one too.
    assert_eq!(values, [2.0, 2.0, 2.0, 1.0, 1.0, 1.0]);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    drop(client);
    gateway.stop(vec![backend]).await;
    assert_eq!(UP_AND_DOWN.map(|name| recorded.series()[name]), [0.0; 6]);
    no_task_left().await;
}

#[tokio::test]
async fn what_one_end_of_a_tunnel_sends_the_other_receives() {
    const KINDS: [&str; 3] = ["batches", "frames", "bytes"];
    let (mut at_gateway, mut at_backend) = (Recorded::new(), Recorded::new());
    let gateway = gateway(&at_gateway).await;
    let backend = {
        let _guard = at_backend.record();
        TestBackend::start(&gateway, "a").await
    };
    let mut client = gateway.client().await;
    for _ in 0..10 {
        client.method1(text(&"x".repeat(1000))).await.unwrap();
    }
    drop(client);

    gateway.stop(vec![backend]).await;

    let passed = |recorded: &mut Recorded, kind: &str, direction: &str, side: &str| {
        recorded.series()[&format!("grpcrouter_tunnel_{kind}_total{{direction={direction:?},side={side:?}}}")]
    };
    for kind in KINDS {
        let sent = passed(&mut at_gateway, kind, "sent", "gateway");
        assert_eq!(sent, passed(&mut at_backend, kind, "received", "backend"), "{kind} to the backend");
        let least = if kind == "bytes" { 10_000.0 } else { 10.0 };
        assert!(sent >= least, "{kind}: {sent}");
        let sent = passed(&mut at_backend, kind, "sent", "backend");
        assert_eq!(sent, passed(&mut at_gateway, kind, "received", "gateway"), "{kind} to the gateway");
    }
    assert_eq!(
        at_backend.counted("grpcrouter_dials"),
        [("grpcrouter_dials_total{result=\"registered\"}".into(), 1.0)].into()
    );
}

#[tokio::test]
async fn a_call_whose_client_does_not_read_is_a_stall_at_the_backend() {
    let mut recorded = Recorded::new();
    let gateway = TestGateway::start().await;
    let backend = {
        let _guard = recorded.record();
        TestBackend::start(&gateway, "a").await
    };
    let client = gateway.raw().await;
    let mut call = client.call("/myservice.MyService/Method2", &[]).await.unwrap();
    let much = Method2Request { text: "x".repeat(10_000), count: 200 };
    call.request.send_data(frame(&much), true).unwrap();

    eventually("a stall", || recorded.sum("grpcrouter_stalls_total") >= 1.0).await;

    drop((call, client));
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_call_that_its_instance_refuses_counts_once_for_each_instance_that_it_goes_to() {
    let mut recorded = Recorded::new();
    let gateway = gateway(&recorded).await;
    let mut draining = ByHand::register(gateway.address, "draining").await.unwrap();
    gateway.instances(1).await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.method1(text("again")).await });
    eventually("the call is open", || gateway.gateway.stats().calls == 1).await;
    let backend = TestBackend::start(&gateway, "b").await;
    draining.drain();
    draining.receive().await.unwrap();
    draining.transmit().unwrap();

    tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
    gateway.idle().await;

    assert_eq!(recorded.sum("grpcrouter_calls_sent_total"), 2.0);
    assert_eq!(recorded.sum("grpcrouter_calls_refused_total"), 1.0);
    assert_eq!(recorded.sum("grpc_server_started_total"), 1.0);
    assert_eq!(recorded.series()["grpcrouter_registrations_total{result=\"accepted\"}"], 2.0);
    draining.die();
    gateway.instances(1).await;
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn each_dial_in_vain_is_counted_by_what_came_of_it() {
    let mut recorded = Recorded::new();
    // Nobody listens at the first; the second accepts, and is no gateway.
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = web.local_addr().unwrap();
    let answers = tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            let (mut stream, _) = web.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            streams.push(stream);
        }
    });
    let backends = {
        let _guard = recorded.record();
        [gone, address].map(|at| TestBackend::dial(&format!("http://{at}"), "a"))
    };

    eventually("both were dialled", || {
        let dials = recorded.series();
        ["unreachable", "not_a_gateway"]
            .iter()
            .all(|result| dials[&format!("grpcrouter_dials_total{{result={result:?}}}")] >= 1.0)
    })
    .await;

    assert_eq!(recorded.counted("grpcrouter_dials").len(), 2);
    for backend in backends {
        backend.kill().await;
    }
    answers.abort();
    no_task_left().await;
}
