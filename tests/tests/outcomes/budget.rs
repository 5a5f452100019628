//! Beyond its budget no call of a service goes to a second instance.

use grpcrouter_runtime::{IdempotencyLevel, RetryBudget};
use grpcrouter_tests::world::eventually;

use crate::{Place, UNARY, UNAVAILABLE, end, is};

#[tokio::test]
async fn without_a_budget_no_call_goes_to_a_second_instance_and_each_says_why() {
    let place = Place::with(IdempotencyLevel::Idempotent, |builder| builder.retry_budget(RetryBudget::none())).await;
    let mut lost = place.instance("lost").await;
    let call = place.call(UNARY, &[], "one").await;
    lost.taken().await;
    let mut draining = place.instance("draining").await;

    lost.die();

    let told = end(call).await;
    is(&told, UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
    assert!(told.message().contains("no other was asked"), "{}", told.message());
    place.gateway.instances(1).await;
    let call = place.call(UNARY, &[], "two").await;
    eventually("it is there", || place.gateway.gateway.stats().calls == 1).await;
    let mut other = place.instance("other").await;
    draining.0.drain();
    draining.0.receive().await.unwrap();
    draining.0.transmit().unwrap();
    let told = end(call).await;
    is(&told, UNAVAILABLE, "REFUSED", "NOT_STARTED");
    assert!(told.message().contains("no other was asked"), "{}", told.message());
    place.had_none(&mut other, "other").await;
    place.stop(vec![draining, other]).await;
}

#[tokio::test]
async fn of_many_calls_that_are_lost_at_once_as_many_go_on_as_the_budget_has() {
    const LOST: usize = 15;
    let budget = RetryBudget::none().per_second(1);
    let place = Place::with(IdempotencyLevel::Idempotent, |builder| builder.retry_budget(budget)).await;
    let mut first = place.instance("first").await;
    let mut calls = Vec::new();
    for _ in 0..LOST {
        calls.push(tokio::spawn(end(place.call(UNARY, &[], "one").await)));
        first.taken().await;
    }
    let mut second = place.instance("second").await;

    first.die();

    // What was not repeated has ended, so the rest is what the second has.
    eventually("five have ended", || calls.iter().filter(|call| call.is_finished()).count() >= LOST - 10).await;
    place.gateway.instances(1).await;
    let open = place.gateway.gateway.stats().calls;
    assert_eq!(open, 10, "ten seconds of one a second");
    for _ in 0..open {
        let has = second.taken().await;
        assert_eq!(has.attempts().as_deref(), Some("1"));
        second.answer(&has);
    }
    let mut codes = Vec::new();
    for call in calls {
        codes.push(call.await.unwrap().code());
    }
    codes.sort_unstable();
    assert_eq!(codes, [vec![0; 10], vec![UNAVAILABLE; LOST - 10]].concat());
    place.stop(vec![second]).await;
}
