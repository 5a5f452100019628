//! Calls that another instance answers: what was not started always, what may have been executed where it may be twice.

use grpcrouter_protocol::Health;
use grpcrouter_runtime::{Gateway, IdempotencyLevel};
use grpcrouter_tests::{
    by_hand::ByHand,
    echo::proto::repeatable_router::{self, RepeatableRouter},
    probe::say,
    world::{TestBackend, TestGateway},
};
use myservice::proto::Method3Response;
use prost::Message as _;

use crate::{Instance, KINDS, Place, UNARY, UPLOAD, cut_is_lost, end, is, long, message};

const REPEATABLE: [IdempotencyLevel; 2] = [IdempotencyLevel::NoSideEffects, IdempotencyLevel::Idempotent];

#[tokio::test]
async fn a_call_that_may_be_executed_twice_goes_once_more_to_another_instance_as_it_was_and_says_so() {
    for level in REPEATABLE {
        for kind in KINDS {
            println!("{level:?} {kind:?}");
            let place = Place::of(level).await;
            let mut first = place.instance("first").await;
            let mut call = place.call(kind, &[("x-own", "mine")], "one").await;
            let mut had = first.taken().await;
            first.read(&mut had, message("one").len()).await;
            assert_eq!(had.attempts(), None);
            let mut second = place.instance("second").await;

            first.die();

            let mut has = second.taken().await;
            assert_eq!(has.attempts().as_deref(), Some("1"));
            assert_eq!(has.header("x-own").as_deref(), Some("mine"));
            assert_eq!((has.start.path.as_str(), &has.start.authority), (kind.path, &had.start.authority));
            if kind.uploads {
                second.read(&mut has, message("one").len()).await;
                assert_eq!(has.data, message("one"));
                assert!(!has.half_close, "the client has not ended");
                call.request.send_data(message("two"), true).unwrap();
                second.read_to_end(&mut has).await;
                assert_eq!(has.data, [message("one"), message("two")].concat());
            } else {
                assert_eq!((&has.data[..], has.half_close), (&message("one")[..], true));
            }
            second.answer(&has);
            assert_eq!(end(call).await.code(), 0);
            place.had_none(&mut second, "second").await;
            place.stop(vec![second]).await;
        }
    }
}

#[tokio::test]
async fn an_upload_to_a_service_that_is_killed_is_executed_once_more_elsewhere_and_whole() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    let killed = TestBackend::start(&place.gateway, "killed").await;
    let mut call = place.call(UPLOAD, &[], "one").await;
    killed.probe.saw("method3 message", 1).await;
    let other = TestBackend::start(&place.gateway, "other").await;
    let probe = killed.probe.clone();

    killed.kill().await;
    other.probe.saw("method3 message", 1).await;
    call.request.send_data(message("two"), true).unwrap();

    let end = end(call).await;
    let answer = Method3Response::decode(&end.body[5..]).unwrap();
    assert_eq!((end.code(), answer.count, answer.text.as_str()), (0, 2, "one two"));
    assert_eq!(answer.instance_id, "other");
    assert_eq!((probe.times("method3 begins"), probe.times("method3 clean end")), (1, 0));
    assert_eq!((other.probe.times("method3 begins"), other.probe.times("method3 clean end")), (1, 1));
    let Place { gateway, client, connection } = place;
    drop(client);
    connection.abort();
    gateway.instances(1).await;
    gateway.stop(vec![other]).await;
}

#[tokio::test]
async fn it_goes_once_more_and_not_round_all_instances() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    let mut first = place.instance("first").await;
    let call = place.call(UNARY, &[], "poison").await;
    first.taken().await;
    let mut second = place.instance("second").await;
    first.die();
    second.taken().await;
    let mut third = place.instance("third").await;

    second.die();

    is(&end(call).await, super::UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
    place.had_none(&mut third, "third").await;
    place.stop(vec![third]).await;
}

#[tokio::test]
async fn what_one_instance_may_have_executed_is_not_called_unstarted_when_the_next_refuses_it() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    let mut first = place.instance("first").await;
    let refused = place.call(UNARY, &[("x-which", "refused")], "a").await;
    let had = first.taken().await;
    assert_eq!(had.header("x-which").as_deref(), Some("refused"));
    let mut second = place.instance("second").await;
    first.die();
    // Drains before it reads the call, so it never starts it.
    second.0.drain();
    second.0.receive().await.unwrap();
    second.0.transmit().unwrap();

    is(&end(refused).await, super::UNAVAILABLE, "REFUSED", "MAYBE_EXECUTED");

    place.gateway.instances(0).await;
    place.stop(vec![second]).await;
}

#[tokio::test]
async fn a_call_that_is_lost_and_then_refused_goes_on_and_counts_both() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    let mut first = place.instance("first").await;
    // Its client has tried before, too.
    let call = place.call(UNARY, &[("grpc-previous-rpc-attempts", "1")], "a").await;
    assert_eq!(first.taken().await.attempts().as_deref(), Some("1"));
    let mut second = place.instance("second").await;
    first.die();
    // It has come, and is refused; the gateway hears of that when a third is there.
    second.0.drain();
    second.0.receive().await.unwrap();
    let mut third = place.instance_beside("third").await;
    second.0.transmit().unwrap();

    let has = third.taken().await;

    assert_eq!(has.attempts().as_deref(), Some("3"));
    assert_eq!((&has.data[..], has.half_close), (&message("a")[..], true));
    third.answer(&has);
    assert_eq!(end(call).await.code(), 0);
    place.stop(vec![second, third]).await;
}

