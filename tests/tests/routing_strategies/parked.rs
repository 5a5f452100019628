//! `wait_for_instance`: a call waits for an instance, no longer than its deadline, and not too many do.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use grpcrouter_tests::{
    echo::{
        EchoBackend,
        proto::{self, Ask, patient_client::PatientClient, patient_router::PatientRouter},
    },
    raw::{RawCall, RawClient, frame},
    world::{PATIENCE, eventually},
};
use tokio::time::timeout;
use tonic::{Code, Request, transport::Channel};

use crate::{Place, ended, told, who};

const ONE: &str = "/routing.Patient/One";

/// Begins a call and returns when it waits; then there are so many.
async fn parked(place: &Place, headers: &[(&str, &str)], there: usize) -> RawCall {
    let mut call = place.client.call(ONE, headers).await.unwrap();
    call.request.send_data(frame(&Ask::default()), true).unwrap();
    waiting(place, there).await;
    call
}

async fn waiting(place: &Place, there: usize) {
    eventually(&format!("{there} calls wait"), || place.gateway.gateway.stats().parked_calls == there).await;
}

fn keyed<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("tenant", key.parse().unwrap());
    request
}

#[tokio::test]
async fn a_call_waits_for_an_instance_and_one_with_a_key_for_its_own() {
    let mut place = Place::new(&[]).await;
    let any = parked(&place, &[], 1).await;
    let keyed = parked(&place, &[("tenant", "b")], 2).await;

    place.backends.push(EchoBackend::start(&place.gateway, "a").await);
    assert_eq!(who(&ended(any).await), "a");
    waiting(&place, 1).await;

    place.backends.push(EchoBackend::start(&place.gateway, "b").await);
    assert_eq!(who(&ended(keyed).await), "b");
    waiting(&place, 0).await;
    place.end().await;
}

#[tokio::test]
async fn an_upload_goes_on_while_its_call_waits_and_arrives_whole() {
    let mut place = Place::new(&[]).await;
    let mut call = place.client.call("/routing.Patient/Up", &[]).await.unwrap();
    for _ in 0..100 {
        call.request.send_data(frame(&Ask { padding: "x".repeat(1000), ..Ask::default() }), false).unwrap();
    }
    waiting(&place, 1).await;
    place.backends.push(EchoBackend::start(&place.gateway, "a").await);
    call.request.send_data(frame(&Ask::default()), true).unwrap();

    assert_eq!(told(&ended(call).await).messages, 101);
    place.end().await;
}

#[tokio::test]
async fn a_waiting_call_ends_by_its_deadline_or_its_client() {
    let place = Place::new(&["a"]).await;
    let end = place.call(ONE, &[("tenant", "z"), ("grpc-timeout", "100m")]).await;
    assert_eq!((end.code(), end.reason()), (4, ("DEADLINE".into(), "NOT_SENT".into())));

    let mut gone = parked(&place, &[("tenant", "z"), ("grpc-timeout", "1H")], 1).await;
    gone.request.send_reset(h2::Reason::CANCEL);
    drop(gone);
    waiting(&place, 0).await;
    place.end().await;
}

#[tokio::test]
async fn calls_of_a_connection_that_breaks_wait_no_more() {
    let place = Place::new(&[]).await;
    let (client, connection) = RawClient::connect(place.gateway.address).await.unwrap();
    let mut calls = Vec::new();
    for there in 1..=10 {
        calls.push(client.call(ONE, &[]).await.unwrap());
        waiting(&place, there).await;
    }

    connection.abort();

    waiting(&place, 0).await;
    drop((client, calls));
    place.end().await;
}

#[tokio::test]
async fn a_waiting_call_holds_no_more_of_its_upload_than_one_window() {
    let mut place = Place::new(&[]).await;
    let mut call = place.client.call("/routing.Patient/Up", &[]).await.unwrap();
    let ask = frame(&Ask { padding: "x".repeat(16_000), ..Ask::default() });
    // As much as the gateway's window lets out.
    let mut sent = 0;
    call.request.reserve_capacity(1 << 20);
    while (sent + 1) * ask.len() <= WINDOW {
        timeout(PATIENCE, poll_fn(|cx| call.request.poll_capacity(cx))).await.unwrap().unwrap().unwrap();
        while call.request.capacity() >= ask.len() {
            call.request.send_data(ask.clone(), false).unwrap();
            sent += 1;
        }
        call.request.reserve_capacity(ask.len());
    }
    waiting(&place, 1).await;
    // And no more.
    while let Ok(Some(Ok(_))) = timeout(QUIET, poll_fn(|cx| call.request.poll_capacity(cx))).await {
        assert!(call.request.capacity() < ask.len(), "{sent} messages and more");
    }
    eventually("all of it is there", || place.gateway.gateway.stats().queued_bytes > 0).await;
    assert!(place.gateway.gateway.stats().queued_bytes <= WINDOW);

    place.backends.push(EchoBackend::start(&place.gateway, "a").await);
    call.request.send_data(Bytes::new(), true).unwrap();
    assert_eq!(told(&ended(call).await).messages, sent as u32);
    place.end().await;
}

