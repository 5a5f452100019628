//! A message over the gateway's limit ends its call as soon as its prefix is here, in either direction.

use bytes::Bytes;
use grpcrouter_protocol::{CancelReason, EndReason, Event, Headers, ResponsePart};
use grpcrouter_tests::raw::RawCall;
use tonic::Code;

use super::{Between, METHOD1, METHOD2, METHOD3, STREAM_METHOD, end, long, ok};

const LIMIT: u32 = 1_000;

async fn limited() -> Between {
    Between::with(|builder| builder.max_message_size(LIMIT as usize)).await
}

async fn is_too_large(call: RawCall, what: &str, outcome: &str) -> Bytes {
    let end = end(call).await;
    assert_eq!(end.code(), Code::ResourceExhausted as i32, "{}", end.message());
    assert_eq!(end.reason(), ("TOO_LARGE".to_owned(), outcome.to_owned()));
    assert_eq!(end.message(), format!("a message of the {what} is too large: 1001, the limit is 1000"));
    end.body
}

#[tokio::test]
async fn a_request_of_one_message_over_the_limit_never_reaches_the_instance() {
    let mut between = limited().await;
    for path in [METHOD1, METHOD2, METHOD3, STREAM_METHOD] {
        let mut call = between.client.call(path, &[]).await.unwrap();
        // The prefix is enough.
        call.request.send_data(long(LIMIT + 1).slice(..5), false).unwrap();
        is_too_large(call, "request", "NOT_SENT").await;
    }

    let mut call = between.client.call(METHOD1, &[]).await.unwrap();
    call.request.send_data(long(LIMIT), true).unwrap();
    let taken = between.taken().await;
    assert_eq!(taken.data, long(LIMIT));
    between.instance.respond(taken.id, ok()).unwrap();
    assert_eq!(end(call).await.code(), 0);
    between.stop().await;
}

#[tokio::test]
async fn a_second_message_over_the_limit_in_one_piece_with_the_first_never_reaches_the_instance() {
    let mut between = limited().await;
    for path in [METHOD3, STREAM_METHOD] {
        let mut call = between.client.call(path, &[]).await.unwrap();
        call.request.send_data([long(LIMIT), long(LIMIT + 1)].concat().into(), true).unwrap();
        is_too_large(call, "request", "NOT_SENT").await;
    }

    // The next call that the instance sees is another one.
    let mut call = between.client.call(METHOD3, &[]).await.unwrap();
    call.request.send_data([long(LIMIT), long(LIMIT)].concat().into(), true).unwrap();
    let taken = between.taken().await;
    assert_eq!((taken.data.len(), taken.half_close), (2 * 1005, true));
    between.instance.respond(taken.id, ok()).unwrap();
    assert_eq!(end(call).await.code(), 0);
    between.stop().await;
}

#[tokio::test]
async fn an_upload_that_comes_to_a_message_over_the_limit_is_cancelled_at_the_instance() {
    let mut between = limited().await;
    let mut call = between.client.call(METHOD3, &[]).await.unwrap();
    call.request.send_data(long(LIMIT), false).unwrap();
    let taken = between.taken().await;

    call.request.send_data(long(LIMIT + 1), true).unwrap();

    is_too_large(call, "request", "MAYBE_EXECUTED").await;
    let event = between.instance.event().await.unwrap();
    let Event::Ended { call, reason, .. } = event else { panic!("{event:?}") };
    assert_eq!((call, reason), (taken.id, EndReason::Cancelled(CancelReason::ClientGone)));
    between.stop().await;
}

#[tokio::test]
async fn a_response_that_comes_to_a_message_over_the_limit_ends_after_those_before_it() {
    let mut between = limited().await;
    for before in [0, 1, 3] {
        let call = between.call(METHOD2, &[]).await;
        let taken = between.taken().await;
        let good = long(LIMIT).repeat(before);
        let data = [&good[..], &long(LIMIT + 1)].concat().into();

        between
            .instance
            .respond(taken.id, ResponsePart { headers: Some(Headers::default()), data, trailers: None })
            .unwrap();

        assert!(is_too_large(call, "response", "MAYBE_EXECUTED").await == good, "{before}");
        let event = between.instance.event().await.unwrap();
        assert!(matches!(event, Event::Ended { call, .. } if call == taken.id), "{event:?}");
    }
    between.stop().await;
}

#[tokio::test]
async fn without_a_limit_the_gateway_takes_a_prefix_of_any_length() {
    let mut between = Between::new().await;
    let mut call = between.client.call(METHOD1, &[]).await.unwrap();
    call.request.send_data(Bytes::from_static(&[0, 255, 255, 255, 255, 1]), false).unwrap();
    let taken = between.taken().await;
    assert_eq!(taken.data.len(), 6);
    between.instance.respond(taken.id, ok()).unwrap();
    assert_eq!(end(call).await.code(), 0);
    between.stop().await;
}
