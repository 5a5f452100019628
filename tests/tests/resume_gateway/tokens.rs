//! Who does not get a tunnel: whatever is wrong with the one who asks, its owner notices nothing.

use std::{fs, time::Duration};

use bytes::Bytes;
use grpcrouter_protocol::{Hello, Incarnation, InstanceId, RejectReason, Resume, TunnelId, Welcome};
use grpcrouter_runtime::{RegistrationFile, RegistrationPolicy, RegistrationRule, RegistrationToken};
use grpcrouter_tests::{
    by_hand::{ByHand, Stream},
    world::TestGateway,
};

use super::{LONG, Place};

/// The Hello that asks for the tunnel of the instance, with something else in it.
fn with(hello: &Hello, change: impl FnOnce(&mut Resume)) -> Hello {
    let mut hello = hello.clone();
    change(hello.resume.as_mut().unwrap());
    hello
}

#[tokio::test]
async fn who_lacks_the_token_or_is_another_instance_is_refused_and_the_owner_is_not_touched() {
    let mut place = Place::new().await;
    place.cut().await;
    let right = place.instance.asks().unwrap();
    let mut flipped = right.resume.clone().unwrap().token.to_vec();
    flipped[31] ^= 1;

    for (wrong, reason, said) in [
        (with(&right, |it| it.token = Bytes::new()), RejectReason::PermissionDenied, "the resume token is not"),
        (with(&right, |it| it.token = flipped.into()), RejectReason::PermissionDenied, "the resume token is not"),
        (
            with(&right, |it| it.tunnel_id = TunnelId([7; 16])),
            RejectReason::Unknown,
            "this gateway holds no such tunnel",
        ),
        (
            Hello { instance_id: InstanceId::parse("b").unwrap(), ..right.clone() },
            RejectReason::PermissionDenied,
            "the tunnel to resume is not this instance's",
        ),
        (
            Hello { incarnation: Incarnation([7; 16]), ..right.clone() },
            RejectReason::PermissionDenied,
            "the tunnel to resume is not this instance's",
        ),
    ] {
        let refused = place.refused(&wrong).await;
        assert_eq!(refused.reason, reason, "{refused:?}");
        assert!(refused.message.starts_with(said), "{refused:?}");
    }
    assert_eq!(place.gateway.gateway.stats().calls, 1);
    place.resume().await;
    place.goes_on().await;
}

#[tokio::test]
async fn wrong_tokens_are_limited_and_the_right_one_is_not() {
    let mut place = Place::new().await;
    place.cut().await;
    let right = place.instance.asks().unwrap();

    let mut reasons = Vec::new();
    for _ in 0..32 {
        reasons.push(place.refused(&with(&right, |it| it.token = Bytes::from_static(b"guess"))).await.reason);
    }

    assert!(reasons[..30].iter().all(|reason| *reason == RejectReason::PermissionDenied), "{reasons:?}");
    assert_eq!(reasons[30..], [RejectReason::ResourceExhausted; 2]);
    place.resume().await;
    place.goes_on().await;
}

#[tokio::test]
async fn an_answer_that_was_lost_costs_nothing_and_an_old_token_is_worth_nothing() {
    let mut place = Place::new().await;
    let first = place.instance.token.clone();
    place.cut().await;
    // The gateway gives the tunnel to a stream whose answer never comes.
    let asked = place.instance.asks().unwrap();
    let (lost, welcome) = Stream::open(place.gateway.address, &[], &asked).await.unwrap();
    assert!(matches!(welcome, Welcome::Resumed(_)), "{welcome:?}");
    lost.die();

    // So the token before is as good, until the instance has spoken with the new one.
    place.resume().await;
    assert_ne!(place.instance.token, first);
    place.instance.drain();
    place.instance.transmit().unwrap();
    place.state("a", Some(grpcrouter_runtime::InstanceState::Draining)).await;

    let asked = place.instance.asks().unwrap();
    let refused = place.refused(&with(&asked, |it| it.token = first)).await;
    assert_eq!(refused.reason, RejectReason::PermissionDenied);
    let now = place.instance.resume(place.gateway.address).await.unwrap();
    now.die();
    place.goes_on().await;
}

#[tokio::test]
async fn a_token_is_of_no_use_to_another_principal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registration.toml");
    let mut written = RegistrationFile::read(&file).unwrap_or_else(|_| {
        fs::write(&file, "").unwrap();
        RegistrationFile::read(&file).unwrap()
    });
    let mut token = |name| written.create_token(RegistrationRule::new(name).services(["*"]), None).unwrap();
    let [owner, thief] = ["site-a", "site-b"].map(&mut token);
    written.write().unwrap();
    let policy = RegistrationPolicy::file(&file);
    let gateway = TestGateway::start_with(|builder| {
        builder.registration(policy).resume_window(LONG).drain_timeout(Duration::ZERO)
    })
    .await;
    let bearer = |token: &RegistrationToken| format!("Bearer {}", token.text());
    let hello = ByHand::introduction("a", 16).unwrap();
    let mut instance =
        ByHand::knock(gateway.address, None, &[&bearer(&owner)], &hello).await.unwrap().expect("it is let in");
    instance.lose().await;
    let asked = instance.asks().unwrap();

    let said = |(_, welcome): (Stream, Welcome)| match welcome {
        Welcome::Rejected(rejected) => Err(rejected.reason),
        Welcome::Resumed(resumed) => Ok(resumed),
        other => panic!("{other:?}"),
    };
    let by =
        async |token: &RegistrationToken| said(Stream::open(gateway.address, &[&bearer(token)], &asked).await.unwrap());

    assert_eq!(by(&thief).await.map(|_| ()), Err(RejectReason::PermissionDenied));
    let nobody = said(Stream::open(gateway.address, &[], &asked).await.unwrap());
    assert_eq!(nobody.map(|_| ()), Err(RejectReason::Unauthenticated));
    assert!(by(&owner).await.is_ok());
    gateway.begin_stop().await.unwrap().unwrap();
}
