//! Good credentials: who the service is told that calls, what becomes of them, and how they follow one another.

use grpcrouter_runtime::{ApiKey, JwtIssuer};
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::{
    AUDIENCE, Files, METHOD1, Place, UNAUTHENTICATED,
    forge::{self, but, claims, token},
    header, refusal,
};

/// What the service sees of who calls.
fn seen(end: &grpcrouter_tests::raw::RawEnd) -> (&str, bool, bool) {
    let keys: Vec<&str> = header(end, "x-keys").split(' ').collect();
    (header(end, "x-told-principal"), keys.contains(&"authorization"), keys.contains(&"x-api-key"))
}

#[tokio::test]
async fn tokens_of_each_algorithm_are_let_in_and_the_service_is_told_who_calls() {
    let files = Files::new();
    let place = Place::new(files.callers()).await;

    for kid in ["rsa", "ec", "ed", "hs"] {
        // The second time it is known already.
        let token = token(kid, &claims());
        for _ in 0..2 {
            let end = place.with_token(&token).await;
            assert_eq!((end.code(), seen(&end)), (0, ("jwt:alice", false, false)), "{kid}: {}", end.message());
        }
    }

    assert_eq!(place.seen(), 8);
    place.stop().await;
}

#[tokio::test]
async fn tokens_at_the_edge_of_what_is_allowed_are_let_in() {
    let files = Files::new();
    let place = Place::new(files.callers()).await;

    for changes in [
        json!({ "aud": ["bank", AUDIENCE] }),
        json!({ "exp": forge::now() - 20 }),
        json!({ "nbf": forge::now() + 20 }),
        json!({ "exp": (forge::now() as f64) + 100.5 }),
        json!({ "scope": null }),
        json!({ "more": { "anything": [1, null] } }),
    ] {
        let end = place.with_token(&token("ec", &but(claims(), changes.clone()))).await;
        assert_eq!((end.code(), seen(&end).0), (0, "jwt:alice"), "{changes}: {}", end.message());
    }
    let strange = place.with_token(&token("ec", &but(claims(), json!({ "sub": "ä\r\nx-admin: 1" })))).await;
    assert_eq!(seen(&strange).0, "jwt:%C3%A4%0D%0Ax-admin: 1");

    place.stop().await;
}

#[tokio::test]
async fn nobody_but_the_gateway_says_who_calls() {
    let files = Files::new();
    let place = Place::new(files.callers().allow_anonymous("myservice.MyService/Method1")).await;
    let forged = ("x-grpcrouter-principal", "jwt:root");

    let nobody = place.call(&[forged]).await;
    let alice = place.call(&[forged, ("authorization", &format!("Bearer {}", forge::good()))]).await;

    assert_eq!((nobody.code(), seen(&nobody).0), (0, ""));
    assert_eq!((alice.code(), seen(&alice).0), (0, "jwt:alice"));
    place.stop().await;
}

#[tokio::test]
async fn api_keys_are_taken_from_either_entry_and_end_here() {
    let files = Files::new();
    let (key, other) = (ApiKey::generate(), ApiKey::generate());
    files.write("keys.toml", &key.entry("ci", &[]));
    let place = Place::new(files.callers()).await;
    let bearer = format!("Bearer {}", key.text());

    let header = place.call(&[("x-api-key", key.text())]).await;
    let bearer = place.call(&[("authorization", &bearer)]).await;
    let beside = place.call(&[("x-api-key", key.text()), ("authorization", "Basic dTpw")]).await;
    let unknown = place.call(&[("x-api-key", other.text())]).await;
    let cut = place.call(&[("x-api-key", &key.text()[..30])]).await;
    let twice = place.call(&[("x-api-key", key.text()), ("x-api-key", key.text())]).await;

    assert_eq!((header.code(), seen(&header)), (0, ("key:ci", false, false)));
    assert_eq!((bearer.code(), seen(&bearer)), (0, ("key:ci", false, false)));
    assert_eq!((beside.code(), seen(&beside)), (0, ("key:ci", true, false)), "authorization is the service's then");
    for (end, told) in [(unknown, "not known here"), (cut, "was it cut short?"), (twice, "is there twice")] {
        let (code, reason, text) = refusal(&end);
        assert_eq!((code, reason.as_str()), (UNAUTHENTICATED, "BAD_CREDENTIALS"));
        assert!(text.contains(told), "{text}");
    }
    assert_eq!(place.seen(), 3);
    place.stop().await;
}

