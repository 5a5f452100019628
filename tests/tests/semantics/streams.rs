//! How streams begin and end, and that what is compressed stays as it is.

use bytes::Bytes;
use grpcrouter_protocol::{Event, Headers, ResponsePart, Text, Trailers};

use super::{Between, METHOD3, STREAM_METHOD, end, ok};

#[tokio::test]
async fn every_code_of_grpc_passes_and_any_other_becomes_unknown() {
    let mut between = Between::new().await;
    for code in (0..=17).chain([99, 1 << 31, u32::MAX]) {
        for headers in [None, Some(Headers::default())] {
            let trailers = Trailers { status: code, ..Trailers::default() };
            let part = ResponsePart { headers, data: Bytes::new(), trailers: Some(trailers) };

            let (_, end) = between.exchange(&[], part).await;

            let expected = i32::try_from(code).ok().filter(|code| *code <= 16).unwrap_or(2);
            assert_eq!(end.code(), expected, "{code}");
        }
    }
    between.stop().await;
}

#[tokio::test]
async fn a_message_of_a_status_is_percent_encoded_whatever_is_in_it() {
    let mut between = Between::new().await;
    for (said, wire) in [
        ("plain text ~", "plain text ~"),
        ("100%", "100%25"),
        ("a\r\nb\0\u{7f}", "a%0D%0Ab%00%7F"),
        ("ü 日本 \u{1f600}", "%C3%BC %E6%97%A5%E6%9C%AC %F0%9F%98%80"),
    ] {
        let trailers = Trailers { status: 3, message: Text::from(said.to_owned()), ..Trailers::default() };

        let (_, end) = between.exchange(&[], ResponsePart { trailers: Some(trailers), ..ok() }).await;

        assert_eq!((end.code(), end.message()), (3, wire));
        assert_eq!(tonic::Status::from_header_map(&end.trailers).unwrap().message(), said);
    }
    between.stop().await;
}

#[tokio::test]
async fn compressed_messages_their_flag_and_the_encodings_cross_as_they_are() {
    const COMPRESSED: &[u8] = &[1, 0, 0, 0, 3, 0x1f, 0x8b, 0xff];
    let mut between = Between::new().await;
    let headers = [("grpc-encoding", "zstd"), ("grpc-accept-encoding", "zstd, gzip ,identity")];
    let mut call = between.client.call(STREAM_METHOD, &headers).await.unwrap();
    call.request.send_data(Bytes::from_static(COMPRESSED), true).unwrap();
    let taken = between.taken().await;
    assert_eq!((taken.start.encoding.as_str(), taken.start.accept_encoding.as_str()), ("zstd", "zstd, gzip ,identity"));
    assert_eq!(taken.data, COMPRESSED);

    let headers = Headers {
        encoding: Text::from_static("gzip"),
        accept_encoding: Text::from_static("identity"),
        ..Headers::default()
    };
    let data = Bytes::from_static(COMPRESSED);
    between.instance.respond(taken.id, ResponsePart { headers: Some(headers), data, ..ok() }).unwrap();

    let end = end(call).await;
    assert_eq!((end.code(), &end.body[..]), (0, COMPRESSED));
    assert_eq!(end.headers["grpc-encoding"], "gzip");
    assert_eq!(end.headers["grpc-accept-encoding"], "identity");
    between.stop().await;
}

#[tokio::test]
async fn the_status_comes_after_all_messages_and_once() {
    let mut between = Between::new().await;
    let call = between.call(STREAM_METHOD, &[]).await;
    let taken = between.taken().await;
    between
        .instance
        .respond(taken.id, ResponsePart { headers: Some(Headers::default()), ..Default::default() })
        .unwrap();
    for length in [0, 1, 1000, 20_000] {
        let data = super::long(length);
        between.instance.respond(taken.id, ResponsePart { data, ..Default::default() }).unwrap();
    }
    let trailers = Some(Trailers { status: 10, ..Trailers::default() });
    between.instance.respond(taken.id, ResponsePart { trailers, ..Default::default() }).unwrap();

    let end = end(call).await;

    assert_eq!((end.code(), end.body.len()), (10, 4 * 5 + 21_001));
    between.stop().await;
}

#[tokio::test]
async fn a_reset_by_the_client_is_a_cancel_at_the_instance_and_no_half_close() {
    let mut between = Between::new().await;
    for path in [METHOD3, STREAM_METHOD] {
        let mut call = between.client.call(path, &[]).await.unwrap();
        call.request.send_data(super::message(), false).unwrap();
        let taken = between.taken().await;
        assert!(!taken.half_close);

        call.request.send_reset(h2::Reason::CANCEL);

        match between.instance.event().await.unwrap() {
            Event::Ended { call, .. } => assert_eq!(call, taken.id),
            other => panic!("{other:?}"),
        }
    }
    between.stop().await;
}
