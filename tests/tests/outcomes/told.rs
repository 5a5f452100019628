//! What the client of a call that failed is told became of it, at each step at which an instance can be lost.

use std::time::Duration;

use grpcrouter_protocol::{Close, CloseCode, Time};
use grpcrouter_runtime::{Gateway, IdempotencyLevel, ServiceRoutes};
use grpcrouter_tests::world::{TestBackend, TestGateway, eventually};

use crate::{DEADLINE_EXCEEDED, Place, UNARY, UNAVAILABLE, UPLOAD, cut_is_lost, end, is, long};

/// Calls that fill the way to an instance which reads nothing: several times what HTTP/2 holds.
const FILLING: usize = 10;

#[tokio::test]
async fn a_call_that_was_not_sent_is_answered_by_another_instance_and_by_key_told_as_such() {
    let place = Place::of(IdempotencyLevel::Unknown).await;
    let deaf = place.instance("deaf").await;
    let mut filling = Vec::new();
    for _ in 0..FILLING {
        let mut call = place.client.call(UPLOAD.path, &[("instanceid", "deaf")]).await.unwrap();
        call.request.send_data(long(60_000), false).unwrap();
        filling.push(call);
    }
    eventually("the way is full", || place.gateway.gateway.stats().calls == FILLING).await;
    eventually("what does not fit waits", || place.gateway.gateway.stats().queued_bytes > 100_000).await;
    let keyed = place.call(UNARY, &[("instanceid", "deaf")], "keyed").await;
    let free = place.call(UNARY, &[], "free").await;
    eventually("both are there", || place.gateway.gateway.stats().calls == FILLING + 2).await;
    let other = TestBackend::start(&place.gateway, "other").await;

    deaf.die();

    is(&end(keyed).await, UNAVAILABLE, "INSTANCE_LOST", "NOT_SENT");
    assert_eq!(end(free).await.code(), 0);
    assert_eq!(other.probe.times("method1 begins"), 1);
    let mut outcomes = Vec::new();
    for call in filling {
        let end = end(call).await;
        assert_eq!((end.code(), end.reason().0.as_str()), (UNAVAILABLE, "INSTANCE_LOST"));
        outcomes.push(end.reason().1);
    }
    assert!(outcomes.iter().any(|outcome| outcome == "NOT_SENT"), "{outcomes:?}");
    assert_eq!(other.probe.times("method3 begins"), 0);
    let Place { gateway, client, connection } = place;
    drop(client);
    connection.abort();
    gateway.stop(vec![other]).await;
}

#[tokio::test]
async fn a_refused_call_is_told_as_not_started() {
    let place = Place::of(IdempotencyLevel::Unknown).await;
    let mut draining = place.instance("draining").await;
    let other = place.instance("other").await;
    let call = place.call(UNARY, &[("instanceid", "draining")], "x").await;
    eventually("it is there", || place.gateway.gateway.stats().calls == 1).await;
    draining.0.drain();
    draining.0.receive().await.unwrap();
    draining.0.transmit().unwrap();

    is(&end(call).await, UNAVAILABLE, "REFUSED", "NOT_STARTED");

    place.stop(vec![draining, other]).await;
}

#[tokio::test]
async fn an_upload_that_is_cut_in_the_middle_may_have_been_executed() {
    let place = Place::of(IdempotencyLevel::Unknown).await;
    let mut instance = place.instance("a").await;
    let mut call = place.call(UPLOAD, &[], "one").await;
    let mut had = instance.taken().await;
    let begun = had.data.len();
    call.request.send_data(long(10_000), false).unwrap();
    instance.read(&mut had, begun + 10_000).await;

    instance.die();

    is(&end(call).await, UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
    place.stop(Vec::new()).await;
}

#[tokio::test]
async fn an_instance_that_closes_its_tunnel_has_given_up_its_calls() {
    for (level, repeated) in [(IdempotencyLevel::Unknown, false), (IdempotencyLevel::NoSideEffects, true)] {
        let place = Place::of(level).await;
        let mut first = place.instance("first").await;
        let call = place.call(UNARY, &[], "one").await;
        first.taken().await;
        let mut second = place.instance("second").await;

        let close = Close { code: CloseCode::Shutdown, reason: "as asked".to_owned(), retry_after: Duration::ZERO };
        first.0.tunnel.close(close, Time::default());
        first.0.transmit().unwrap();

        if repeated {
            let has = second.taken().await;
            second.answer(&has);
            assert_eq!(end(call).await.code(), 0);
        } else {
            is(&end(call).await, UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
        }
        place.had_none(&mut second, "second").await;
        place.stop(vec![first, second]).await;
    }
}

#[tokio::test]
async fn a_deadline_that_passes_before_any_instance_has_the_call_says_that_it_was_not_sent() {
    let routes = ServiceRoutes::new("myservice.MyService").unary("Method1").wait_for_instance(true);
    let builder = Gateway::builder().add_service(routes).drain_timeout(Duration::from_secs(2));
    let place = Place::on(TestGateway::of(cut_is_lost(builder)).await).await;
    for timeout in ["0n", "50m"] {
        let call = place.call(UNARY, &[("grpc-timeout", timeout)], "x").await;
        is(&end(call).await, DEADLINE_EXCEEDED, "DEADLINE", "NOT_SENT");
    }
    place.stop(Vec::new()).await;
}
