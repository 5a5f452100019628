//! Rules that change while instances are connected.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use grpcrouter_protocol::{CloseCode, RejectReason::Unauthenticated};
use grpcrouter_tests::{
    deadlines::long_enough,
    lines::Lines,
    probe::say,
    world::{PATIENCE, TestBackend, eventually},
};
use myservice::proto::Method1Request;
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt as _;
use tracing_subscriber::filter::LevelFilter;

use crate::{Guarded, closed, hello, rule, said};

#[tokio::test]
async fn a_revoked_token_ends_its_streams_and_their_calls_and_nobody_elses() {
    let guarded = Guarded::start().await;
    let (revoked, other) = (guarded.token(rule("site-a")), guarded.token(rule("site-b")));
    guarded.settle().await;
    let gateway = &guarded.gateway;
    let backend = TestBackend::start_with(gateway, "a", |builder| builder.token(revoked.text())).await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.method1(Method1Request { text: say::STALL.to_owned() }).await });
    backend.probe.saw("method1 begins", 1).await;
    let mut stays = guarded.knock(other.text(), &hello("b")).await.unwrap();

    guarded.revoke("site-a");

    let status = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_details_error_info().unwrap();
    assert_eq!((details.reason.as_str(), details.metadata["outcome"].as_str()), ("INSTANCE_LOST", "MAYBE_EXECUTED"));
    eventually("only the other one is here", || {
        gateway.gateway.instances().iter().map(|one| one.id.clone()).collect::<Vec<_>>() == ["b"]
    })
    .await;
    // The other one is not only listed: it is sent calls.
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.method1(Method1Request { text: "x".to_owned() }).await });
    let (id, _) = stays.started().await.unwrap();
    stays.die();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable, "{id:?}");
    backend.stop().await;
    guarded.stop().await;
}

#[tokio::test]
async fn an_instance_hears_why_it_may_not_stay() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::INFO);
    let guarded = Guarded::start().await;
    let token = guarded.token(rule("site-a"));
    let mut instance = guarded.knock(token.text(), &hello("a")).await.unwrap();

    guarded.revoke(token.id());

    let close = closed(&mut instance).await;
    assert_eq!((close.code, close.retry_after), (CloseCode::PermissionDenied, Duration::from_secs(5)));
    assert!(close.reason.starts_with("this token was revoked: "), "{}", close.reason);
    let (reason, _) = said(guarded.knock(token.text(), &hello("a")).await);
    assert_eq!(reason, Unauthenticated);
    eventually("a line says so", || lines.with(&["may not be here any more", "instance=a", token.id()]).len() == 1)
        .await;
    eventually("it left", || lines.with(&["instance left", "it may not be registered here any more"]).len() == 1).await;
    guarded.stop().await;
}

#[tokio::test]
async fn a_token_that_expires_ends_the_stream_that_came_with_it() {
    let guarded = Guarded::start().await;
    // As long as it takes to come in.
    let mut instance = long_enough(async |deadline| {
        let ends = SystemTime::now() + deadline + Duration::from_secs(2);
        let token = guarded.token_until(rule(&format!("site-{}", deadline.as_millis())), Some(ends));
        guarded.knock(token.text(), &hello("a")).await.ok()
    })
    .await;

    let close = closed(&mut instance).await;

    assert_eq!(close.code, CloseCode::PermissionDenied);
    assert!(close.reason.starts_with("this token expired at "), "{}", close.reason);
    guarded.stop().await;
}

#[tokio::test]
async fn a_file_with_a_mistake_is_told_once_and_the_rules_before_it_hold() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::INFO);
    let guarded = Guarded::start().await;
    let token = guarded.token(rule("site-a"));
    let _stays = guarded.knock(token.text(), &hello("a")).await.unwrap();
    let good = fs::read_to_string(&guarded.file).unwrap();

    guarded.edit("services =", "service =");

    let told =
        || lines.with(&["WARN", "cannot be used, the rules before it still hold", "registration.toml:5: "]).len();
    eventually("it is told", || told() == 1).await;
    guarded.settle_all().await;
    guarded.settle_all().await;
    assert_eq!(told(), 1);
    assert_eq!(guarded.gateway.gateway.stats().tunnels, 1);
    assert!(guarded.knock(token.text(), &hello("b")).await.is_ok());

    fs::remove_file(&guarded.file).unwrap();
    eventually("that it is gone is told", || lines.with(&["WARN", "cannot read "]).len() == 1).await;
    assert!(guarded.knock(token.text(), &hello("b")).await.is_ok());

    guarded.replace(&good.replace("site-a", "site-z"));
    eventually("what holds again", || lines.with(&["was read again"]).len() == 2).await;
    eventually("nobody is here as site-a", || guarded.gateway.gateway.stats().tunnels == 0).await;
    guarded.stop().await;
}

#[tokio::test]
async fn a_scope_that_shrinks_closes_who_is_out_of_it_and_one_that_grows_lets_in() {
    let guarded = Guarded::start().await;
    let token = guarded.token(rule("site-a").instances(["a*", "b*"]).max_instances(4));
    let _a = guarded.knock(token.text(), &hello("a")).await.unwrap();
    let mut b = guarded.knock(token.text(), &hello("b")).await.unwrap();

    guarded.edit("\"a*\", \"b*\"", "\"a*\", \"c*\"");

    let close = closed(&mut b).await;
    assert_eq!(close.reason, "site-a may not have the instance id b; it may have a*, c*");
    let mut c = guarded.knock(token.text(), &hello("c")).await.unwrap();
    eventually("a and c", || guarded.gateway.gateway.stats().tunnels == 2).await;

    guarded.edit("max_instances = 4", "max_instances = 1");

    let close = closed(&mut c).await;
    assert!(close.reason.starts_with("site-a has 1 instances here and may not have more"), "{}", close.reason);
    eventually("a alone", || guarded.gateway.gateway.stats().tunnels == 1).await;
    guarded.settle_all().await;
    assert_eq!(guarded.gateway.gateway.instances()[0].id, "a");
    guarded.stop().await;
}
