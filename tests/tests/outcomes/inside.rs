//! The same for calls from inside of the gateway's process.

use std::convert::Infallible;

use bytes::Bytes;
use grpcrouter_runtime::{IdempotencyLevel, RetryBudget, codegen::Router as _};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use myservice::proto::my_service_router::MyServiceRouter;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;
use tower_service::Service as _;

use crate::{KINDS, Kind, PATIENCE, Place, UNARY, UPLOAD, long, message};

/// The sending half of a request.
type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

struct Inside {
    sender: Option<Sender>,
    response: JoinHandle<Response<Body>>,
}

impl Inside {
    fn call(place: &Place, kind: Kind, data: Bytes) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(Ok(Frame::data(data))).unwrap();
        let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(receiver)));
        let request = Request::post(format!("http://gateway{}", kind.path)).header("content-type", "application/grpc");
        let mut channel = place.gateway.gateway.channel(MyServiceRouter::SPEC);
        let request = request.body(body).unwrap();
        let response = tokio::spawn(async move { channel.call(request).await.unwrap() });
        Self { sender: kind.uploads.then_some(sender), response }
    }

    async fn end(self) -> Status {
        drop(self.sender);
        let (head, body) = timeout(PATIENCE, self.response).await.unwrap().unwrap().into_parts();
        let collected = timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
        let trailers = collected.trailers().cloned().unwrap_or(head.headers);
        Status::from_header_map(&trailers).unwrap()
    }
}

#[track_caller]
fn is(status: &Status, reason: &str, outcome: &str) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!((info.reason.as_str(), info.metadata["outcome"].as_str()), (reason, outcome), "{status:?}");
}

#[tokio::test]
async fn a_call_from_inside_goes_once_more_to_another_instance_as_it_was() {
    let place = Place::of(IdempotencyLevel::Idempotent).await;
    for kind in KINDS {
        println!("{kind:?}");
        let mut first = place.instance("first").await;
        let call = Inside::call(&place, kind, message("one"));
        let mut had = first.taken().await;
        first.read(&mut had, message("one").len()).await;
        let mut second = place.instance("second").await;

        first.die();

        let mut has = second.taken().await;
        assert_eq!(has.attempts().as_deref(), Some("1"));
        if let Some(sender) = &call.sender {
            sender.send(Ok(Frame::data(message("two")))).unwrap();
            second.read(&mut has, 2 * message("one").len()).await;
            assert_eq!(has.data, [message("one"), message("two")].concat());
        } else {
            second.read_to_end(&mut has).await;
            assert_eq!(has.data, message("one"));
        }
        second.answer(&has);
        assert_eq!(call.end().await.code(), Code::Ok);
        place.had_none(&mut second, "second").await;
        second.die();
        place.gateway.instances(0).await;
    }
    place.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_call_from_inside_is_never_executed_twice_otherwise() {
    let all = |builder: grpcrouter_runtime::GatewayBuilder| builder;
    let none = |builder: grpcrouter_runtime::GatewayBuilder| builder.retry_budget(RetryBudget::none());
    for case in ["not idempotent", "no budget", "answered", "too large", "twice"] {
        println!("{case}");
        let level = if case == "not idempotent" { IdempotencyLevel::Unknown } else { IdempotencyLevel::Idempotent };
        let place = if case == "no budget" { Place::with(level, none).await } else { Place::with(level, all).await };
        let mut first = place.instance("first").await;
        let data = if case == "too large" { long(64 * 1024 + 1) } else { message("one") };
        let call = Inside::call(&place, if case == "too large" { UPLOAD } else { UNARY }, data.clone());
        let mut had = first.taken().await;
        first.read(&mut had, data.len()).await;
        if case == "answered" {
            first.respond(&had, true, false);
        }
        let call = match case {
            // Its headers are there.
            "answered" => {
                let Inside { sender, response } = call;
                let response = timeout(PATIENCE, response).await.unwrap().unwrap();
                Inside { sender, response: tokio::spawn(async { response }) }
            }
            _ => call,
        };
        let mut second = place.instance("second").await;

        first.die();
        if case == "twice" {
            second.taken().await;
            second.die();
            second = place.instance_beside("third").await;
        }

        is(&call.end().await, "INSTANCE_LOST", "MAYBE_EXECUTED");
        place.had_none(&mut second, if case == "twice" { "third" } else { "second" }).await;
        place.stop(vec![second]).await;
    }
}
