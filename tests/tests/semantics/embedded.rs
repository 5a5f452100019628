//! A call from inside the gateway's process is held to the same rules as one of a client.

use std::convert::Infallible;

use bytes::Bytes;
use grpcrouter_protocol::{Event, Headers, ResponsePart};
use grpcrouter_runtime::codegen::Router as _;
use grpcrouter_tests::world::{PATIENCE, TestGateway};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use myservice::proto::my_service_router::MyServiceRouter;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;
use tower_service::Service as _;

use super::{Between, METHOD1, METHOD2, METHOD3, long, message, ok};

/// The sending half of a request.
type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

/// Begins a call through the gateway's own channel.
fn call(gateway: &TestGateway, path: &str) -> (Sender, tokio::task::JoinHandle<Response<Body>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(receiver)));
    let request = Request::post(format!("http://gateway{path}")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(body).unwrap();
    let mut channel = gateway.gateway.channel(MyServiceRouter::SPEC);
    (sender, tokio::spawn(async move { channel.call(request).await.unwrap() }))
}

/// The body and the status of a response.
async fn end(response: tokio::task::JoinHandle<Response<Body>>) -> (Bytes, Status) {
    let (head, body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    let collected = timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
    let trailers = collected.trailers().cloned().unwrap_or(head.headers);
    (collected.to_bytes(), Status::from_header_map(&trailers).unwrap())
}

#[tokio::test]
async fn an_answer_that_is_not_the_services_own_has_the_content_subtype_of_the_request() {
    let mut between = Between::new().await;
    for (path, refused) in [("/no.Such/Method", true), (METHOD1, false)] {
        let body = Body::new(http_body_util::Full::new(message()));
        let request = Request::post(format!("http://gateway{path}")).header("content-type", "application/grpc+x-own");
        let mut channel = between.gateway.gateway.channel(MyServiceRouter::SPEC);
        let response = tokio::spawn(channel.call(request.body(body).unwrap()));
        if !refused {
            let taken = between.taken().await;
            let trailers = Some(grpcrouter_protocol::Trailers { status: 12, ..Default::default() });
            between.instance.respond(taken.id, ResponsePart { trailers, ..ResponsePart::default() }).unwrap();
        }

        let response = timeout(PATIENCE, response).await.unwrap().unwrap().unwrap();

        let headers = response.headers();
        assert_eq!(
            (&headers["grpc-status"], &headers["content-type"]),
            (&"12".parse().unwrap(), &"application/grpc+x-own".parse().unwrap()),
            "{path}"
        );
    }
    between.stop().await;
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "grpcrouter");
    info.reason
}

#[tokio::test]
async fn a_wrong_number_of_messages_is_unimplemented_and_cancels_what_the_instance_has() {
    let mut between = Between::new().await;
    for path in [METHOD1, METHOD2] {
        let (none, response) = call(&between.gateway, path);
        drop(none);
        let (_, status) = end(response).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "WRONG_NUMBER_OF_MESSAGES"));

        let (two, response) = call(&between.gateway, path);
        two.send(Ok(Frame::data([message(), message()].concat().into()))).unwrap();
        let (_, status) = end(response).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "WRONG_NUMBER_OF_MESSAGES"));
    }

    let (late, response) = call(&between.gateway, METHOD1);
    late.send(Ok(Frame::data(message()))).unwrap();
    let taken = between.taken().await;
    late.send(Ok(Frame::data(message()))).unwrap();
    let (_, status) = end(response).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "WRONG_NUMBER_OF_MESSAGES"));
    assert_eq!(status.get_details_error_info().unwrap().metadata["outcome"], "MAYBE_EXECUTED");
    is_ended(&mut between, taken.id).await;
    between.stop().await;
}

async fn is_ended(between: &mut Between, id: grpcrouter_protocol::CallId) {
    loop {
        match timeout(PATIENCE, between.instance.event()).await.unwrap().unwrap() {
            Event::Ended { call, .. } => return assert_eq!(call, id),
            Event::Request { half_close: false, .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_resource_exhausted_in_both_directions() {
    let mut between = Between::with(|builder| builder.max_message_size(1_000)).await;
    let (upload, response) = call(&between.gateway, METHOD3);
    upload.send(Ok(Frame::data(long(1_001).slice(..5)))).unwrap();
    let (_, status) = end(response).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_LARGE"));

    let (request, response) = call(&between.gateway, METHOD2);
    request.send(Ok(Frame::data(message()))).unwrap();
    drop(request);
    // The refused upload may have reached the instance with its head alone.
    let taken = between.taken().await;
    let good = long(1_000);
    let data = [&good[..], &long(1_001)].concat().into();
    let part = ResponsePart { headers: Some(Headers::default()), data, trailers: None };
    between.instance.respond(taken.id, part).unwrap();
    let (body, status) = end(response).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_LARGE"));
    assert!(body == good);
    is_ended(&mut between, taken.id).await;
    between.stop().await;
}

#[tokio::test]
async fn a_request_body_that_breaks_is_a_cancel_and_never_a_half_close() {
    let mut between = Between::new().await;
    let (sender, receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, Status>>();
    let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(receiver)));
    let request = Request::post(format!("http://gateway{METHOD3}")).header("content-type", "application/grpc");
    let mut channel = between.gateway.gateway.channel(MyServiceRouter::SPEC);
    let response = channel.call(request.body(body).unwrap());
    let response = tokio::spawn(async move { response.await.unwrap() });
    sender.send(Ok(Frame::data(message()))).unwrap();
    let taken = between.taken().await;
    assert!(!taken.half_close);

    sender.send(Err(Status::cancelled("broken"))).unwrap();

    let (_, status) = end(response).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Cancelled, "CALL_CANCELLED"));
    is_ended(&mut between, taken.id).await;
    between.stop().await;
}

#[tokio::test]
async fn a_good_call_ends_well() {
    let mut between = Between::new().await;
    let (request, response) = call(&between.gateway, METHOD1);
    request.send(Ok(Frame::data(message()))).unwrap();
    drop(request);
    let taken = between.taken().await;
    between.instance.respond(taken.id, ok()).unwrap();
    assert_eq!(end(response).await.1.code(), Code::Ok);
    between.stop().await;
}
