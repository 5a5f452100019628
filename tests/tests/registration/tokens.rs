//! Tokens: the right one is let in as its principal, and each other is refused in its own words.

use std::time::{Duration, SystemTime};

use grpcrouter_protocol::RejectReason::{PermissionDenied, ResourceExhausted, Unauthenticated};
use grpcrouter_runtime::RegistrationToken;
use grpcrouter_tests::{
    lines::Lines,
    world::{TestBackend, eventually},
};
use myservice::proto::Method1Request;
use tracing_subscriber::filter::LevelFilter;

use crate::{Guarded, hello, rule, said};

#[tokio::test]
async fn a_backend_with_a_token_is_here_as_its_principal_and_answers_calls() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::INFO);
    let guarded = Guarded::start().await;
    let token = guarded.token(rule("site-a").instances(["site-a-*"]));
    guarded.settle().await;

    let gateway = &guarded.gateway;
    let backend = TestBackend::start_with(gateway, "site-a-1", |builder| builder.token(token.text())).await;

    let instances = gateway.gateway.instances();
    assert_eq!(instances.iter().map(|one| one.principal.as_deref()).collect::<Vec<_>>(), [Some("site-a")]);
    let answer = gateway.client().await.method1(Method1Request { text: "x".to_owned() }).await;
    assert!(answer.is_ok(), "{answer:?}");
    backend.stop().await;
    guarded.gateway.instances(0).await;
    for line in ["instance joined", "instance left"] {
        assert_eq!(lines.with(&[line, r#"principal="site-a""#]).len(), 1, "{:#?}", lines.all());
    }
    let secret = token.text().rsplit_once('_').unwrap().1.to_owned();
    assert!(lines.with(&[&secret]).is_empty(), "{:#?}", lines.all());
    guarded.stop().await;
}

#[tokio::test]
async fn credentials_that_are_not_right_are_refused_each_in_its_own_words_and_the_log_tells_more() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::INFO);
    let guarded = Guarded::start().await;
    let good = guarded.token(rule("site-a"));
    let now = SystemTime::now();
    let old = guarded.token_until(rule("site-b"), Some(now - Duration::from_secs(60)));
    let revoked = guarded.token(rule("site-c"));
    guarded.revoke(revoked.id());
    let over = guarded.token(rule("site-d").expires(now - Duration::from_secs(60)));
    let (rest, last) = good.text().split_at(good.text().len() - 1);
    let forged = format!("{rest}{}", if last == "A" { 'B' } else { 'A' });
    let unknown = RegistrationToken::generate();
    guarded.settle_all().await;
    let bearer = |token: &str| format!("Bearer {token}");

    let no_token = "the authorization header holds no token of this project: ";
    let not_known = "the gateway does not know this token: ";
    for (headers, text) in [
        (vec![], "this gateway lets in only instances that it knows, "),
        (vec![bearer(good.text()), bearer(good.text())], "the request has 2 authorization headers: send one"),
        (vec![good.text().to_owned()], no_token),
        (vec![format!("Basic {}", good.text())], no_token),
        (vec!["Bearer ".to_owned()], no_token),
        (vec![bearer(&good.text()[1..])], no_token),
        (vec![bearer(unknown.text())], not_known),
        (vec![bearer(&forged)], not_known),
        (vec![bearer(revoked.text())], "this token was revoked: "),
        (vec![bearer(old.text())], "this token expired at 20"),
        (vec![bearer(over.text())], "what site-d may do here expired at 20"),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let (reason, message) = said(guarded.knock_with(&headers, &hello("a")).await);
        assert_eq!(reason, Unauthenticated, "{headers:?} {message}");
        assert!(message.starts_with(text), "{headers:?} {message}");
    }

    // Who tries is told the same of both, its owner is not.
    let refused = |detail: String| lines.with(&["credentials refused", "peer=\"127.0.0.1:", &detail]).len();
    assert_eq!(refused(format!("the id {} is known, its secret is another one", good.id())), 1, "{:#?}", lines.all());
    assert_eq!(refused(format!("no token has the id {}", unknown.id())), 1);
    for token in [&good, &old, &revoked, &over, &unknown] {
        assert!(lines.with(&[token.text()]).is_empty());
    }
    assert_eq!(guarded.gateway.gateway.stats().tunnels, 0);
    assert!(guarded.knock_with(&[&bearer(good.text())], &hello("a")).await.is_ok());
    // The name of the scheme has no case.
    assert!(guarded.knock_with(&[&format!("bearer {}", good.text())], &hello("a")).await.is_ok());
    guarded.stop().await;
}