#[tokio::test]
async fn a_key_follows_another_and_a_withdrawn_one_is_good_no_more() {
    let files = Files::new();
    let (old, new) = (ApiKey::generate(), ApiKey::generate());
    files.write("keys.toml", &old.entry("ci", &[]));
    let place = Place::new(files.callers()).await;
    let codes = async || {
        let (old, new) =
            (place.call(&[("x-api-key", old.text())]).await, place.call(&[("x-api-key", new.text())]).await);
        (old.code(), new.code())
    };

    let before = codes().await;
    files.write("keys.toml", &(old.entry("ci", &[]) + &new.entry("ci", &[])));
    let both = codes().await;
    files.write("keys.toml", &new.entry("ci", &[]));
    let after = codes().await;
    files.write("keys.toml", "[[key]]\nname = broken");
    let broken = codes().await;

    assert_eq!((before, both, after, broken), ((0, 16), (0, 0), (16, 0), (16, 0)));
    place.stop().await;
}

#[tokio::test]
async fn the_issuers_keys_change_while_calls_come() {
    let files = Files::new();
    let next = forge::ec_key();
    let place = Place::new(files.callers()).await;
    let header = json!({ "typ": "JWT", "alg": "ES256", "kid": "next" });
    let (old, new) = (forge::good(), forge::signed(&header, &claims(), &next, Algorithm::ES256));
    let published = forge::jwk("next", &next, Algorithm::ES256);
    let codes = async || (place.with_token(&old).await.code(), place.with_token(&new).await.code());
    let mut both = forge::jwks();
    both["keys"].as_array_mut().unwrap().push(published.clone());

    let before = codes().await;
    files.write("jwks.json", &both.to_string());
    let during = codes().await;
    files.write("jwks.json", &json!({ "keys": [published] }).to_string());
    let after = codes().await;
    files.write("jwks.json", "{ \"keys\": [] }");
    let broken = codes().await;

    assert_eq!((before, during, after, broken), ((0, 16), (0, 0), (16, 0), (16, 0)), "also for a token known before");
    place.stop().await;
}

#[tokio::test]
async fn credentials_cross_where_the_gateway_is_told_not_to_take_them() {
    let files = Files::new();
    let place = Place::new(files.callers().consume_credentials(false)).await;

    let end = place.with_token(&forge::good()).await;

    assert_eq!((end.code(), seen(&end)), (0, ("jwt:alice", true, false)));
    place.stop().await;
}

#[tokio::test]
async fn what_an_open_method_is_sent_is_the_services_unless_it_is_good_here() {
    let files = Files::new();
    let key = ApiKey::generate();
    files.write("keys.toml", "");
    let place = Place::new(files.callers().allow_anonymous("myservice.MyService")).await;

    let foreign = place.call(&[("authorization", "Bearer of.another.kind")]).await;
    let basic = place.call(&[("authorization", "Basic dTpw")]).await;
    let own = place.with_token(&forge::good()).await;
    let withdrawn = place.call(&[("x-api-key", key.text())]).await;

    assert_eq!((foreign.code(), seen(&foreign)), (0, ("", true, false)));
    assert_eq!((basic.code(), seen(&basic)), (0, ("", true, false)));
    assert_eq!((own.code(), seen(&own)), (0, ("jwt:alice", false, false)));
    assert_eq!((withdrawn.code(), seen(&withdrawn)), (0, ("", false, false)), "what looks like a key goes nowhere");
    place.stop().await;
}

#[tokio::test]
async fn two_issuers_are_told_apart_even_with_keys_of_one_name() {
    let files = Files::new();
    let theirs = forge::ec_key();
    files.write("theirs.json", &json!({ "keys": [forge::jwk("ec", &theirs, Algorithm::ES256)] }).to_string());
    let partner = JwtIssuer::new("https://partner.test").name("partner").audience(AUDIENCE);
    let place = Place::new(files.callers().jwt(partner.jwks_file(files.path("theirs.json")))).await;
    let theirs_say = |issuer: &str| {
        forge::signed(&forge::header("ec"), &but(claims(), json!({ "iss": issuer })), &theirs, Algorithm::ES256)
    };

    let own = place.with_token(&forge::good()).await;
    let partner = place.with_token(&theirs_say("https://partner.test")).await;
    let mixed = place.with_token(&theirs_say(crate::ISSUER)).await;

    assert_eq!((seen(&own).0, seen(&partner).0, mixed.code()), ("jwt:alice", "partner:alice", UNAUTHENTICATED));
    place.stop().await;
}

#[tokio::test]
async fn every_kind_of_call_is_asked() {
    let files = Files::new();
    let place = Place::new(files.callers()).await;

    for method in ["Method1", "Method2", "Method3", "StreamMethod"] {
        let end = place.call_of(&METHOD1.replace("Method1", method), &[]).await;
        assert_eq!((end.code(), end.reason().0.as_str()), (UNAUTHENTICATED, "NO_CREDENTIALS"), "{method}");
    }

    assert_eq!(place.backend.probe.log(), Vec::<String>::new());
    place.stop().await;
}
