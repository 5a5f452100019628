//! PATH_BASED: a segment of the path, between the prefix and the service.

use grpcrouter_tests::echo::{
    EchoBackend,
    proto::{Ask, by_path_client::ByPathClient, by_path_router::ByPathRouter},
};
use grpcrouter_tests::raw::frame;
use tower::ServiceExt as _;

use crate::{Place, invalid, text, who};

#[tokio::test]
async fn the_segment_before_the_service_names_the_instance() {
    let place = Place::new(&["a", "b"]).await;
    for key in ["b", "a", "b"] {
        assert_eq!(who(&place.call(&format!("/api/v1/{key}/routing.ByPath/One"), &[]).await), key);
    }
    // Without one the calls are balanced, with the prefix or without.
    assert_eq!(place.two("/routing.ByPath/One", &[]).await, "ab");
    assert_eq!(place.two("/api/v1/routing.ByPath/One", &[]).await, "ab");
    place.end().await;
}

#[tokio::test]
async fn a_client_has_the_key_in_its_base_address() {
    let place = Place::new(&["a", "b"]).await;
    let channel = tonic::transport::Endpoint::new(place.gateway.uri()).unwrap().connect().await.unwrap();
    let origin = format!("{}/api/v1/b", place.gateway.uri()).parse().unwrap();
    let mut client = ByPathClient::with_origin(channel, origin);

    assert_eq!(client.one(Ask::default()).await.unwrap().into_inner().instance, "b");
    let mut tellings = client.both(tokio_stream::iter([Ask::default(), Ask::default()])).await.unwrap().into_inner();
    let told = tellings.message().await.unwrap().unwrap();
    assert_eq!((told.instance.as_str(), told.messages), ("b", 2));

    drop((client, tellings));
    place.end().await;
}

#[tokio::test]
async fn a_router_in_the_gateways_process_takes_the_key_too() {
    let mut place = Place::new(&["a", "b"]).await;
    place.backends.push(EchoBackend::dial(&place.gateway.uri(), "c", |backend| backend.routing_key("eu/west 100%")));
    place.gateway.instances(3).await;
    let router = ByPathRouter::new(&place.gateway.gateway);
    for (key, who) in [("b", "b"), ("a", "a"), ("eu/west 100%", "c")] {
        let answer = router.typed_client_for(key).one(Ask::default()).await.unwrap();
        assert_eq!(answer.into_inner().instance, who);
    }

    // In another server, under the path that this one is called by.
    let server = axum::Router::new()
        .route_service("/routing.ByPath/{*method}", router.clone())
        .route_service("/api/v1/{tenant}/routing.ByPath/{*method}", router.clone());
    for (path, code) in [("/api/v1/b/routing.ByPath/One", None), ("/api/v1/b/routing.ByPath/Two", Some("12"))] {
        let request = http::Request::post(path).header("content-type", "application/grpc");
        let body = axum::body::Body::from(frame(&Ask::default()));
        let response = server.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.headers().get("grpc-status").map(|status| status.to_str().unwrap());
        assert_eq!(status, code, "{path}");
        let whole = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        assert!(code.is_some() || whole.to_bytes().ends_with(b"\x0a\x01b\x10\x01"), "{path}");
    }
    drop(server);
    drop(router);
    place.end().await;
}

#[tokio::test]
async fn a_key_is_percent_decoded_once() {
    let mut place = Place::new(&["a"]).await;
    let keyed = EchoBackend::dial(&place.gateway.uri(), "b", |backend| {
        backend.routing_key("eu/west").routing_key("100%").routing_key("ü")
    });
    place.gateway.instances(2).await;
    place.backends.push(keyed);

    for segment in ["eu%2Fwest", "eu%2fwest", "100%25", "%C3%BC", "%62"] {
        assert_eq!(who(&place.call(&format!("/api/v1/{segment}/routing.ByPath/One"), &[]).await), "b", "{segment}");
    }
    let end = place.call("/api/v1/eu%252Fwest/routing.ByPath/One", &[]).await;
    assert_eq!((end.code(), end.reason().0.as_str()), (14, "NO_INSTANCE_FOR_KEY"));
    place.end().await;
}

#[tokio::test]
async fn a_segment_that_is_no_key_is_an_invalid_argument() {
    let place = Place::new(&["a"]).await;
    for (segment, why) in [
        ("", "it is empty"),
        ("%zz", "a '%' in it is not followed by two hexadecimal digits"),
        ("a%4", "a '%' in it is not followed by two hexadecimal digits"),
        ("%FF%FE", "it is not UTF-8"),
    ] {
        let end = place.call(&format!("/api/v1/{segment}/routing.ByPath/One"), &[]).await;
        invalid(&end, "MALFORMED_ROUTING_KEY", &["tenant (PATH_BASED)", "routing.Echo", why]);
    }
    // A path of that length is read by nobody, whatever is in it.
    let end = place.call(&format!("/api/v1/{}/routing.ByPath/One", "x".repeat(10 * 1024)), &[]).await;
    assert_eq!((end.code(), end.reason().0.as_str()), (8, "TOO_LARGE"));
    place.end().await;
}

#[tokio::test]
async fn a_path_with_the_key_elsewhere_is_unknown_and_the_answer_says_where_it_goes() {
    let place = Place::new(&["a"]).await;
    for path in ["/a/routing.ByPath/One", "/api/v1/a/b/routing.ByPath/One", "/api/v2/a/routing.ByPath/One"] {
        let end = place.call(path, &[]).await;
        assert_eq!(end.code(), 12, "{path}");
        assert!(text(&end).ends_with("did you mean /api/v1/{key}/routing.ByPath/One?"), "{}", text(&end));
    }
    // Other strategies have no key in the path.
    assert_eq!(place.call("/a/routing.ByHeader/One", &[]).await.code(), 12);
    place.end().await;
}
