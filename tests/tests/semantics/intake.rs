//! What the gateway takes in, and what it says to the rest.

use std::time::{Duration, Instant};

use grpcrouter_protocol::{Headers, ResponsePart, Text, Trailers};
use grpcrouter_tests::{
    probe::say,
    raw::RawClient,
    world::{TestBackend, TestGateway},
};
use http::Method;
use myservice::proto::Method1Request;
use tonic::Code;

use super::{Between, METHOD1, end, message, ok};

#[tokio::test]
async fn only_post_is_a_call() {
    let between = Between::new().await;
    for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::DELETE] {
        let call = between.client.call_with(method.clone(), METHOD1, &[]).await.unwrap();
        assert_eq!(end(call).await.http_status, 405, "{method}");
    }
    between.stop().await;
}

#[tokio::test]
async fn what_does_not_say_that_it_is_grpc_gets_http_415() {
    let between = Between::new().await;
    for wrong in [
        "",
        "text/plain",
        "application/json",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpcx",
    ] {
        let call = between.call(METHOD1, &[("content-type", wrong)]).await;
        assert_eq!(end(call).await.http_status, 415, "{wrong}");
    }
    between.stop().await;
}

#[tokio::test]
async fn the_content_subtype_crosses_both_ways() {
    let mut between = Between::new().await;
    for (said, subtype) in [
        ("application/grpc", ""),
        ("application/grpc+proto", "proto"),
        ("application/grpc+json", "json"),
        ("application/grpc+x-own", "x-own"),
    ] {
        let headers = Headers { content_subtype: Text::from(subtype.to_owned()), ..Headers::default() };
        let part = ResponsePart { headers: Some(headers), ..ok() };

        let (taken, end) = between.exchange(&[("content-type", said)], part).await;

        assert_eq!(taken.start.content_subtype.as_str(), subtype);
        assert_eq!((end.code(), end.headers["content-type"].to_str().unwrap()), (0, said));
    }
    between.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_not_the_services_own_has_the_content_subtype_of_the_request() {
    let mut between = Between::new().await;
    for said in ["application/grpc", "application/grpc+proto", "application/grpc+json", "application/grpc+x-own"] {
        let headers = [("content-type", said)];
        let unknown = end(between.call("/no.Such/Method", &headers).await).await;
        let keyed = [headers[0], ("instanceid", "nobody")];
        let nobody = end(between.call(METHOD1, &keyed).await).await;
        let status = Trailers { status: 5, ..Trailers::default() };
        let only = ResponsePart { trailers: Some(status), ..ResponsePart::default() };
        let (_, trailers_only) = between.exchange(&headers, only).await;

        for (end, code) in [(unknown, 12), (nobody, 14), (trailers_only, 5)] {
            assert_eq!((end.code(), end.headers["content-type"].to_str().unwrap()), (code, said));
        }
    }
    between.stop().await;
}

#[tokio::test]
async fn a_backend_answers_with_the_content_subtype_of_the_request_by_either_door() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start_with(&gateway, "a", |builder| builder.listen("127.0.0.1:0")).await;
    for address in [gateway.address, backend.backend.local_addr().unwrap()] {
        let (client, connection) = RawClient::connect(address).await.unwrap();
        for said in ["application/grpc", "application/grpc+proto", "application/grpc+x-own"] {
            for (headers, text, code) in [
                (&[("content-type", said), ("grpc-timeout", "0n")][..], "", Code::DeadlineExceeded),
                (&[("content-type", said), ("x-bin", "!")], "", Code::Internal),
                (&[("content-type", said)], say::PANIC, Code::Unknown),
            ] {
                let end = client.unary(METHOD1, headers, &Method1Request { text: text.to_owned() }).await.unwrap();
                assert_eq!((end.code(), end.headers["content-type"].to_str().unwrap()), (code as i32, said));
            }
        }
        drop(client);
        connection.abort();
    }
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn the_bare_path_is_what_the_instance_sees_and_one_over_512_bytes_is_refused() {
    let mut between = Between::new().await;
    let call = between.call(&format!("/api/v1{METHOD1}"), &[]).await;
    let taken = between.taken().await;
    assert_eq!(taken.start.path.as_str(), METHOD1);
    between.instance.respond(taken.id, ok()).unwrap();
    assert_eq!(end(call).await.code(), 0);

    let at_limit = end(between.call(&format!("/{}", "p".repeat(511)), &[]).await).await;
    let over = end(between.call(&format!("/{}", "p".repeat(512)), &[]).await).await;

    assert_eq!(at_limit.code(), Code::Unimplemented as i32);
    assert_eq!(over.code(), Code::ResourceExhausted as i32);
    assert_eq!(over.reason().0, "TOO_LARGE");
    between.stop().await;
}

#[tokio::test]
async fn a_malformed_timeout_is_internal_and_a_spent_one_exceeds_its_deadline_at_once() {
    let between = Between::new().await;
    for wrong in ["", "5", "S", "123456789S", "1h", "1s", "-1S", "+1S", "1.5S", "1 S", "S1", "0x1S"] {
        let end = end(between.call(METHOD1, &[("grpc-timeout", wrong)]).await).await;
        assert_eq!(end.code(), Code::Internal as i32, "{wrong:?}");
        assert_eq!(end.reason(), ("MALFORMED_REQUEST".to_owned(), "NOT_SENT".to_owned()));
    }
    for spent in ["0n", "0S", "00000000H"] {
        let end = end(between.call(METHOD1, &[("grpc-timeout", spent)]).await).await;
        assert_eq!(end.code(), Code::DeadlineExceeded as i32, "{spent}");
        assert_eq!(end.reason().0, "DEADLINE");
    }
    between.stop().await;
}

#[tokio::test]
async fn a_timeout_arrives_less_the_time_that_was_spent_and_is_never_longer() {
    let mut between = Between::new().await;
    let hour = Duration::from_secs(3600);
    for (said, is) in
        [("1H", hour), ("60M", hour), ("3600S", hour), ("3600000m", hour), ("20000000u", Duration::from_secs(20))]
    {
        let began = Instant::now();
        let (taken, _) = between.exchange(&[("grpc-timeout", said)], ok()).await;
        let left = taken.left.unwrap();
        // Told in whole milliseconds.
        assert!(left < is && left + began.elapsed() + Duration::from_millis(1) > is, "{said}: {left:?}");
    }
    let (taken, _) = between.exchange(&[], ok()).await;
    assert_eq!(taken.left, None);
    between.stop().await;
}

#[tokio::test]
async fn metadata_over_16_kibibytes_or_128_entries_is_resource_exhausted_and_reaches_nobody() {
    let mut between = Between::new().await;
    let (large, fits) = ("v".repeat(16 * 1024), "v".repeat(15 * 1024));
    let names: Vec<String> = (0..129).map(|number| format!("k{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    for over in [&[("large", large.as_str())][..], &many] {
        let end = end(between.call(METHOD1, over).await).await;
        assert_eq!(end.code(), Code::ResourceExhausted as i32, "{}", end.message());
        assert_eq!(end.reason().0, "TOO_LARGE");
    }

    for within in [&[("fits", fits.as_str())][..], &many[..128]] {
        let (taken, end) = between.exchange(within, ok()).await;
        assert_eq!((end.code(), taken.start.metadata.iter().count()), (0, within.len()));
    }
    between.stop().await;
}

#[tokio::test]
async fn a_half_close_crosses_only_when_the_client_ends_its_stream() {
    let mut between = Between::new().await;
    let mut call = between.client.call(METHOD1, &[]).await.unwrap();
    call.request.send_data(message(), false).unwrap();
    let taken = between.taken().await;
    assert_eq!((taken.data.clone(), taken.half_close), (message(), false));

    call.request.send_data(Default::default(), true).unwrap();

    let event = between.instance.event().await.unwrap();
    assert!(matches!(event, grpcrouter_protocol::Event::Request { half_close: true, .. }), "{event:?}");
    let trailers = ResponsePart { trailers: Some(Trailers::default()), ..ResponsePart::default() };
    between.instance.respond(taken.id, trailers).unwrap();
    assert_eq!(end(call).await.code(), 0);
    between.stop().await;
}
