//! An instance id is its principal's: while it is here, while it drains, and for a while after it left.

use grpcrouter_protocol::RejectReason::PermissionDenied;
use grpcrouter_tests::world::{TestBackend, eventually};
use myservice::proto::Method1Request;
use tonic::Request;

use crate::{Guarded, hello, rule, said};

/// Calls the instance `a` and tells who answered.
fn to_a() -> Request<Method1Request> {
    let mut request = Request::new(Method1Request { text: "x".to_owned() });
    request.metadata_mut().insert("instanceid", "a".parse().unwrap());
    request
}

#[tokio::test]
async fn nobody_gets_another_principals_id_or_calls_and_its_owner_notices_nothing() {
    let guarded = Guarded::start().await;
    let owner = guarded.token(rule("site-a"));
    let thief = guarded.token(rule("site-b").routing_keys(["*"]));
    guarded.settle().await;
    let backend = TestBackend::start_with(&guarded.gateway, "a", |builder| builder.token(owner.text())).await;
    let mut client = guarded.gateway.client().await;
    let mut as_key = hello("b");
    as_key.routing_keys = vec!["a".to_owned()];

    // More often than takeovers are allowed: none of these is one.
    for _ in 0..10 {
        let (reason, message) = said(guarded.knock_with(&[&format!("Bearer {}", thief.text())], &hello("a")).await);
        assert_eq!(reason, PermissionDenied);
        assert!(message.starts_with("the instance id a belongs to another principal: "), "{message}");
        let (reason, message) = said(guarded.knock_with(&[&format!("Bearer {}", thief.text())], &as_key).await);
        assert_eq!(reason, PermissionDenied);
        assert!(message.starts_with("the routing key a is the instance id of another principal: "), "{message}");
        client.method1(to_a()).await.unwrap();
    }
    assert_eq!(backend.probe.times("method1 done"), 10);

    // It left; the id waits for its owner.
    backend.stop().await;
    guarded.gateway.instances(0).await;
    let (reason, _) = said(guarded.knock_with(&[&format!("Bearer {}", thief.text())], &hello("a")).await);
    assert_eq!(reason, PermissionDenied);
    for _ in 0..2 {
        let again = guarded.knock_with(&[&format!("Bearer {}", owner.text())], &hello("a")).await.unwrap();
        again.die();
        eventually("it is gone", || guarded.gateway.gateway.stats().tunnels == 0).await;
    }
    guarded.stop().await;
}

#[tokio::test]
async fn the_id_of_an_instance_that_drains_is_still_its_own() {
    let guarded = Guarded::start().await;
    let owner = guarded.token(rule("site-a"));
    let thief = guarded.token(rule("site-b"));
    guarded.settle().await;
    let mut draining = guarded.knock(owner.text(), &hello("a")).await.unwrap();
    draining.drain();
    draining.transmit().unwrap();
    guarded.gateway.instances(0).await;
    assert_eq!(guarded.gateway.gateway.stats().tunnels, 1);

    let (reason, _) = said(guarded.knock(thief.text(), &hello("a")).await);

    assert_eq!(reason, PermissionDenied);
    assert_eq!(guarded.gateway.gateway.stats().tunnels, 1);
    // Its owner's next process takes it over as ever.
    assert!(guarded.knock(owner.text(), &hello("a")).await.is_ok());
    guarded.stop().await;
}

#[tokio::test]
async fn two_tokens_of_one_principal_are_one_owner() {
    let guarded = Guarded::start().await;
    let old = guarded.token(rule("site-a"));
    let new = guarded.token(rule("site-a"));
    let _first = guarded.knock(old.text(), &hello("a")).await.unwrap();

    assert!(guarded.knock(new.text(), &hello("a")).await.is_ok());
    guarded.stop().await;
}
