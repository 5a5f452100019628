//! Metadata: what crosses, in which form, and what never does, in either direction.

use std::collections::BTreeMap;

use bytes::Bytes;
use grpcrouter_protocol::{Headers, Metadata, ResponsePart, Trailers};
use grpcrouter_tests::{
    raw::RawClient,
    world::{TestBackend, TestGateway},
};
use http::HeaderMap;
use myservice::proto::Method1Request;
use tonic::Code;

use super::{Between, METHOD1, ok};

/// By key, for only the order of one key's values means anything.
fn by_key(metadata: &Metadata) -> BTreeMap<String, Vec<Bytes>> {
    let mut map: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, value) in metadata.iter() {
        map.entry(String::from_utf8(key.to_vec()).unwrap()).or_default().push(value);
    }
    map
}

fn values<'a>(map: &'a HeaderMap, key: &str) -> Vec<&'a str> {
    map.get_all(key).iter().map(|value| value.to_str().unwrap()).collect()
}

fn metadata(entries: &[(&str, &[u8])]) -> Metadata {
    let mut builder = Metadata::builder();
    entries.iter().for_each(|(key, value)| builder.push(key.as_bytes(), value));
    builder.finish()
}

#[tokio::test]
async fn of_a_request_the_users_metadata_crosses_in_order_and_the_rest_is_dropped() {
    let mut between = Between::new().await;
    let sent = [
        ("k", "1"),
        ("a_b.c-d", "x"),
        ("k", "2"),
        ("k", ""),
        ("authorization", "Bearer abc"),
        ("user-agent", "raw"),
        ("x-bin", "AAE="),
        ("x-bin", "AAE,gIA"),
        ("grpc-previous-rpc-attempts", "1"),
        ("grpc-trace-bin", "AAE"),
        ("grpc-tags-bin", "AQ=="),
        ("grpc-encoding", "gzip"),
        ("grpc-accept-encoding", "gzip,zstd"),
        ("grpc-timeout", "10S"),
        // Dropped from here on.
        ("grpc-made-up", "no"),
        ("grpc-internal-encoding-request", "no"),
        ("grpc-status", "0"),
        ("grpc-message", "no"),
        ("x-grpcrouter-principal", "me"),
        ("proxy-authorization", "no"),
        ("host", "no"),
        ("expect", "100-continue"),
        ("trailer", "no"),
    ];

    let (taken, end) = between.exchange(&sent, ok()).await;

    assert_eq!(end.code(), 0, "{}", end.message());
    let expected: [(&str, &[&[u8]]); 8] = [
        ("k", &[b"1", b"2", b""]),
        ("a_b.c-d", &[b"x"]),
        ("authorization", &[b"Bearer abc"]),
        ("user-agent", &[b"raw"]),
        ("x-bin", &[b"\0\x01", b"\0\x01", b"\x80\x80"]),
        ("grpc-previous-rpc-attempts", &[b"1"]),
        ("grpc-trace-bin", &[b"\0\x01"]),
        ("grpc-tags-bin", &[b"\x01"]),
    ];
    let expected =
        expected.map(|(key, values)| (key.to_owned(), values.iter().map(|v| Bytes::copy_from_slice(v)).collect()));
    assert_eq!(by_key(&taken.start.metadata), BTreeMap::from(expected));
    assert_eq!(taken.start.encoding.as_str(), "gzip");
    assert_eq!(taken.start.accept_encoding.as_str(), "gzip,zstd");
    between.stop().await;
}

/// What a hostile instance might say, among what it may.
const SAID: [(&str, &[u8]); 16] = [
    ("k", b"1"),
    ("k", b"2"),
    ("x-bin", b"\0\x01\xff"),
    ("grpc-retry-pushback-ms", b"100"),
    ("grpc-trace-bin", b"\x07"),
    // Dropped from here on.
    ("grpc-status", b"0"),
    ("grpc-message", b"forged"),
    ("grpc-status-details-bin", b"forged"),
    ("grpc-encoding", b"forged"),
    ("content-type", b"text/html"),
    ("x-grpcrouter-principal", b"me"),
    ("connection", b"close"),
    ("transfer-encoding", b"chunked"),
    ("te", b"no"),
    (":status", b"500"),
    ("new\r\nline", b"forged"),
];

fn crossed(map: &HeaderMap) {
    assert_eq!(values(map, "k"), ["1", "2"]);
    // Unpadded.
    assert_eq!(values(map, "x-bin"), ["AAH/"]);
    assert_eq!(values(map, "grpc-trace-bin"), ["Bw"]);
    for dropped in ["x-grpcrouter-principal", "connection", "transfer-encoding", "te", "grpc-encoding"] {
        assert!(!map.contains_key(dropped), "{dropped}");
    }
}

#[tokio::test]
async fn of_a_response_the_users_metadata_crosses_in_order_and_the_rest_is_dropped() {
    let mut between = Between::new().await;
    let headers = Headers { metadata: metadata(&SAID), ..Headers::default() };
    let trailers = Trailers {
        status: 9,
        message: grpcrouter_protocol::Text::from_static("true"),
        details: Bytes::from_static(b"\x00\xfe\xff"),
        metadata: metadata(&SAID),
    };
    let part = ResponsePart { headers: Some(headers), data: Bytes::new(), trailers: Some(trailers) };

    let (_, end) = between.exchange(&[], part).await;

    crossed(&end.headers);
    crossed(&end.trailers);
    assert_eq!(values(&end.headers, "content-type"), ["application/grpc"]);
    assert!(!end.headers.contains_key("grpc-status"));
    assert_eq!(values(&end.trailers, "grpc-status"), ["9"]);
    assert_eq!(values(&end.trailers, "grpc-message"), ["true"]);
    assert_eq!(values(&end.trailers, "grpc-status-details-bin"), ["AP7/"]);
    assert_eq!(values(&end.trailers, "grpc-retry-pushback-ms"), ["100"]);
    between.stop().await;
}

#[tokio::test]
async fn binary_metadata_goes_through_a_real_service_and_comes_back_unpadded() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let headers =
        [("x-echo-bin", "AAE="), ("x-echo-bin", "gIA"), ("x-grpcrouter-principal", "me"), ("grpc-made-up", "no")];

    let end = client.unary(METHOD1, &headers, &Method1Request { text: "x".to_owned() }).await.unwrap();

    assert_eq!(end.code(), 0);
    assert_eq!(values(&end.headers, "x-echo-bin"), ["AAE", "gIA"]);
    let seen = end.headers["x-keys"].to_str().unwrap();
    assert!(seen.contains("x-echo-bin") && !seen.contains("grpcrouter") && !seen.contains("made-up"), "{seen}");
    drop(client);
    connection.abort();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn binary_metadata_that_is_no_base64_is_an_internal_error_and_reaches_nobody() {
    let between = Between::new().await;
    let end = super::end(between.call(METHOD1, &[("x-bin", "!!")]).await).await;
    assert_eq!(end.code(), Code::Internal as i32);
    assert_eq!(end.reason().0, "MALFORMED_REQUEST");
    between.stop().await;
}
