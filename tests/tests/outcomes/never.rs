//! Calls that are never executed twice: those of methods that do not say that they may be, and those whose answer has begun.

use grpcrouter_protocol::Event;
use grpcrouter_runtime::IdempotencyLevel;
use grpcrouter_tests::{
    probe::say,
    world::{TestBackend, no_task_left},
};
use tokio::time::timeout;

use crate::{DEADLINE_EXCEEDED, KINDS, PATIENCE, Place, UNARY, UNAVAILABLE, end, is};

#[tokio::test]
async fn a_lost_call_of_a_method_that_does_not_say_that_it_may_be_repeated_never_is() {
    let place = Place::of(IdempotencyLevel::Unknown).await;
    for kind in KINDS {
        println!("{kind:?}");
        let mut first = place.instance("first").await;
        let call = place.call(kind, &[], "one").await;
        first.taken().await;
        let mut second = place.instance("second").await;

        first.die();

        is(&end(call).await, UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
        place.had_none(&mut second, "second").await;
        second.die();
        place.gateway.instances(0).await;
    }
    place.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_service_that_is_killed_in_a_call_has_executed_it_and_no_other_does() {
    let place = Place::of(IdempotencyLevel::Unknown).await;
    let killed = TestBackend::start(&place.gateway, "killed").await;
    let call = place.call(UNARY, &[], say::STALL).await;
    killed.probe.saw("method1 begins", 1).await;
    let other = TestBackend::start(&place.gateway, "other").await;
    let probe = killed.probe.clone();

    killed.kill().await;

    is(&end(call).await, UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
    assert_eq!(probe.times("method1 begins"), 1);
    let next = end(place.call(UNARY, &[("instanceid", "other")], "next").await).await;
    assert_eq!((next.code(), other.probe.times("method1 begins")), (0, 1), "the next call alone");
    let Place { gateway, client, connection } = place;
    drop(client);
    connection.abort();
    gateway.stop(vec![other]).await;
}

#[tokio::test]
async fn a_call_whose_answer_has_begun_ends_where_it_is() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    for kind in KINDS {
        println!("{kind:?}");
        let mut first = place.instance("first").await;
        let mut call = place.call(kind, &[], "one").await;
        let had = first.taken().await;
        first.respond(&had, true, false);
        let response = timeout(PATIENCE, &mut call.response).await.unwrap().unwrap();
        let mut second = place.instance("second").await;

        first.die();

        let (_, mut body) = response.into_parts();
        assert!(timeout(PATIENCE, body.data()).await.unwrap().is_none());
        let trailers = timeout(PATIENCE, body.trailers()).await.unwrap().unwrap().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "14");
        place.had_none(&mut second, "second").await;
        second.die();
        place.gateway.instances(0).await;
    }
    place.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_call_whose_deadline_has_passed_goes_nowhere_when_its_instance_is_lost() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    let first = place.instance("first").await;
    let call = place.call(UNARY, &[("grpc-timeout", "100m")], "one").await;
    is(&end(call).await, DEADLINE_EXCEEDED, "DEADLINE", "MAYBE_EXECUTED");
    let mut second = place.instance("second").await;

    first.die();

    place.gateway.instances(1).await;
    place.had_none(&mut second, "second").await;
    place.stop(vec![second]).await;
}

#[tokio::test]
async fn a_call_for_one_instance_goes_to_no_other() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    let mut first = place.instance("first").await;
    let call = place.call(UNARY, &[("instanceid", "first")], "one").await;
    first.taken().await;
    let mut second = place.instance("second").await;

    first.die();

    is(&end(call).await, UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
    place.had_none(&mut second, "second").await;
    place.stop(vec![second]).await;
}

#[tokio::test]
async fn a_gateway_that_ends_its_calls_repeats_none_at_an_instance_that_it_has_not_ended_yet() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    let mut instances = [place.instance("a").await, place.instance("b").await];
    let mut calls = Vec::new();
    for (id, instance) in ["a", "b"].into_iter().zip(&mut instances) {
        calls.push(place.call(UNARY, &[("x-which", id)], "one").await);
        // In turn, so each has one.
        instance.taken().await;
    }
    let Place { gateway, client, connection } = place;

    let served = gateway.begin_stop();

    for call in calls {
        is(&end(call).await, UNAVAILABLE, "SHUTTING_DOWN", "MAYBE_EXECUTED");
    }
    for mut instance in instances {
        loop {
            match timeout(PATIENCE, instance.0.event()).await.unwrap() {
                Ok(Event::Started { .. }) => panic!("a call was repeated"),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        instance.die();
    }
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    drop(client);
    connection.abort();
    let _ = connection.await;
    no_task_left().await;
}
