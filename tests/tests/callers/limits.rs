//! How often callers may call: counts, what they are told, and places that come back however a call ends.

use std::time::Duration;

use grpcrouter_runtime::{ApiKey, By, Callers, RateLimit};
use grpcrouter_tests::{probe::say, raw::RawEnd, world::eventually};
use myservice::proto::Method1Request;
use tonic_types::StatusExt as _;

use crate::{Files, METHOD1, Place, RESOURCE_EXHAUSTED, header, refusal, status};

fn retry_after(end: &RawEnd) -> Duration {
    status(end).get_details_retry_info().unwrap().retry_delay.unwrap()
}

/// So many of these calls are answered.
async fn answered(place: &Place, calls: usize, headers: &[(&str, &str)]) -> usize {
    let mut answered = 0;
    for _ in 0..calls {
        answered += usize::from(place.call(headers).await.code() == 0);
    }
    answered
}

#[tokio::test]
async fn each_caller_has_a_share_and_who_is_over_it_is_told_when_to_come_back() {
    let files = Files::new();
    let (a, b) = (ApiKey::generate(), ApiKey::generate());
    files.write("keys.toml", &(a.entry("a", &[]) + &b.entry("b", &[])));
    let place = Place::new(files.callers().limit(RateLimit::per_minute(1).burst(3).key(By::Principal))).await;

    let of_a = answered(&place, 5, &[("x-api-key", a.text())]).await;
    let over = place.call(&[("x-api-key", a.text())]).await;
    let of_b = answered(&place, 5, &[("x-api-key", b.text())]).await;

    assert_eq!((of_a, of_b, place.seen()), (3, 3, 6), "what is over the limit is not sent");
    let (code, reason, text) = refusal(&over);
    assert_eq!((code, reason.as_str(), over.reason().1.as_str()), (RESOURCE_EXHAUSTED, "RATE_LIMITED", "NOT_SENT"));
    assert!(
        text.starts_with("the limit of 1 calls per minute for each caller to * is reached: try again in "),
        "{text}"
    );
    let wait = retry_after(&over);
    assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(60), "{wait:?}");
    place.stop().await;
}

#[tokio::test]
async fn bad_credentials_count_by_address_before_anybody_looks_at_them() {
    let files = Files::new();
    let place = Place::new(files.callers().limit(RateLimit::per_minute(1).burst(2).key(By::Address))).await;

    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(place.with_token("guessed").await.code());
    }

    assert_eq!(codes, [16, 16, RESOURCE_EXHAUSTED, RESOURCE_EXHAUSTED]);
    place.stop().await;
}

#[tokio::test]
async fn a_limit_counts_the_methods_and_the_entries_that_it_says() {
    let by_tenant =
        RateLimit::per_minute(1).key(By::Metadata("tenant".to_owned())).methods("myservice.MyService/Method1");
    let place = Place::new(Callers::new().limit(by_tenant)).await;

    let counts = [
        answered(&place, 2, &[("tenant", "a")]).await,
        answered(&place, 2, &[("tenant", "b")]).await,
        answered(&place, 2, &[]).await,
    ];
    let mut others = 0;
    for _ in 0..5 {
        others += usize::from(place.call_of("/myservice.MyService/Method2", &[("tenant", "a")]).await.code() == 0);
    }

    assert_eq!((counts, others), ([1, 1, 1], 5));
    place.stop().await;
}

#[tokio::test]
async fn a_place_comes_back_however_a_call_ends() {
    let mut place = Place::new(Callers::new().limit(RateLimit::concurrent(1).key(By::Address))).await;
    let raw = place.gateway.raw().await;
    let stall = grpcrouter_tests::raw::frame(&Method1Request { text: say::STALL.to_owned() });
    let free = async |place: &Place, after: &str| {
        place.gateway.idle().await;
        let end = place.call(&[]).await;
        assert_eq!(end.code(), 0, "after {after}: {}", end.message());
    };

    // While one runs, no other does.
    let mut running = raw.call(METHOD1, &[]).await.unwrap();
    running.request.send_data(stall.clone(), true).unwrap();
    place.backend.probe.saw("method1 begins", 1).await;
    let over = place.call(&[]).await;
    let (code, reason, text) = refusal(&over);
    assert_eq!((code, reason.as_str()), (RESOURCE_EXHAUSTED, "RATE_LIMITED"));
    assert!(text.starts_with("the limit of 1 calls at once for each address"), "{text}");
    assert_eq!(retry_after(&over), Duration::from_millis(100));

    running.request.send_reset(h2::Reason::CANCEL);
    free(&place, "a cancelled call").await;

    let mut late = raw.call(METHOD1, &[("grpc-timeout", "50m")]).await.unwrap();
    late.request.send_data(stall.clone(), true).unwrap();
    assert_eq!(late.end().await.unwrap().code(), 4);
    // Whether it came so far depends on the machine.
    let late_began = place.backend.probe.times("method1 begins") - 2;
    free(&place, "a deadline").await;

    let mut lost = raw.call(METHOD1, &[]).await.unwrap();
    lost.request.send_data(stall.clone(), true).unwrap();
    place.backend.probe.saw("method1 begins", 4 + late_began).await;
    let again = grpcrouter_tests::world::TestBackend::dial(&place.gateway.uri(), "b");
    std::mem::replace(&mut place.backend, again).kill().await;
    assert_eq!(lost.end().await.unwrap().code(), 14);
    eventually("the other instance is there alone", || place.gateway.gateway.instances().iter().all(|it| it.id == "b"))
        .await;
    place.gateway.instances(1).await;
    free(&place, "an instance that was lost").await;

    let refused = place.call_of("/no.Such/Method", &[]).await;
    assert_eq!(refused.code(), 12);
    free(&place, "a call that nobody serves").await;

    let connection = place.gateway.raw().await;
    let mut gone = connection.call(METHOD1, &[]).await.unwrap();
    gone.request.send_data(stall, true).unwrap();
    place.backend.probe.saw("method1 begins", 3).await;
    drop((gone, connection));
    free(&place, "a client that went away").await;

    drop(raw);
    assert_eq!(header(&place.call(&[]).await, "x-told-principal"), "");
    place.stop().await;
}