#[tokio::test]
async fn a_request_of_64_kib_is_kept_and_one_byte_more_is_not() {
    for (extra, kept) in [(0, true), (1, false)] {
        let place = Place::of(IdempotencyLevel::Idempotent).await;
        let mut first = place.instance("first").await;
        let whole = long(64 * 1024 + extra);
        let mut call = place.client.call(UNARY.path, &[]).await.unwrap();
        call.request.send_data(whole.clone(), true).unwrap();
        let mut had = first.taken().await;
        first.read_to_end(&mut had).await;
        assert_eq!(had.data, whole);
        let mut second = place.instance("second").await;

        first.die();

        if kept {
            let mut has = second.taken().await;
            second.read_to_end(&mut has).await;
            assert!(has.data == whole, "the same bytes");
            second.answer(&has);
            assert_eq!(end(call).await.code(), 0);
        } else {
            is(&end(call).await, super::UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
        }
        place.had_none(&mut second, "second").await;
        place.stop(vec![second]).await;
    }
}

#[tokio::test]
async fn an_upload_in_many_small_messages_comes_to_the_next_instance_as_it_was() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    let mut first = place.instance("first").await;
    let mut call = place.call(UPLOAD, &[], "0").await;
    let mut expected = message("0").to_vec();
    let mut had = first.taken().await;
    for number in 1..500 {
        let message = message(&number.to_string());
        expected.extend_from_slice(&message);
        call.request.send_data(message, false).unwrap();
    }
    first.read(&mut had, expected.len()).await;
    let mut second = place.instance("second").await;

    first.die();

    let mut has = second.taken().await;
    second.read(&mut has, expected.len()).await;
    assert!(has.data == expected, "the same bytes");
    call.request.send_data(message("end"), true).unwrap();
    second.read_to_end(&mut has).await;
    assert_eq!(has.data.len(), expected.len() + message("end").len());
    second.answer(&has);
    assert_eq!(end(call).await.code(), 0);
    place.stop(vec![second]).await;
}

#[tokio::test]
async fn what_was_not_started_is_answered_by_another_instance_whatever_its_method() {
    let place = Place::of(IdempotencyLevel::Unknown).await;
    for kind in KINDS {
        println!("{kind:?}");
        let mut draining = place.instance("draining").await;
        let call = place.call(kind, &[], "x").await;
        // The gateway has sent it when the instance reads: the call is there by then, and is not started.
        let other = TestBackend::start(&place.gateway, "other").await;
        draining.0.drain();
        draining.0.receive().await.unwrap();
        draining.0.transmit().unwrap();

        let mut call = call;
        if kind.uploads {
            call.request.send_data(message("y"), true).unwrap();
        }
        assert_eq!(end(call).await.code(), 0);

        let begun = other.probe.log().iter().filter(|line| line.ends_with(" begins")).count();
        assert_eq!(begun, 1);
        draining.die();
        other.stop().await;
        place.gateway.instances(0).await;
    }
    place.stop(Vec::new()).await;
}

#[tokio::test]
async fn the_levels_of_a_proto_file_are_in_its_router_and_hold() {
    let levels: Vec<_> = repeatable_router::SPEC.methods.iter().map(|method| method.idempotency_level).collect();
    let unknown = IdempotencyLevel::Unknown;
    assert_eq!(levels, [IdempotencyLevel::NoSideEffects, IdempotencyLevel::Idempotent, unknown, unknown]);

    let gateway = TestGateway::of(cut_is_lost(Gateway::builder().add_router::<RepeatableRouter>())).await;
    let place = Place::on(gateway).await;
    for (method, repeats) in [("One", true), ("Down", true), ("Up", false), ("Both", false)] {
        println!("{method}");
        let path = format!("/routing.Repeatable/{method}");
        let mut first = echo(&place, "first").await;
        let mut call = place.client.call(&path, &[]).await.unwrap();
        call.request.send_data(message(say::STALL), true).unwrap();
        first.taken().await;
        let mut second = echo(&place, "second").await;

        first.die();

        if repeats {
            let has = second.taken().await;
            assert_eq!(has.attempts().as_deref(), Some("1"));
            second.answer(&has);
            assert_eq!(end(call).await.code(), 0);
        } else {
            is(&end(call).await, super::UNAVAILABLE, "INSTANCE_LOST", "MAYBE_EXECUTED");
        }
        second.die();
        place.gateway.instances(0).await;
    }
    place.stop(Vec::new()).await;
}

/// An instance of `routing.Echo`.
async fn echo(place: &Place, id: &str) -> Instance {
    let mut hello = ByHand::introduction(id, 16).unwrap();
    hello.health = Health::Serving;
    hello.services[0].name = "routing.Echo".to_owned();
    hello.services[0].methods = ["One", "Down", "Up", "Both"].map(str::to_owned).to_vec();
    let before = place.gateway.gateway.stats().instances;
    let instance = ByHand::hello(place.gateway.address, &hello).await.unwrap();
    place.gateway.instances(before + 1).await;
    Instance(instance)
}
