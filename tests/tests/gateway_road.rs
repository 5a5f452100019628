//! What the gateway itself does with a call: what it refuses, how it ends one, and that no call holds up another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

#[path = "gateway_road/edges.rs"]
mod edges;

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use grpcrouter_protocol::{Headers, ResponsePart, Text, Trailers};
use grpcrouter_runtime::Gateway;
use grpcrouter_tests::{
    by_hand::ByHand,
    probe::say,
    raw::{RawCall, RawClient, RawEnd, frame},
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::{
    Method1Request, Method2Request, Method2Response, Method3Request, Method3Response, StreamRequest,
    my_service_client::MyServiceClient, my_service_router::MyServiceRouter,
};
use prost::Message;
use tokio::{task::JoinSet, time::timeout};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};

const METHOD1: &str = "/myservice.MyService/Method1";
const METHOD2: &str = "/myservice.MyService/Method2";
const METHOD3: &str = "/myservice.MyService/Method3";
const STREAM_METHOD: &str = "/myservice.MyService/StreamMethod";

fn text(text: &str) -> Method1Request {
    Method1Request { text: text.to_owned() }
}

fn ok() -> Option<Trailers> {
    Some(Trailers { status: 0, message: Text::default(), details: Bytes::new(), metadata: Default::default() })
}

/// A raw client, its connection and a call that an instance by hand has; nothing has been answered yet.
async fn by_hand(path: &str) -> (TestGateway, ByHand, grpcrouter_protocol::CallId, Connected, RawCall) {
    let gateway = TestGateway::start().await;
    let mut instance = ByHand::register(gateway.address, "by hand").await.unwrap();
    gateway.instances(1).await;
    let client = Connected::to(&gateway).await;
    let mut call = client.client.call(path, &[]).await.unwrap();
    call.request.send_data(frame(&text("x")), false).unwrap();
    let (id, _) = instance.started().await.unwrap();
    (gateway, instance, id, client, call)
}

/// A raw client that can let its connection die.
struct Connected {
    client: RawClient,
    connection: tokio::task::JoinHandle<()>,
}

impl Connected {
    async fn to(gateway: &TestGateway) -> Self {
        let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
        Self { client, connection }
    }

    async fn method1(&self, headers: &[(&str, &str)], say: &str) -> RawEnd {
        timeout(PATIENCE, self.client.unary(METHOD1, headers, &text(say))).await.unwrap().unwrap()
    }

