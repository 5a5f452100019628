//! METADATA_BASED: a metadata entry, of text or of bytes.

use grpcrouter_tests::echo::proto::{
    Ask, by_bytes_router::ByBytesRouter, by_metadata_client::ByMetadataClient, by_metadata_router::ByMetadataRouter,
};
use tonic::{Request, metadata::MetadataValue};

use crate::{Place, invalid, who};

const ONE: &str = "/routing.ByMetadata/One";

#[tokio::test]
async fn a_key_of_text_or_of_bytes_names_the_instance_with_every_kind() {
    let place = Place::new(&["a", "b"]).await;
    let mut client = ByMetadataClient::connect(place.gateway.uri()).await.unwrap();
    for key in ["a", "b", "b"] {
        let mut one = Request::new(Ask::default());
        one.metadata_mut().insert("tenant", key.parse().unwrap());
        assert_eq!(client.one(one).await.unwrap().into_inner().instance, key);
        let mut up = Request::new(tokio_stream::iter([Ask::default(), Ask::default()]));
        up.metadata_mut().insert_bin("tenant-bin", MetadataValue::from_bytes(key.as_bytes()));
        assert_eq!(client.up(up).await.unwrap().into_inner().instance, key);
    }
    drop(client);
    place.end().await;
}

#[tokio::test]
async fn a_call_without_the_key_is_refused_and_a_method_may_say_otherwise() {
    let place = Place::new(&["a", "b"]).await;

    let end = place.call(ONE, &[]).await;

    invalid(&end, "MISSING_ROUTING_KEY", &["tenant (METADATA_BASED)", "routing.Echo"]);
    assert_eq!(place.two("/routing.ByMetadata/Both", &[]).await, "ab");
    place.end().await;
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_named_with_its_strategy() {
    let place = Place::new(&["a", "b"]).await;
    let long = "x".repeat(10 * 1024);
    for (headers, why) in [
        (&[("tenant", "")][..], "it is empty"),
        (&[("tenant", &long)], "it has 10240 bytes, at most 1024 are taken"),
        (&[("tenant", "a"), ("tenant", "b")], "it comes several times, with different values"),
    ] {
        let end = place.call(ONE, headers).await;
        invalid(&end, "MALFORMED_ROUTING_KEY", &["tenant (METADATA_BASED)", "routing.Echo", why]);
    }
    let end = place.call_with(ONE, &[("tenant", b"\xff\xfe")]).await;
    invalid(&end, "MALFORMED_ROUTING_KEY", &["tenant (METADATA_BASED)", "it is not printable ASCII"]);
    let end = place.call("/routing.ByBytes/One", &[("tenant-bin", "%%%")]).await;
    invalid(&end, "MALFORMED_ROUTING_KEY", &["tenant-bin (METADATA_BASED)", "not base64"]);
    // The same twice is no conflict.
    assert_eq!(who(&place.call(ONE, &[("tenant", "b"), ("tenant", "b")]).await), "b");
    place.end().await;
}

#[tokio::test]
async fn a_typed_client_for_a_key_takes_text_or_bytes() {
    let place = Place::new(&["a", "b"]).await;

    let text = ByMetadataRouter::new(&place.gateway.gateway);
    let bytes = ByBytesRouter::new(&place.gateway.gateway);

    for key in ["b", "a"] {
        let answer = text.typed_client_for(key.parse().unwrap()).one(Ask::default()).await.unwrap();
        assert_eq!(answer.into_inner().instance, key);
        let answer = bytes.typed_client_for(key.as_bytes()).one(Ask::default()).await.unwrap();
        assert_eq!(answer.into_inner().instance, key);
    }
    place.end().await;
}
