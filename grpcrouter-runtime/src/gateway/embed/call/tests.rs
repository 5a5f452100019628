//! Of one call that was made in this process.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::task::Wake;

use grpcrouter_protocol::{Config, Epoch, Side, Text, TokenHash, WindowPool};
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use http_body_util::{Full, StreamBody};

use super::*;
use crate::{
    gateway::{
        pass::Origin,
        registry::{Instance, hello},
        tests::gateway,
    },
    metadata::Vouched,
    metrics::TunnelMeter,
    tunnel::TunnelBody,
};

fn upload(sent: usize, last: &'static str, ended: bool) -> Upload {
    let messages = Messages::new(false, usize::MAX);
    Upload { body: Body::empty(), messages, ended, sent, last: Bytes::from_static(last.as_bytes()) }
}

fn came_back(upload: &Upload, data: &'static str, half_close: bool) -> (Bytes, bool) {
    let mut open = OpenCall { data: Bytes::from_static(data.as_bytes()), half_close, ..OpenCall::default() };
    upload.restore(&mut open);
    (open.data, open.half_close)
}

#[test]
fn a_call_that_comes_back_whole_is_left_as_it_is() {
    assert_eq!(came_back(&upload(6, "def", true), "abcdef", true), ("abcdef".into(), true));
}

#[test]
fn what_was_sent_into_a_call_that_had_ended_is_put_back() {
    assert_eq!(came_back(&upload(6, "def", false), "abc", false), ("abcdef".into(), false));
    assert_eq!(came_back(&upload(6, "def", true), "abc", false), ("abcdef".into(), true));
}

#[test]
fn a_half_close_alone_is_put_back() {
    assert_eq!(came_back(&upload(3, "abc", true), "abc", false), ("abc".into(), true));
}

#[tokio::test]
async fn a_unary_request_goes_with_the_start_and_ends_with_it() {
    let mut upload = Upload { body: Body::new(Full::from("abc")), ..upload(0, "", false) };
    let mut first = Vec::new();

    upload.read_ready(&mut first, false).await.unwrap();

    assert_eq!((concat(first), upload.ended, upload.sent), ("abc".into(), true, 3));
}

#[tokio::test]
async fn a_request_that_is_not_there_yet_is_not_waited_for() {
    let mut upload =
        Upload { body: Body::new(StreamBody::new(tokio_stream::pending::<NoFrame>())), ..upload(0, "", false) };
    let mut first = Vec::new();

    upload.read_ready(&mut first, false).await.unwrap();

    assert_eq!((concat(first), upload.ended), (Bytes::new(), false));
}

#[tokio::test]
async fn a_broken_request_is_an_error_and_no_end() {
    let body = StreamBody::new(tokio_stream::once::<NoFrame>(Err(Status::cancelled("reset"))));
    let mut upload = Upload { body: Body::new(body), ..upload(0, "", false) };

    assert!(upload.read_ready(&mut Vec::new(), false).await.is_err());
    assert!(!upload.ended);
}

#[test]
fn data_waits_until_the_tunnel_is_known_that_it_is_consumed_from() {
    let call = EmbeddedCall::default();
    let mut cx = Context::from_waker(Waker::noop());
    let data = Bytes::from_static(b"abc");
    call.deliver(CallId::from_raw(1), CallEvent::Response { headers: None, data, trailers: None });

    assert!(call.poll_part(&mut cx).is_pending());
    call.carried_by(Some(&TunnelHandle::gateway(
        Config::default(),
        &WindowPool::new(0),
        TunnelMeter::new(Side::Gateway),
        TokenHash([0; 32]),
    )));
    assert!(matches!(call.poll_part(&mut cx), Poll::Ready(Part::Data(data)) if data == "abc"));
}

#[test]
fn there_is_one_end_only() {
    let call = EmbeddedCall::default();
    let mut cx = Context::from_waker(Waker::noop());
    call.answer(&Answer::deadline(Outcome::MaybeExecuted));
    call.answer(&Answer::cancelled(Outcome::NotSent));

    assert!(matches!(call.poll_part(&mut cx), Poll::Ready(Part::Trailers(trailers)) if trailers.status == 4));
    assert!(call.poll_part(&mut cx).is_pending());
}

type NoFrame = Result<Frame<Bytes>, Status>;

/// Wakes up as the writer of a tunnel: an instance that answers while the call is still being handed to it.
struct Early {
    call: Arc<EmbeddedCall>,
    /// Whether the reader had to wait for what came early.
    waited: Mutex<Option<bool>>,
}

impl Wake for Early {
    fn wake(self: Arc<Self>) {
        let data = Bytes::from_static(b"early");
        self.call.deliver(self.call.id(), CallEvent::Response { headers: None, data, trailers: None });
        let part = self.call.poll_part(&mut Context::from_waker(Waker::noop()));
        *self.waited.lock().unwrap() = Some(part.is_pending());
    }
}

#[tokio::test]
async fn data_of_the_next_instance_is_never_consumed_from_the_tunnel_of_the_last() {
    let gateway = gateway();
    let core = gateway.core();
    let [a, b] = ["a", "b"].map(|id| {
        let meter = TunnelMeter::new(Side::Gateway);
        let tunnel = TunnelHandle::gateway(Config::default(), &WindowPool::new(0), meter, TokenHash([0; 32]));
        let instance = Arc::new(Instance::new(hello(id, "shop.Orders"), tunnel, String::new()));
        core.registry.insert(&instance);
        instance
    });
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
    let inside = Origin::Inside { pinned: None, vouched: Vouched::default() };
    let (way, open) =
        forward::prepare(core, &Method::POST, "/shop.Orders/Buy", Text::default(), &headers, inside).unwrap();
    let call = Arc::new(EmbeddedCall::default());
    let body = Body::new(Full::from(&b"\0\0\0\0\x01x"[..]));
    let mut driven = Box::pin(drive(core.clone(), way, open.clone(), body, call.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(driven.as_mut().poll(&mut cx).is_pending());
    assert_eq!((a.tunnel.open_calls(), b.tunnel.open_calls()), (1, 0));
    let early = Arc::new(Early { call: call.clone(), waited: Mutex::default() });
    let mut writer = TunnelBody::new(b.tunnel.clone(), Epoch::FIRST, Bytes::new(), Side::Gateway);
    let waker = Waker::from(early.clone());
    while Pin::new(&mut writer).poll_frame(&mut Context::from_waker(&waker)).is_ready() {}

    call.deliver(call.id(), CallEvent::Refused(Box::new(open)));
    assert!(driven.as_mut().poll(&mut cx).is_pending());

    assert_eq!(b.tunnel.open_calls(), 1);
    assert_eq!(*early.waited.lock().unwrap(), Some(true));
    assert!(matches!(call.poll_part(&mut cx), Poll::Ready(Part::Data(data)) if data == "early"));
}