    fn die(self) {
        self.connection.abort();
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_clients_end_is_whole_and_resets_the_upload_with_no_error() {
    let (gateway, mut instance, id, client, call) = by_hand(METHOD3).await;
    let answer = Method3Response { count: 7, text: "enough".to_owned(), instance_id: String::new() };

    let part = ResponsePart { headers: Some(Headers::default()), data: frame(&answer), trailers: ok() };
    instance.respond(id, part).unwrap();

    let RawCall { mut request, response } = call;
    let (_, mut body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    assert_eq!(Method3Response::decode(&body.data().await.unwrap().unwrap()[5..]).unwrap(), answer);
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    let reset = timeout(PATIENCE, poll_fn(|cx| request.poll_reset(cx))).await.unwrap().unwrap();
    assert_eq!(reset, h2::Reason::NO_ERROR);
    instance.die();
    client.die();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn response_headers_go_out_before_any_message_and_without_one() {
    let (gateway, mut instance, id, client, call) = by_hand(STREAM_METHOD).await;

    instance.respond(id, ResponsePart { headers: Some(Headers::default()), ..Default::default() }).unwrap();

    let response = timeout(PATIENCE, call.response).await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert!(!response.headers().contains_key("grpc-status"));
    instance.respond(id, ResponsePart { trailers: ok(), ..Default::default() }).unwrap();
    let trailers = response.into_body().trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    instance.die();
    client.die();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn an_answer_of_trailers_alone_stays_one_head() {
    let (gateway, mut instance, id, client, call) = by_hand(METHOD3).await;
    let trailers = Trailers { status: 5, message: Text::from("näh 100%".to_owned()), ..ok().unwrap() };

    instance.respond(id, ResponsePart { trailers: Some(trailers), ..Default::default() }).unwrap();

    let response = timeout(PATIENCE, call.response).await.unwrap().unwrap();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert_eq!(response.headers()["grpc-message"], "n%C3%A4h 100%25");
    assert!(response.body().is_end_stream());
    instance.die();
    client.die();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn an_instance_that_is_lost_between_two_messages_leaves_a_status_after_what_it_sent() {
    let (gateway, mut instance, id, client, call) = by_hand(METHOD2).await;
    let message = frame(&Method2Response { text: "first".to_owned(), ..Default::default() });
    let part = ResponsePart { headers: Some(Headers::default()), data: message.clone(), trailers: None };
    instance.respond(id, part).unwrap();
    let mut response = timeout(PATIENCE, call.response).await.unwrap().unwrap().into_body();
    assert_eq!(response.data().await.unwrap().unwrap(), message);

    instance.die();

    assert!(timeout(PATIENCE, response.data()).await.unwrap().is_none());
    let trailers = response.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    assert!(trailers.contains_key("grpc-status-details-bin"));
    client.die();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn an_instance_that_is_lost_inside_a_message_resets_the_stream() {
    let (gateway, mut instance, id, client, call) = by_hand(METHOD2).await;
    let message = frame(&Method2Response { text: "cut short".to_owned(), ..Default::default() });
    let part = ResponsePart { headers: Some(Headers::default()), data: message.slice(..9), trailers: None };
    instance.respond(id, part).unwrap();
    let mut response = timeout(PATIENCE, call.response).await.unwrap().unwrap().into_body();
    assert_eq!(response.data().await.unwrap().unwrap().len(), 9);

    instance.die();

    let error = timeout(PATIENCE, response.data()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    client.die();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_unary_method_takes_one_message_and_the_instance_never_sees_another_number() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let client = Connected::to(&gateway).await;
    let two = Bytes::from([frame(&text("1")), frame(&text("2"))].concat());

    for (path, body) in [(METHOD1, Bytes::new()), (METHOD1, two.clone()), (METHOD2, two)] {
        let mut call = client.client.call(path, &[]).await.unwrap();
        call.request.send_data(body, true).unwrap();
        let end = timeout(PATIENCE, call.end()).await.unwrap().unwrap();
        assert_eq!(end.code(), Code::Unimplemented as i32, "{}", end.message());
    }

    assert!(backend.probe.log().is_empty());
    client.die();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn what_is_not_grpc_gets_an_http_status_and_what_is_not_served_the_nearest_name() {
    let gateway = TestGateway::start().await;
    let client = Connected::to(&gateway).await;
    let unary = |path: &'static str, headers: &'static [(&str, &str)]| {
        let client = client.client.clone();
        async move { timeout(PATIENCE, client.unary(path, headers, &text("x"))).await.unwrap().unwrap() }
    };

    assert_eq!(unary(METHOD1, &[("content-type", "application/json")]).await.http_status, 415);
    for (path, says) in [
        ("/myservice.MyServise/Method1", "unknown service myservice.MyServise; did you mean myservice.MyService?"),
        ("/myservice.MyService/Methud1", "did you mean Method1?"),
        ("/api/v2/myservice.MyService/Method1", "did you mean /api/v1/myservice.MyService/Method1?"),
    ] {
        let end = unary(path, &[]).await;
        assert_eq!((end.http_status, end.code()), (200, Code::Unimplemented as i32), "{path}");
        assert!(end.message().contains(says), "{}", end.message());
    }
    let end = unary(METHOD1, &[]).await;
    assert_eq!(end.code(), Code::Unavailable as i32);
    assert!(end.message().contains("no instance of myservice.MyService has registered yet"), "{}", end.message());
    assert_eq!(unary(METHOD1, &[("grpc-timeout", "soon")]).await.code(), Code::Internal as i32);
    assert_eq!(unary(METHOD1, &[("grpc-timeout", "0n")]).await.code(), Code::DeadlineExceeded as i32);
    client.die();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn an_instance_that_left_is_named_with_the_reason() {
    let gateway = TestGateway::start().await;
    let client = Connected::to(&gateway).await;
    ByHand::register(gateway.address, "gone").await.unwrap().die();
    eventually("the instance came and left", || gateway.gateway.stats().tunnels == 0).await;

    let end = client.method1(&[("instanceid", "gone")], "x").await;

    assert_eq!(end.code(), Code::Unavailable as i32);
    assert!(end.message().contains("the last one, gone, left 0 s ago: "), "{}", end.message());
    client.die();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_client_connection_that_dies_cancels_every_call_on_it() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let client = Connected::to(&gateway).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        for (path, end) in [(METHOD1, true), (METHOD2, true), (METHOD3, false), (STREAM_METHOD, false)] {
            let mut call = client.client.call(path, &[]).await.unwrap();
            let message = Method2Request { text: say::STALL.to_owned(), count: 2 };
            call.request.send_data(frame(&message), end).unwrap();
            calls.push(call);
        }
    }
    for name in ["method1", "method2", "method3", "stream"] {
        backend.probe.saw(&format!("{name} begins"), 20).await;
    }
    assert_eq!(gateway.gateway.stats().calls, 80);

    client.die();

    for name in ["method1", "method2", "method3", "stream"] {
        backend.probe.saw(&format!("{name} dropped"), 20).await;
    }
    assert!(!backend.probe.log().iter().any(|line| line.contains("clean end") || line.contains("error")));
    drop(calls);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_flood_of_tiny_frames_to_a_stalled_instance_holds_up_no_other_call_of_its_connection() {
    const FRAMES: usize = 20_000;
    const TEN: Bytes = Bytes::from_static(&[0, 0, 0, 0, 5, 1, 2, 3, 4, 5]);
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "b").await;
    let mut stalled = ByHand::register(gateway.address, "stalled").await.unwrap();
    gateway.instances(2).await;
    let client = Connected::to(&gateway).await;
    let mut flood = client.client.call(METHOD3, &[("instanceid", "stalled")]).await.unwrap();
    let mut beside = client.client.call(STREAM_METHOD, &[("instanceid", "b")]).await.unwrap();
    beside.request.send_data(frame(&StreamRequest { text: "0".to_owned() }), false).unwrap();
    let mut answers = timeout(PATIENCE, beside.response).await.unwrap().unwrap().into_body();

    // All of it within the client's window, so nothing holds it back; h2's own limit is about 2,000 frames unread.
    flood.request.reserve_capacity(FRAMES * TEN.len());
    let mut goes_on = 0;
    for sent in 0..FRAMES {
        while flood.request.capacity() < TEN.len() {
            timeout(PATIENCE, poll_fn(|cx| flood.request.poll_capacity(cx))).await.unwrap().unwrap().unwrap();
        }
        flood.request.send_data(TEN, false).unwrap();
        if sent % 1_000 == 0 {
            let data = timeout(PATIENCE, answers.data()).await.unwrap().unwrap().unwrap();
            answers.flow_control().release_capacity(data.len()).unwrap();
            goes_on += 1;
            beside.request.send_data(frame(&StreamRequest { text: goes_on.to_string() }), false).unwrap();
            assert_eq!(client.method1(&[("instanceid", "b")], "meanwhile").await.code(), 0);
        }
    }
    assert_eq!(goes_on, 20);
    // What the instance has no window for waits at the gateway, packed.
    eventually("the flood waits at the gateway", || {
        (130_000..=FRAMES * TEN.len()).contains(&gateway.gateway.stats().queued_bytes)
    })
    .await;

    for _ in 0..20 {
        assert_eq!(client.method1(&[("instanceid", "b")], "still here").await.code(), 0);
    }
    let (id, _) = stalled.started().await.unwrap();
    stalled.respond(id, ResponsePart { trailers: ok(), ..Default::default() }).unwrap();
    assert_eq!(timeout(PATIENCE, flood.end()).await.unwrap().unwrap().code(), 0);
    beside.request.send_data(Bytes::new(), true).unwrap();
    let rest = async {
        while let Some(data) = answers.data().await {
            data.unwrap();
        }
    };
    timeout(PATIENCE, rest).await.unwrap();
    assert_eq!(answers.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    stalled.die();
    gateway.instances(1).await;
    client.die();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_own_call_and_no_other_and_little_is_kept_for_it() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let stalled = Connected::to(&gateway).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        let mut call = stalled.client.call(METHOD2, &[]).await.unwrap();
        let much = Method2Request { text: "y".repeat(10_000), count: 1_000 };
        call.request.send_data(frame(&much), true).unwrap();
        calls.push(call);
    }
    backend.probe.saw("method2 begins", 4).await;

    let client = Connected::to(&gateway).await;
    for _ in 0..200 {
        assert_eq!(client.method1(&[], "quick").await.code(), 0);
    }

    // At the gateway what the instance may send beyond what HTTP/2 took, for each of them.
    eventually("answers wait at the gateway", || (1..4 * 96 * 1024).contains(&gateway.gateway.stats().queued_bytes))
        .await;
    // One window of 64 KiB and the part that was over it, for each of them.
    let queued = backend.backend.stats().queued_bytes;
    assert!(queued < 4 * 128 * 1024, "{queued}");
    // And read at last, everything is there.
    let mut ends: JoinSet<_> = calls.into_iter().map(RawCall::end).collect();
    let last = frame(&Method2Response { text: "y".repeat(10_000), index: 999, instance_id: "a".to_owned() });
    while let Some(end) = timeout(PATIENCE, ends.join_next()).await.unwrap() {
        let end = end.unwrap().unwrap();
        assert_eq!(end.code(), 0);
        assert!(end.body.ends_with(&last));
    }
    client.die();
    stalled.die();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_connection_that_carries_a_tunnel_serves_no_calls() {
    let gateway = TestGateway::start().await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let register = client.call("/grpcrouter.Router/Register", &[]).await.unwrap();

    let error = timeout(PATIENCE, client.unary(METHOD1, &[], &text("x"))).await.unwrap().unwrap_err();

    let reason = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
    assert_eq!(reason, Some(h2::Reason::REFUSED_STREAM));
    drop((register, client));
    connection.abort();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn what_is_no_hello_is_told_so() {
    let gateway = TestGateway::start().await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();

    let mut register = client.call("/grpcrouter.Router/Register", &[]).await.unwrap();
    register.request.send_data(frame(&text("hello?")), false).unwrap();

    let end = timeout(PATIENCE, register.end()).await.unwrap().unwrap();
    assert_eq!(end.code(), Code::Internal as i32);
    let message = end.message().replace("%20", " ");
    assert!(message.starts_with("no Hello could be read: "), "{message}");
    assert_eq!(gateway.gateway.stats().tunnels, 0);
    drop(client);
    connection.abort();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn dropping_the_gateways_future_ends_everything_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::builder().add_router::<MyServiceRouter>().build().unwrap();
    let served = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.serve(listener, std::future::pending::<()>()).await }
    });
    let backend = TestBackend::dial(&format!("http://{address}"), "a");
    eventually("one instance", || gateway.stats().instances == 1).await;
    let (client, _connection) = RawClient::connect(address).await.unwrap();
    let mut call = client.call(METHOD1, &[]).await.unwrap();
    call.request.send_data(frame(&text(say::STALL)), true).unwrap();
    backend.probe.saw("method1 begins", 1).await;

    served.abort();

    assert!(served.await.unwrap_err().is_cancelled());
    timeout(PATIENCE, call.end()).await.unwrap().unwrap_err();
    backend.probe.saw("method1 dropped", 1).await;
    eventually("nothing left", || gateway.stats() == Default::default()).await;
    backend.kill().await;
}

/// One of each kind; an error only of the kinds that a lost instance may leave.
async fn one_of_each(mut client: MyServiceClient<Channel>, round: u32) -> Result<(), tonic::Status> {
    let words = |count: u32| (0..count).map(move |word| format!("{round}-{word}-{}", "z".repeat(word as usize * 37)));
    let count = round % 23 + 1;
    match round % 4 {
        0 => {
            let said = "u".repeat(round as usize % 3000);
            assert_eq!(client.method1(text(&said)).await?.into_inner().text, said);
        }
        1 => {
            let asked = Method2Request { text: "d".repeat(round as usize % 5000), count };
            let mut answers = client.method2(asked.clone()).await?.into_inner();
            for index in 0..count {
                let answer = answers.message().await?.expect("as many as asked for");
                assert_eq!((answer.index, &answer.text), (index, &asked.text));
            }
            assert!(answers.message().await?.is_none());
        }
        2 => {
            let sent = tokio_stream::iter(words(count).map(|text| Method3Request { text }));
            let answer = client.method3(sent).await?.into_inner();
            assert_eq!(answer.count, count);
            assert_eq!(answer.text, words(count).collect::<Vec<_>>().join(" "));
        }
        _ => {
            let sent = tokio_stream::iter(words(count).map(|text| StreamRequest { text }));
            let answers = client.stream_method(sent).await?.into_inner();
            let texts: Vec<_> =
                answers.map(|answer| answer.map(|answer| answer.text)).collect::<Result<_, _>>().await?;
            assert_eq!(texts, words(count).collect::<Vec<_>>());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_all_kinds_from_several_threads_arrive_whole_while_some_are_cancelled() {
    let gateway = TestGateway::start().await;
    let backends = vec![TestBackend::start(&gateway, "a").await, TestBackend::start(&gateway, "b").await];
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let client = gateway.client().await;
        for round in 0..400 {
            let client = client.clone();
            calls.spawn(async move {
                if round % 7 == 0 {
                    // Gone somewhere on the way.
                    let _ = timeout(Duration::from_micros(u64::from(round) * 10), one_of_each(client, round)).await;
                    return Ok(());
                }
                one_of_each(client, round).await
            });
        }
    }

    while let Some(call) = timeout(PATIENCE, calls.join_next()).await.unwrap() {
        call.unwrap().unwrap();
    }

    gateway.stop(backends).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_arrive_whole_or_fail_as_unavailable_while_instances_come_and_go() {
    let gateway = TestGateway::start().await;
    let steady = TestBackend::start(&gateway, "steady").await;
    let client = gateway.client().await;
    let mut calls = JoinSet::new();
    let (mut lost, mut done) = (0, 0);
    let mut count = |call: Result<Result<(), tonic::Status>, tokio::task::JoinError>| match call.unwrap() {
        Ok(()) => done += 1,
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            lost += 1;
        }
    };

    for generation in 0..6 {
        let passing = TestBackend::dial(&gateway.uri(), "passing");
        gateway.instances(2).await;
        for round in 0..150 {
            calls.spawn(one_of_each(client.clone(), round));
            if calls.len() > 40 {
                count(timeout(PATIENCE, calls.join_next()).await.unwrap().unwrap());
            }
        }
        if generation % 2 == 0 {
            passing.begin_stop().await.unwrap().unwrap();
        } else {
            passing.kill().await;
        }
        gateway.instances(1).await;
    }
    while let Some(call) = timeout(PATIENCE, calls.join_next()).await.unwrap() {
        count(call);
    }

    assert_eq!(done + lost, 900);
    // Only what a killed instance had is lost: three times at most what runs at once.
    assert!(lost <= 3 * 41, "{lost}");
    drop(client);
    gateway.stop(vec![steady]).await;
}