#[tokio::test]
async fn what_is_out_of_a_principals_scope_is_refused_by_name() {
    let guarded = Guarded::start().await;
    let token = guarded.token(rule("site-a").instances(["site-a-*"]).routing_keys(["customer-*"]));
    let mut service = hello("site-a-1");
    service.services[0].name = "bank.Accounts".to_owned();
    let mut second = hello("site-a-1");
    second.services.push(second.services[0].clone());
    second.services[1].name = "myservices.Other".to_owned();
    let mut key = hello("site-a-1");
    key.routing_keys = vec!["customer-1".to_owned(), "site-b-1".to_owned()];
    let id = hello("site-b-1");
    guarded.settle().await;

    for (hello, text) in [
        (service, "site-a may not register the service bank.Accounts; it may myservice.*"),
        (second, "site-a may not register the service myservices.Other; it may myservice.*"),
        (key, "site-a may not declare the routing key site-b-1; it may declare customer-*"),
        (id, "site-a may not have the instance id site-b-1; it may have site-a-*"),
    ] {
        let (reason, message) = said(guarded.knock_with(&[&format!("Bearer {}", token.text())], &hello).await);
        assert_eq!((reason, message.as_str()), (PermissionDenied, text));
    }

    let mut good = hello("site-a-1");
    good.routing_keys = vec!["customer-1".to_owned(), "site-a-1".to_owned()];
    assert!(guarded.knock(token.text(), &good).await.is_ok());
    guarded.stop().await;
}

#[tokio::test]
async fn one_instance_more_than_may_be_is_refused_and_a_second_tunnel_of_one_is_not() {
    let guarded = Guarded::start().await;
    let token = guarded.token(rule("site-a").max_instances(2));
    guarded.settle().await;
    let one = guarded.knock(token.text(), &hello("a")).await.unwrap();
    let _two = guarded.knock(token.text(), &hello("b")).await.unwrap();

    let (reason, message) = said(guarded.knock(token.text(), &hello("c")).await);

    assert_eq!(reason, ResourceExhausted);
    assert!(message.starts_with("site-a has 2 instances here and may not have more: "), "{message}");
    let again = guarded.knock(token.text(), &hello("a")).await.unwrap();
    one.die();
    again.die();
    eventually("one is left", || guarded.gateway.gateway.stats().tunnels == 1).await;
    assert!(guarded.knock(token.text(), &hello("c")).await.is_ok());
    guarded.stop().await;
}

#[tokio::test]
async fn after_too_many_wrong_tries_an_address_hears_so_and_its_right_token_is_let_in_all_the_same() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::INFO);
    let guarded = Guarded::start().await;
    let token = guarded.token(rule("site-a"));
    guarded.settle().await;
    let wrong = format!("Bearer {}", RegistrationToken::generate().text());

    let mut reasons = Vec::new();
    for _ in 0..35 {
        reasons.push(guarded.knock_with(&[&wrong], &hello("a")).await.unwrap_err());
    }

    assert!(reasons[..30].iter().all(|rejected| rejected.reason == Unauthenticated));
    assert!(reasons[30..].iter().all(|rejected| rejected.reason == ResourceExhausted));
    assert_eq!(reasons[30].retry_after, Duration::from_secs(60));
    assert!(reasons[30].message.starts_with("too many tries with wrong credentials "), "{}", reasons[30].message);
    assert_eq!(lines.with(&["credentials refused"]).len(), 31);
    assert!(guarded.knock(token.text(), &hello("a")).await.is_ok());
    guarded.stop().await;
}
