//! What crosses, in which form, and what never does.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use tonic::Code;

use super::*;

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn entries(metadata: &Metadata) -> Vec<(String, Vec<u8>)> {
    metadata.iter().map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), value.to_vec())).collect()
}

fn request(pairs: &[(&str, &str)]) -> Result<RequestHead, Answer> {
    start_from_request(&map(pairs), Text::from_static("/a.B/C"), Text::from_static("example.test"), &Vouched::default())
}

#[test]
fn typed_fields_are_taken_out_and_hop_headers_dropped() {
    let head = request(&[
        ("content-type", "application/grpc+proto"),
        ("te", "trailers"),
        ("grpc-timeout", "5S"),
        ("grpc-encoding", "gzip"),
        ("grpc-accept-encoding", "gzip,zstd"),
        ("x-grpcrouter-principal", "forged"),
        ("user-agent", "test"),
        ("k", "1"),
        ("k", "2"),
    ])
    .unwrap();

    assert_eq!(head.timeout, Some(Duration::from_secs(5)));
    assert_eq!(head.start.path.as_str(), "/a.B/C");
    assert_eq!(head.start.authority.as_str(), "example.test");
    assert_eq!(head.start.content_subtype.as_str(), "proto");
    assert_eq!(head.start.encoding.as_str(), "gzip");
    assert_eq!(head.start.accept_encoding.as_str(), "gzip,zstd");
    assert_eq!(
        entries(&head.start.metadata),
        [("user-agent".into(), b"test".to_vec()), ("k".into(), b"1".to_vec()), ("k".into(), b"2".to_vec())]
    );
}

#[test]
fn binary_metadata_is_split_then_decoded_once_padded_or_not() {
    let head = request(&[("x-bin", "AAE=,AAE, gIA"), ("x-bin", "")]).unwrap();

    assert_eq!(
        entries(&head.start.metadata),
        [
            ("x-bin".into(), vec![0, 1]),
            ("x-bin".into(), vec![0, 1]),
            ("x-bin".into(), vec![0x80, 0x80]),
            ("x-bin".into(), vec![]),
        ]
    );
}

#[test]
fn a_request_survives_the_way_to_the_service() {
    let head = request(&[
        ("content-type", "application/grpc"),
        ("grpc-encoding", "gzip"),
        ("b-bin", "AAECgA=="),
        ("a", "x"),
        ("a", "y"),
    ])
    .unwrap();

    let request = request_from_start(&head.start, Some(Duration::from_millis(20))).unwrap();

    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "http://example.test/a.B/C");
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(
        *request.headers(),
        map(&[
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", "20000000n"),
            ("grpc-encoding", "gzip"),
            ("b-bin", "AAECgA"),
            ("a", "x"),
            ("a", "y"),
        ])
    );
}

#[test]
fn a_spent_timeout_is_answered_at_once() {
    assert_eq!(request(&[("grpc-timeout", "0S")]).unwrap_err().code, Code::DeadlineExceeded);
}

#[test]
fn metadata_over_its_limits_is_refused() {
    let long = "v".repeat(MAX_METADATA);
    assert_eq!(request(&[("k", &long)]).unwrap_err().code, Code::ResourceExhausted);

    assert!(request(&[("k", "v"); MAX_ENTRIES]).is_ok());
    assert_eq!(request(&[("k", "v"); MAX_ENTRIES + 1]).unwrap_err().code, Code::ResourceExhausted);
}

#[test]
fn binary_metadata_that_is_no_base64_is_refused() {
    assert_eq!(request(&[("x-bin", "!!")]).unwrap_err().code, Code::Internal);
}

#[test]
fn a_path_that_is_none_is_an_answer_and_no_panic() {
    for path in ["", "no slash", "/a b\u{7f}", "http://[", "*"] {
        let start = Start { path: Text::from(path.to_owned()), ..Start::default() };
        if let Ok(request) = request_from_start(&start, None) {
            assert!(!request.uri().path().contains(' '), "{path}");
        }
    }
}

#[test]
fn a_response_head_survives_the_way_to_the_client() {
    let sent = map(&[
        ("content-type", "application/grpc+proto"),
        ("grpc-encoding", "gzip"),
        ("grpc-accept-encoding", "gzip"),
        ("initial", "1"),
        ("initial-bin", "AAE"),
    ]);
    assert!(!is_trailers_only(&sent));

    let response = response_headers(&headers_from_response(&sent).unwrap());

    assert_eq!(response.status(), 200);
    assert_eq!(*response.headers(), sent);
}

#[test]
fn trailers_survive_both_ways() {
    let sent = map(&[
        ("grpc-status", "5"),
        ("grpc-message", "%E2%82%AC 100%25"),
        ("grpc-status-details-bin", "CAUSAA"),
        ("end-bin", "gIE"),
        ("grpc-retry-pushback-ms", "10"),
    ]);

    let trailers = trailers_from_map(&sent);
    let mut back = HeaderMap::new();
    trailers_into_map(&trailers, &mut back);

    assert_eq!((trailers.status, trailers.message.as_str()), (5, "€ 100%"));
    assert_eq!(&trailers.details[..], [8, 5, 18, 0]);
    assert_eq!(back, sent);
}

#[test]
fn a_status_that_grpc_does_not_know_becomes_unknown() {
    for status in ["17", "99", "-1", "", "x", "4294967296"] {
        assert_eq!(trailers_from_map(&map(&[("grpc-status", status)])).status, 2, "{status}");
    }
    let mut back = HeaderMap::new();
    trailers_into_map(&Trailers { status: 1000, ..Trailers::default() }, &mut back);
    assert_eq!(back, map(&[("grpc-status", "2")]));
}

