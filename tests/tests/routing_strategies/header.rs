//! HEADER_BASED: any header, the host that is called, or one cookie.

use grpcrouter_tests::{
    echo::{
        EchoBackend,
        proto::{Ask, by_header_router::ByHeaderRouter},
    },
    raw::frame,
};
use http::Request;

use crate::{Place, ended, invalid, who};

#[tokio::test]
async fn a_header_names_the_instance() {
    let place = Place::new(&["a", "b"]).await;
    for key in ["b", "a"] {
        assert_eq!(who(&place.call("/routing.ByHeader/One", &[("x-tenant", key)]).await), key);
        let router = ByHeaderRouter::new(&place.gateway.gateway);
        let answer = router.typed_client_for(key.parse().unwrap()).one(Ask::default()).await.unwrap();
        assert_eq!(answer.into_inner().instance, key);
    }
    assert_eq!(place.two("/routing.ByHeader/One", &[]).await, "ab");
    place.end().await;
}

#[tokio::test]
async fn the_host_that_is_called_names_the_instance() {
    let mut place = Place::new(&["a"]).await;
    let acme = EchoBackend::dial(&place.gateway.uri(), "b", |backend| backend.routing_key("acme.example.com"));
    place.gateway.instances(2).await;
    place.backends.push(acme);

    for (host, code) in [("acme.example.com", 0), ("ACME.example.com:8443", 0), ("other.example.com", 14)] {
        let head = Request::post(format!("http://{host}/routing.ByHeader/Down"))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        let mut call = place.client.send(head.body(()).unwrap()).await.unwrap();
        call.request.send_data(frame(&Ask::default()), true).unwrap();
        let end = ended(call).await;
        assert_eq!(end.code(), code, "{host}");
        assert!(code != 0 || who(&end) == "b", "{host}");
    }
    place.end().await;
}

#[tokio::test]
async fn a_cookie_names_the_instance() {
    let place = Place::new(&["a", "b"]).await;
    let up = "/routing.ByHeader/Up";

    assert_eq!(who(&place.call(up, &[("cookie", "x=a; TENANT=b; y=c")]).await), "b");
    assert_eq!(who(&place.call(up, &[("cookie", "x=a"), ("cookie", "TENANT=a")]).await), "a");
    assert_eq!(place.two(up, &[("cookie", "tenant=a")]).await, "ab");
    place.end().await;
}

#[tokio::test]
async fn headers_that_cannot_be_a_key_are_named_with_their_strategy() {
    let place = Place::new(&["a", "b"]).await;
    let long = "x".repeat(10 * 1024);
    for (path, name, headers, why) in [
        ("One", "x-tenant", &[("x-tenant", "")][..], "it is empty"),
        ("One", "x-tenant", &[("x-tenant", &long)], "it has 10240 bytes"),
        ("One", "x-tenant", &[("x-tenant", "a"), ("x-tenant", "b")], "with different values"),
        ("Up", "cookie:TENANT", &[("cookie", "TENANT=")], "it is empty"),
        ("Up", "cookie:TENANT", &[("cookie", "TENANT=a; TENANT=b")], "with different values"),
    ] {
        let end = place.call(&format!("/routing.ByHeader/{path}"), headers).await;
        invalid(&end, "MALFORMED_ROUTING_KEY", &[&format!("{name} (HEADER_BASED)"), "routing.Echo", why]);
    }
    let end = place.call_with("/routing.ByHeader/One", &[("x-tenant", b"\xff\xfe")]).await;
    invalid(&end, "MALFORMED_ROUTING_KEY", &["x-tenant (HEADER_BASED)", "it is not UTF-8"]);
    place.end().await;
}
