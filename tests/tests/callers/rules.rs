//! Which methods are for whom, and what the others are told.

use bytes::Bytes;
use grpcrouter_runtime::{ApiKey, Callers, Gateway, Who};
use grpcrouter_tests::raw::RawEnd;

use crate::{Files, METHOD1, PERMISSION_DENIED, Place, UNAUTHENTICATED, UNIMPLEMENTED, challenge, forge, refusal};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Calls a service of the gateway's own with a message without fields.
async fn ask(place: &Place, path: &str, headers: &[(&str, &str)]) -> RawEnd {
    let mut call = place.gateway.raw().await.call(path, headers).await.unwrap();
    call.request.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    call.end().await.unwrap()
}

#[tokio::test]
async fn who_is_not_known_and_who_may_not_are_told_apart() {
    let files = Files::new();
    let key = ApiKey::generate();
    files.write("keys.toml", &key.entry("ci", &["orders.read"]));
    let writers = Who::AnyOf(vec![Who::scope("orders.write"), Who::principal("key:ops-*")]);
    let place = Place::new(files.callers().rule("myservice.MyService/Method1", writers)).await;

    let nobody = place.call(&[]).await;
    let wrong = place.call(&[("x-api-key", key.text())]).await;
    let writer = forge::but(forge::claims(), serde_json::json!({ "scope": "orders.read orders.write" }));
    let right = place.with_token(&forge::token("ec", &writer)).await;

    assert_eq!(
        refusal(&nobody),
        (
            UNAUTHENTICATED,
            "NO_CREDENTIALS".to_owned(),
            "myservice.MyService/Method1 needs credentials and the call has none: send the metadata entry \
             \"authorization: Bearer <token>\" with a token of https://login.test, or the metadata entry \
             \"x-api-key: grk_..\" with an API key of this gateway"
                .to_owned()
        )
    );
    assert_eq!(challenge(&nobody), "Bearer");
    assert_eq!(
        refusal(&wrong),
        (
            PERMISSION_DENIED,
            "NOT_ALLOWED".to_owned(),
            "key:ci may not call myservice.MyService/Method1: it takes the scope \"orders.write\", or it is for certain \
             principals only"
                .to_owned()
        )
    );
    assert_eq!((right.code(), place.seen()), (0, 1));
    place.stop().await;
}

#[tokio::test]
async fn health_is_open_and_reflection_only_if_it_is_asked_for() {
    let files = Files::new();
    let token = format!("Bearer {}", forge::good());
    let shut = Place::new(files.callers()).await;
    let open = Place::new(files.callers().allow_anonymous("grpc.reflection.*")).await;
    let no_health = Place::new(files.callers().rule("grpc.health.v1.Health/*", Who::Verified)).await;

    assert_eq!(ask(&shut, HEALTH, &[]).await.code(), 0);
    let refused = ask(&shut, REFLECTION, &[]).await;
    assert_eq!((refused.code(), refused.reason().0.as_str()), (UNAUTHENTICATED, "NO_CREDENTIALS"));
    assert_ne!(ask(&shut, REFLECTION, &[("authorization", &token)]).await.code(), UNAUTHENTICATED);
    assert_ne!(ask(&open, REFLECTION, &[]).await.code(), UNAUTHENTICATED);
    assert_eq!(open.call(&[]).await.code(), UNAUTHENTICATED, "and nothing else");
    assert_eq!(ask(&no_health, HEALTH, &[]).await.code(), UNAUTHENTICATED);
    assert_eq!(ask(&no_health, HEALTH, &[("authorization", &token)]).await.code(), 0);

    // The last one first: each looks that it leaves no task behind.
    for place in [no_health, open, shut] {
        place.stop().await;
    }
}

#[tokio::test]
async fn who_may_not_call_learns_nothing_of_what_there_is() {
    let files = Files::new();
    let place = Place::new(files.callers()).await;
    let token = format!("Bearer {}", forge::good());

    for path in
        ["/myservice.MyService/Method9", "/my.Service/Method1", "/x", "//", "/api/v1/myservice.MyService/Method1"]
    {
        let stranger = place.call_of(path, &[]).await;
        assert_eq!((stranger.code(), stranger.reason().0.as_str()), (UNAUTHENTICATED, "NO_CREDENTIALS"), "{path}");
        assert!(!stranger.message().contains("mean"), "{path}: {}", stranger.message());
    }
    let known = place.call_of("/myservice.MyService/Method9", &[("authorization", &token)]).await;
    assert_eq!(known.code(), UNIMPLEMENTED);

    place.stop().await;
}

#[tokio::test]
async fn a_path_with_a_prefix_falls_under_the_rule_of_its_method() {
    let files = Files::new();
    let rules = files.callers().rule("myservice.MyService/Method1", Who::Nobody).allow_anonymous("api.*");
    let place = Place::new(rules).await;
    let token = format!("Bearer {}", forge::good());

    for path in [METHOD1, "/api/v1/myservice.MyService/Method1", "/api.Open/Method/myservice.MyService/Method1"] {
        let end = place.call_of(path, &[("authorization", &token)]).await;
        assert_eq!(end.code(), PERMISSION_DENIED, "{path}");
    }

    assert_eq!(place.seen(), 0);
    place.stop().await;
}

#[tokio::test]
async fn a_gateway_with_limits_alone_asks_nobody() {
    let place = Place::new(Callers::new()).await;

    let end = place.call(&[("authorization", "Bearer x"), ("x-api-key", "y")]).await;

    assert_eq!(end.code(), 0);
    assert!(crate::header(&end, "x-keys").contains("authorization x-api-key"), "{:?}", end.headers);
    place.stop().await;
}

#[test]
fn what_cannot_be_meant_is_told_at_build() {
    let files = Files::new();
    let error = |callers: Callers| {
        let router = Gateway::builder().add_router::<myservice::proto::my_service_router::MyServiceRouter>();
        router.callers(callers).build().unwrap_err().to_string()
    };
    let issuer = grpcrouter_runtime::JwtIssuer::new(crate::ISSUER);

    for (callers, said) in [
        (files.callers().rule("my*", Who::Nobody), "rule(my*) cannot be used: \"my*\" names no methods: write "),
        (files.callers().api_keys_file(files.path("none")), "keys_file("),
        (Callers::new().jwt(issuer.clone()), "audience() cannot be used: say for whom"),
        (Callers::new().jwt(issuer.clone().audience("a")), "jwks_file() cannot be used: say where"),
        (files.callers().jwt(issuer.audience("a").jwks_file(files.path("jwks.json"))), "name(jwt) cannot be used: two"),
        (Callers::new().rule("a.B/*", Who::Verified), "rule(a.B/*) cannot be used: nobody could call"),
        (files.callers().limit(grpcrouter_runtime::RateLimit::per_second(0)), "limit(0) cannot be used: nobody could"),
    ] {
        let error = error(callers);
        assert!(error.contains(said), "{error}");
    }
}