#[test]
fn a_message_that_is_wrongly_escaped_is_still_a_message() {
    let trailers = trailers_from_map(&map(&[("grpc-status", "2"), ("grpc-message", "50% %zz %FF")]));

    assert_eq!(trailers.message.as_str(), "50% %zz \u{fffd}");
}

#[test]
fn a_missing_status_is_a_malformed_response() {
    assert_eq!(trailers_from_map(&HeaderMap::new()).status, 13);
}

#[test]
fn trailers_over_their_limit_say_so() {
    let trailers = trailers_from_map(&map(&[("grpc-status", "0"), ("k", &"v".repeat(MAX_TRAILERS))]));

    assert_eq!(trailers.status, 8);
    assert!(trailers.metadata.is_empty());
}

#[test]
fn a_hostile_tunnel_cannot_forge_headers() {
    let mut builder = Metadata::builder();
    for (key, value) in [
        (&b"grpc-status"[..], &b"0"[..]),
        (b":status", b"500"),
        (b"Upper", b"x"),
        (b"new\nline", b"x"),
        (b"k", b"a\r\nset-cookie: b"),
        (b"good", b"1"),
    ] {
        builder.push(key, value);
    }

    let response = response_headers(&Headers { metadata: builder.finish(), ..Headers::default() });

    assert_eq!(*response.headers(), map(&[("content-type", "application/grpc"), ("good", "1")]));
}

#[test]
fn only_grpc_is_grpc() {
    for (content_type, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc+x", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/json", false),
        ("", false),
    ] {
        assert_eq!(is_grpc(&map(&[("content-type", content_type)])), expected, "{content_type}");
    }
    assert!(!is_grpc(&HeaderMap::new()));
}

#[test]
fn trailers_alone_carry_status_and_content_type() {
    let trailers = Trailers { status: 12, message: Text::from_static("no"), ..Trailers::default() };

    let response = trailers_only(&trailers, &Text::default());

    assert_eq!(
        *response.headers(),
        map(&[("content-type", "application/grpc"), ("grpc-status", "12"), ("grpc-message", "no")])
    );
    assert!(is_trailers_only(response.headers()));
}

#[test]
fn the_principal_reaches_the_service_from_the_gateway_alone() {
    let vouched = Vouched { principal: Some(Text::from_static("key:ci")), spent: None };
    let headers = map(&[("x-grpcrouter-principal", "jwt:admin"), ("x-own", "1")]);
    let head = start_from_request(&headers, Text::from_static("/a.B/C"), Text::default(), &vouched).unwrap();

    let request = request_from_start(&head.start, None).unwrap();
    let response = response_headers(&Headers { metadata: head.start.metadata.clone(), ..Headers::default() });

    assert_eq!(request.headers().get_all(PRINCIPAL).iter().collect::<Vec<_>>(), ["key:ci"]);
    assert_eq!(request.headers().get("x-own").unwrap(), "1");
    assert_eq!(response.headers().get(PRINCIPAL), None);
}

#[test]
fn credentials_that_were_spent_here_do_not_cross_and_others_do() {
    let headers = map(&[("authorization", "Bearer a"), ("x-api-key", "b")]);
    let crossing = |spent: Option<&'static str>| {
        let vouched = Vouched { principal: None, spent: spent.map(HeaderName::from_static) };
        let head = start_from_request(&headers, Text::default(), Text::default(), &vouched).unwrap();
        entries(&head.start.metadata).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };

    assert_eq!(crossing(None), ["authorization", "x-api-key"]);
    assert_eq!(crossing(Some("authorization")), ["x-api-key"]);
    assert_eq!(crossing(Some("x-api-key")), ["authorization"]);
}

#[test]
fn a_repeated_call_tells_how_often_it_was_tried_before_on_top_of_its_clients_own_tries() {
    let repeated = |headers: &[(&'static str, &'static str)], times: usize| {
        let head = start_from_request(&map(headers), Text::default(), Text::default(), &Vouched::default()).unwrap();
        let mut start = head.start;
        (0..times).for_each(|_| count_attempt(&mut start, &Config::default()));
        entries(&start.metadata)
    };
    let attempts = |count: &str| ("grpc-previous-rpc-attempts".to_owned(), count.as_bytes().to_vec());

    assert_eq!(repeated(&[], 1), [attempts("1")]);
    assert_eq!(repeated(&[("x-own", "a")], 3), [("x-own".to_owned(), b"a".to_vec()), attempts("3")]);
    assert_eq!(repeated(&[("grpc-previous-rpc-attempts", "2")], 1), [attempts("3")]);
    assert_eq!(repeated(&[("grpc-previous-rpc-attempts", "many")], 1), [attempts("1")]);
}

#[test]
fn what_a_call_was_tried_is_left_out_where_it_would_be_too_much() {
    let limits = Config::default();
    let filled = |value: usize, entries: usize| {
        let mut metadata = Metadata::builder();
        metadata.push(b"x", &vec![b'v'; value]);
        (1..entries).for_each(|_| metadata.push(b"", b""));
        let mut start = Start { metadata: metadata.finish(), ..Start::default() };
        count_attempt(&mut start, &limits);
        start.metadata.len() > entries
    };
    let room = limits.max_metadata - 1 - "grpc-previous-rpc-attempts1".len();

    assert!(filled(room, 1) && !filled(room + 1, 1));
    assert!(filled(1, limits.max_metadata_entries - 1) && !filled(1, limits.max_metadata_entries));
}
