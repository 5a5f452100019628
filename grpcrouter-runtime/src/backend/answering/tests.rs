//! What an answering does with what its handler and its outlet do, step by step.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::collections::VecDeque;
use std::future::{pending, ready};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use http::HeaderValue;

use super::*;

/// An outlet that writes down what it is given.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Ledger>>);

#[derive(Default)]
struct Ledger {
    parts: Vec<String>,
    capacity: VecDeque<usize>,
    over: Option<Over>,
}

impl Written {
    fn with_capacity(capacity: &[usize]) -> Self {
        let written = Self::default();
        written.0.lock().unwrap().capacity = capacity.iter().copied().collect();
        written
    }

    fn parts(&self) -> Vec<String> {
        self.0.lock().unwrap().parts.clone()
    }

    fn end(&self, over: Over) {
        self.0.lock().unwrap().over = Some(over);
    }
}

impl Outlet for Written {
    fn send(&mut self, part: ResponsePart) -> usize {
        let mut text = String::new();
        if part.headers.is_some() {
            text.push_str("headers ");
        }
        text.push_str(std::str::from_utf8(&part.data).unwrap());
        if let Some(trailers) = part.trailers {
            text.push_str(&format!(" status {}", trailers.status));
        }
        let mut ledger = self.0.lock().unwrap();
        ledger.parts.push(text.trim().to_owned());
        ledger.capacity.pop_front().unwrap_or(1000)
    }

    fn poll_capacity(&mut self, _: &mut Context<'_>) -> Poll<usize> {
        let mut ledger = self.0.lock().unwrap();
        match ledger.capacity.pop_front() {
            Some(capacity) => Poll::Ready(capacity),
            None => Poll::Pending,
        }
    }

    fn poll_over(&mut self, _: &mut Context<'_>) -> Poll<Over> {
        self.0.lock().unwrap().over.map_or(Poll::Pending, Poll::Ready)
    }
}

/// A body that gives what it is told, `None` for a wait.
struct Scripted(VecDeque<Option<Frame<Bytes>>>);

impl http_body::Body for Scripted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.0.pop_front() {
            Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

fn data(text: &'static str) -> Option<Frame<Bytes>> {
    Some(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn trailers(status: &'static str) -> Option<Frame<Bytes>> {
    let mut map = HeaderMap::new();
    map.insert("grpc-status", HeaderValue::from_static(status));
    Some(Frame::trailers(map))
}

const WAIT: Option<Frame<Bytes>> = None;

fn response(frames: impl IntoIterator<Item = Option<Frame<Bytes>>>) -> Handler {
    let mut response = Response::new(Body::new(Scripted(frames.into_iter().collect())));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Box::pin(ready(response))
}

fn poll<O: Outlet>(answering: &mut Answering<O>) -> Poll<Option<u32>> {
    Pin::new(answering).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_small_unary_answer_is_one_part() {
    let written = Written::default();
    let mut answering = Answering::new(response([data("hello"), trailers("0")]), written.clone());

    assert_eq!(poll(&mut answering), Poll::Ready(Some(0)));

    assert_eq!(written.parts(), ["headers hello status 0"]);
}

#[test]
fn headers_go_out_before_a_message_that_is_not_there_yet() {
    let written = Written::default();
    let mut answering = Answering::new(response([WAIT, data("late"), WAIT, trailers("0")]), written.clone());

    assert_eq!(poll(&mut answering), Poll::Pending);
    assert_eq!(written.parts(), ["headers"]);

    assert_eq!(poll(&mut answering), Poll::Pending);
    assert_eq!(written.parts(), ["headers", "late"]);

    assert_eq!(poll(&mut answering), Poll::Ready(Some(0)));
    assert_eq!(written.parts(), ["headers", "late", "status 0"]);
}

#[test]
fn without_capacity_the_body_is_not_polled() {
    let written = Written::with_capacity(&[0, 0]);
    let mut answering = Answering::new(response([data("a"), data("b"), data("c"), trailers("0")]), written.clone());

    assert_eq!(poll(&mut answering), Poll::Pending);
    assert_eq!(written.parts(), ["headers a", "b"], "one chunk was in hand when the capacity ended");

    written.0.lock().unwrap().capacity.push_back(10);
    assert_eq!(poll(&mut answering), Poll::Ready(Some(0)));
    assert_eq!(written.parts(), ["headers a", "b", "c status 0"]);
}

#[test]
fn an_answer_that_is_over_with_its_head_stays_trailers_alone() {
    let written = Written::default();
    let handler: Handler = Box::pin(ready(Status::not_found("no").into_http()));

    assert_eq!(poll(&mut Answering::new(handler, written.clone())), Poll::Ready(Some(5)));

    assert_eq!(written.parts(), ["status 5"]);
}

#[test]
fn an_answer_without_status_is_an_internal_error() {
    let written = Written::default();

    assert_eq!(poll(&mut Answering::new(response([data("x")]), written.clone())), Poll::Ready(Some(13)));

    assert_eq!(written.parts(), ["headers x status 13"]);
}

#[test]
fn an_answer_that_is_not_grpc_is_translated() {
    for (status, expected) in [(200, 13), (404, 12), (503, 14), (418, 2)] {
        let written = Written::default();
        let mut plain = Response::new(Body::empty());
        *plain.status_mut() = StatusCode::from_u16(status).unwrap();

        let code = poll(&mut Answering::new(Box::pin(ready(plain)), written));

        assert_eq!(code, Poll::Ready(Some(expected)), "{status}");
    }
}

/// Tells when it is dropped.
struct OnDrop(Written);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().parts.push("handler dropped".to_owned());
    }
}

fn endless(written: &Written) -> Handler {
    let on_drop = OnDrop(written.clone());
    Box::pin(async move {
        let _on_drop = on_drop;
        pending().await
    })
}

#[test]
fn a_deadline_drops_the_handler_and_then_says_so() {
    let written = Written::default();
    let mut answering = Answering::new(endless(&written), written.clone());
    assert_eq!(poll(&mut answering), Poll::Pending);

    written.end(Over::Deadline);

    assert_eq!(poll(&mut answering), Poll::Ready(Some(4)));
    assert_eq!(written.parts(), ["handler dropped", "status 4"]);
}

#[test]
fn a_cancel_drops_the_handler_and_says_nothing() {
    let written = Written::default();
    let mut answering = Answering::new(endless(&written), written.clone());
    assert_eq!(poll(&mut answering), Poll::Pending);

    written.end(Over::Gone);

    assert_eq!(poll(&mut answering), Poll::Ready(None));
    drop(answering);
    assert_eq!(written.parts(), ["handler dropped"]);
}

#[test]
fn a_panic_of_the_handler_is_an_unknown_status() {
    let written = Written::default();
    let mut answering = Answering::new(Box::pin(async { panic!("the handler's") }), written.clone());

    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut answering)));

    assert!(polled.is_err());
    drop(answering);
    assert_eq!(written.parts(), ["status 2"]);
}

#[test]
fn a_task_that_is_dropped_ends_its_call() {
    let written = Written::default();
    let mut answering = Answering::new(endless(&written), written.clone());
    assert_eq!(poll(&mut answering), Poll::Pending);

    drop(answering);

    assert_eq!(written.parts(), ["handler dropped", "status 14"]);
}
