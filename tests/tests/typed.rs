//! tonic's own client on a router, inside of the gateway's process: `typed_client()` and `typed_client_for(key)`, with
//! backends that dialled out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use grpcrouter_tests::deadlines::long_enough;
use grpcrouter_tests::probe::say;
use grpcrouter_tests::world::{PATIENCE, TestBackend, TestGateway};
use myservice::proto::my_service_router::MyServiceRouter;
use myservice::proto::{Method1Request, Method2Request, Method3Request, StreamRequest};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// A gateway, the router in its process, and its backends.
struct Place {
    gateway: TestGateway,
    router: MyServiceRouter,
    backends: Vec<TestBackend>,
}

impl Place {
    async fn new(ids: &[&str]) -> Self {
        let gateway = TestGateway::start().await;
        let router = MyServiceRouter::new(&gateway.gateway);
        let mut backends = Vec::new();
        for id in ids {
            backends.push(TestBackend::start(&gateway, id).await);
        }
        Self { gateway, router, backends }
    }

    async fn end(self) {
        self.gateway.stop(self.backends).await;
    }
}

#[tokio::test]
async fn a_client_with_a_key_reaches_its_instance_with_all_four_kinds() {
    let place = Place::new(&["a", "b", "c"]).await;
    let mut client = place.router.typed_client_for("b".parse().unwrap());

    for _ in 0..3 {
        let answer = client.method1(Method1Request { text: "m".into() }).await.unwrap().into_inner();
        assert_eq!(answer.instance_id, "b");
        let answers = client.method2(Method2Request { text: "m".into(), count: 2 }).await.unwrap().into_inner();
        let ids: Vec<_> = answers.map(|answer| answer.unwrap().instance_id).collect().await;
        assert_eq!(ids, ["b", "b"]);
        let messages = ["x", "y"].map(|text| Method3Request { text: text.into() });
        let answer = client.method3(tokio_stream::iter(messages)).await.unwrap().into_inner();
        assert_eq!((answer.instance_id.as_str(), answer.text.as_str()), ("b", "x y"));
        let messages = ["x", "y"].map(|text| StreamRequest { text: text.into() });
        let answers = client.stream_method(tokio_stream::iter(messages)).await.unwrap().into_inner();
        let ids: Vec<_> = answers.map(|answer| answer.unwrap().instance_id).collect().await;
        assert_eq!(ids, ["b", "b"]);
    }
    place.end().await;
}

#[tokio::test]
async fn the_clients_key_stands_above_one_that_a_call_brings() {
    let place = Place::new(&["a", "b"]).await;
    let mut client = place.router.typed_client_for("b".parse().unwrap());
    let mut request = Request::new(Method1Request { text: "m".into() });
    request.metadata_mut().append("instanceid", MetadataValue::from_static("a"));
    request.metadata_mut().append("instanceid", MetadataValue::from_static("z"));

    let answer = client.method1(request).await.unwrap();

    assert_eq!(answer.into_inner().instance_id, "b");
    place.end().await;
}

#[tokio::test]
async fn without_a_key_the_instances_take_turns_and_a_call_may_bring_its_own() {
    let place = Place::new(&["a", "b"]).await;
    let mut client = place.router.typed_client();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(client.method1(Method1Request { text: "m".into() }).await.unwrap().into_inner().instance_id);
    }
    ids.sort();
    assert_eq!(ids, ["a", "a", "b", "b"]);

    let mut request = Request::new(Method1Request { text: "m".into() });
    request.metadata_mut().insert("instanceid", MetadataValue::from_static("a"));
    assert_eq!(client.method1(request).await.unwrap().into_inner().instance_id, "a");
    place.end().await;
}