/// Clients that call one call after the other.
const CALLERS: usize = 16;

/// Bytes of one stream that the gateway takes in.
const WINDOW: usize = 256 * 1024;

/// No more room comes within this: what is waited for is that nothing happens.
const QUIET: Duration = Duration::from_millis(300);

#[tokio::test]
async fn no_more_calls_wait_than_the_builder_says() {
    let mut place = Place::of(proto::gateway().max_parked_calls(2), &[]).await;
    let first = parked(&place, &[], 1).await;
    let second = parked(&place, &[], 2).await;

    let third = place.call(ONE, &[]).await;

    assert_eq!((third.code(), third.reason()), (8, ("TOO_MANY_CALLS".into(), "NOT_SENT".into())));
    place.backends.push(EchoBackend::start(&place.gateway, "a").await);
    for call in [first, second] {
        assert_eq!(who(&ended(call).await), "a");
    }
    place.end().await;
}

#[tokio::test]
async fn a_gateway_that_stops_lets_nobody_wait() {
    let place = Place::new(&[]).await;
    let waits = parked(&place, &[], 1).await;
    let Place { gateway, client, .. } = place;

    let stopping = gateway.begin_stop();
    let end = ended(waits).await;

    assert_eq!((end.code(), end.reason()), (14, ("SHUTTING_DOWN".into(), "NOT_SENT".into())));
    drop(client);
    timeout(PATIENCE, stopping).await.expect("an end").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_of_a_lone_instance_loses_no_call() {
    let mut place = Place::new(&["a"]).await;
    let client = PatientClient::connect(place.gateway.uri()).await.unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let calls = |mut client: PatientClient<Channel>, enough: Arc<AtomicBool>| {
        tokio::spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                client.one(keyed("a", Ask::default())).await.unwrap();
            }
        })
    };
    let callers: Vec<_> = (0..CALLERS).map(|_| calls(client.clone(), enough.clone())).collect();
    for _ in 0..5 {
        place.backends.pop().unwrap().stop().await;
        // Each of them, whether its call was refused by the old one or came when nobody was there.
        waiting(&place, CALLERS).await;
        place.backends.push(EchoBackend::start(&place.gateway, "a").await);
    }
    enough.store(true, Ordering::Relaxed);
    for caller in callers {
        timeout(PATIENCE, caller).await.expect("an end").unwrap();
    }
    drop(client);
    place.end().await;
}

#[tokio::test]
async fn calls_from_inside_of_the_process_wait_too() {
    let mut place = Place::of(proto::gateway().max_parked_calls(1), &[]).await;
    let router = PatientRouter::new(&place.gateway.gateway);
    let mut client = router.typed_client();
    let waits = tokio::spawn(async move { client.one(Ask::default()).await });
    waiting(&place, 1).await;

    let full = router.typed_client().one(Ask::default()).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    place.backends.push(EchoBackend::start(&place.gateway, "a").await);
    let waited = timeout(PATIENCE, waits).await.expect("an end").unwrap();
    assert_eq!(waited.unwrap().into_inner().instance, "a");

    let mut late = keyed("z", Ask::default());
    late.set_timeout(Duration::from_millis(100));
    assert_eq!(router.typed_client().one(late).await.unwrap_err().code(), Code::DeadlineExceeded);
    let mut client = router.typed_client();
    let gone = tokio::spawn(async move { client.one(keyed("z", Ask::default())).await });
    waiting(&place, 1).await;
    gone.abort();
    waiting(&place, 0).await;
    drop(router);
    place.end().await;
}

#[tokio::test]
async fn without_the_option_a_call_is_answered_at_once() {
    let place = Place::new(&[]).await;

    let end = place.call("/routing.ByHeader/One", &[]).await;

    assert_eq!((end.code(), end.reason()), (14, ("NO_INSTANCE".into(), "NOT_SENT".into())));
    place.end().await;
}
