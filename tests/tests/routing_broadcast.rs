//! One call to every instance of a service, from the gateway's process: answers as they come, each instance by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::{collections::BTreeMap, time::Duration};

use grpcrouter_runtime::BroadcastOptions;
use grpcrouter_tests::{
    by_hand::ByHand,
    deadlines::long_enough,
    echo::{
        EchoBackend,
        proto::{
            self, Ask, by_field_router::ByFieldRouter, by_metadata_router::ByMetadataRouter,
            by_path_router::ByPathRouter,
        },
    },
    probe::say,
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::{Method1Request, Method2Request, my_service_router::MyServiceRouter};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

async fn fleet(ids: &[&str]) -> (TestGateway, MyServiceRouter, Vec<TestBackend>) {
    // Who loses its connection is gone.
    let gateway = TestGateway::start_with(|builder| builder.resume_window(Duration::ZERO)).await;
    let router = MyServiceRouter::new(&gateway.gateway);
    let mut backends = Vec::new();
    for id in ids {
        backends.push(TestBackend::start(&gateway, id).await);
    }
    (gateway, router, backends)
}

fn ask(text: &str) -> Method1Request {
    Method1Request { text: text.to_owned() }
}

#[tokio::test]
async fn every_instance_answers_once_and_is_named_whatever_the_routing_key() {
    let (gateway, router, backends) = fleet(&["a", "b", "c"]).await;
    let mut request = Request::new(ask("hello"));
    request.metadata_mut().insert("instanceid", "b".parse().unwrap());

    let answers: BTreeMap<String, String> = router
        .broadcast()
        .method1(request)
        .map(|(id, answer)| (id, answer.unwrap().into_inner().instance_id))
        .collect()
        .await;
    let mut streamed = Vec::new();
    let mut streams = router.broadcast().method2(Method2Request { text: "t".to_owned(), count: 2 });
    while let Some((id, answer)) = streams.next().await {
        let texts = answer.unwrap().into_inner().map(|answer| answer.unwrap().instance_id).collect::<Vec<_>>().await;
        streamed.push((id, texts));
    }
    streamed.sort();

    let of = |id: &str| (id.to_owned(), id.to_owned());
    assert_eq!(answers, BTreeMap::from([of("a"), of("b"), of("c")]));
    let twice = |id: &str| (id.to_owned(), vec![id.to_owned(); 2]);
    assert_eq!(streamed, [twice("a"), twice("b"), twice("c")]);
    assert!(backends.iter().all(|backend| backend.probe.times("method1 begins") == 1));
    gateway.stop(backends).await;
}

#[tokio::test]
async fn an_instance_that_goes_or_does_not_answer_in_time_ends_no_other() {
    let (gateway, router, backends) = fleet(&["a", "b"]).await;
    let mut goes = ByHand::register(gateway.address, "goes").await.unwrap();
    let stalls = ByHand::register(gateway.address, "stalls").await.unwrap();
    gateway.instances(4).await;
    // The deadline begins when the broadcast is made, so it ends what `stalls` keeps.
    let options = BroadcastOptions::new().deadline(Duration::from_secs(2));

    let mut answers = router.broadcast_with(options).method1(ask("hello"));
    let mut told = Vec::new();
    while told.len() < 2 {
        told.push(answers.next().await.unwrap());
    }
    goes.started().await.unwrap();
    goes.die();
    while let Some(answer) = timeout(PATIENCE, answers.next()).await.expect("an end") {
        told.push(answer);
    }

    let told: Vec<_> =
        told.iter().map(|(id, answer)| (id.as_str(), answer.as_ref().err().map(|status| status.code()))).collect();
    assert!(matches!(told[..2], [("a", None), ("b", None)] | [("b", None), ("a", None)]), "{told:?}");
    assert_eq!(told[2..], [("goes", Some(Code::Unavailable)), ("stalls", Some(Code::DeadlineExceeded))]);
    stalls.die();
    gateway.instances(2).await;
    gateway.stop(backends).await;
}

#[tokio::test]
async fn no_more_run_at_once_than_the_limit_and_dropping_the_answers_cancels_them() {
    let (gateway, router, backends) = fleet(&["a", "b", "c"]).await;
    let began = |what: &str| backends.iter().map(|backend| backend.probe.times(what)).sum::<usize>();

    let mut answers = router.broadcast_with(BroadcastOptions::new().at_once(2)).method1(ask(say::STALL));
    let waiting = tokio::spawn(async move { answers.next().await.map(|(id, _)| id) });
    eventually("two calls", || began("method1 begins") == 2).await;
    assert_eq!(gateway.gateway.stats().calls, 2);

    waiting.abort();
    eventually("two cancelled calls", || began("method1 dropped") == 2).await;
    assert_eq!(began("method1 begins"), 2);

    // One after the other, and still each once.
    let all = router.broadcast_with(BroadcastOptions::new().at_once(1)).method1(ask("hello"));
    assert_eq!(all.filter(|(_, answer)| answer.is_ok()).collect::<Vec<_>>().await.len(), 3);
    gateway.stop(backends).await;
}

#[tokio::test]
async fn what_has_no_turn_before_the_deadline_is_not_called_and_nobody_is_no_answer() {
    let (gateway, router, backends) = fleet(&["a", "b"]).await;
    let began = || backends.iter().map(|backend| backend.probe.times("method1 begins")).sum::<usize>();

    long_enough(async |deadline| {
        let all = router.broadcast_with(BroadcastOptions::new().at_once(1).deadline(deadline));
        let answers = all.method1(ask(say::STALL));
        let told: Vec<_> = answers.map(|(_, answer)| answer.unwrap_err().code()).collect().await;
        assert_eq!(told, [Code::DeadlineExceeded, Code::DeadlineExceeded]);
        (began() > 0).then_some(())
    })
    .await;
    gateway.idle().await;
    assert_eq!(began(), 1);
    for backend in backends {
        backend.stop().await;
    }
    gateway.instances(0).await;
    assert!(router.broadcast().method1(ask("hello")).next().await.is_none());
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_service_that_takes_no_call_without_a_key_is_broadcast_to_as_any_other() {
    let gateway = TestGateway::of(proto::gateway()).await;
    let mut backends = Vec::new();
    for id in ["a", "b"] {
        backends.push(EchoBackend::start(&gateway, id).await);
    }

    let by_metadata = ByMetadataRouter::new(&gateway.gateway).broadcast().one(Ask::default());
    let by_path = ByPathRouter::new(&gateway.gateway).broadcast().one(Ask::default());
    let by_field = ByFieldRouter::new(&gateway.gateway).broadcast().one(Ask::default());

    for answers in [by_metadata, by_path, by_field] {
        let mut told: Vec<_> = answers.map(|(_, answer)| answer.unwrap().into_inner().instance).collect().await;
        told.sort();
        assert_eq!(told, ["a", "b"]);
    }
    for backend in backends {
        backend.stop().await;
    }
    gateway.stop(Vec::new()).await;
}