#[tokio::test]
async fn the_gateways_own_answers_say_why_and_what_became_of_the_call() {
    let told = |status: &Status| {
        let info = status.get_details_error_info().unwrap();
        let outcome = info.metadata.get("outcome").cloned().unwrap_or_default();
        (status.code(), info.domain, info.reason, outcome)
    };
    let answer = |reason: &str| (Code::Unavailable, "grpcrouter".to_owned(), reason.to_owned(), "NOT_SENT".to_owned());
    let place = Place::new(&[]).await;
    let request = Method1Request { text: "m".into() };
    let nobody = place.router.typed_client().method1(request.clone()).await.unwrap_err();
    assert_eq!(told(&nobody), answer("NO_INSTANCE"));
    place.end().await;

    let place = Place::new(&["a"]).await;
    let another = place.router.typed_client_for("z".parse().unwrap()).method1(request).await.unwrap_err();
    assert_eq!(told(&another), answer("NO_INSTANCE_FOR_KEY"));
    place.end().await;
}

#[tokio::test]
async fn a_failure_of_the_service_comes_with_its_details_and_metadata() {
    let place = Place::new(&["a"]).await;

    let failure = place.router.typed_client().method1(Method1Request { text: say::FAIL.into() }).await.unwrap_err();

    assert_eq!((failure.code(), failure.message()), (Code::FailedPrecondition, "no: ü"));
    assert_eq!(failure.details(), [0, 1, 254, 255]);
    assert_eq!(failure.metadata().get("x-why").unwrap(), "because");
    place.end().await;
}

#[tokio::test]
async fn a_dropped_call_of_any_kind_drops_its_handler_and_is_no_clean_end() {
    let place = Place::new(&["a"]).await;
    let probe = place.backends.first().unwrap().probe.clone();
    for times in 1..=25 {
        let mut client = place.router.typed_client();
        let call = tokio::spawn(async move { client.method1(Method1Request { text: say::STALL.into() }).await });
        probe.saw("method1 begins", times).await;
        call.abort();
        probe.saw("method1 dropped", times).await;

        let request = Method2Request { text: say::STALL.into(), count: 2 };
        let mut answers = place.router.typed_client().method2(request).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().index, 0);
        drop(answers);
        probe.saw("method2 dropped", times).await;

        let (messages, queue) = mpsc::channel(1);
        let mut client = place.router.typed_client();
        let call = tokio::spawn(async move { client.method3(ReceiverStream::new(queue)).await });
        messages.send(Method3Request { text: "m".into() }).await.unwrap();
        probe.saw("method3 message", times).await;
        call.abort();
        probe.saw("method3 dropped", times).await;

        let (messages, queue) = mpsc::channel(1);
        messages.send(StreamRequest { text: "m".into() }).await.unwrap();
        let mut client = place.router.typed_client();
        let mut answers = client.stream_method(ReceiverStream::new(queue)).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().text, "m");
        drop(answers);
        probe.saw("stream dropped", times).await;
    }
    assert_eq!((probe.times("method3 clean end"), probe.times("stream clean end")), (0, 0));
    place.end().await;
}

#[tokio::test]
async fn a_deadline_holds_before_and_after_the_first_answer() {
    let place = Place::new(&["a"]).await;
    let mut client = place.router.typed_client();
    let probe = place.backends.first().unwrap().probe.clone();

    long_enough(async |deadline| {
        let mut request = Request::new(Method1Request { text: say::STALL.into() });
        request.set_timeout(deadline);
        let status = timeout(PATIENCE, client.method1(request)).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        (probe.times("method1 begins") > 0).then_some(())
    })
    .await;
    probe.saw("method1 dropped", 1).await;

    let status = long_enough(async |deadline| {
        let mut request = Request::new(Method2Request { text: say::STALL.into(), count: 2 });
        request.set_timeout(deadline);
        let mut answers = client.method2(request).await.ok()?.into_inner();
        assert_eq!(answers.message().await.ok()??.index, 0);
        Some(timeout(PATIENCE, answers.message()).await.unwrap().unwrap_err())
    })
    .await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    probe.saw("method2 dropped", 1).await;
    place.end().await;
}
