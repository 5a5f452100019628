//! What a builder refuses, and the words that it does so with.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use super::*;

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::empty())))
    }
}

fn error(builder: BackendBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn a_backend_without_services_says_what_to_add() {
    assert_eq!(
        error(Backend::builder().gateway("http://gateway:8080")),
        "the backend has nothing to serve: add a service with .add_service(MyServiceServer::new(..))"
    );
}

#[test]
fn a_backend_without_a_way_in_says_what_to_give() {
    assert!(error(Backend::builder().add_service(Echo)).starts_with("the backend has no way in: give it a gateway"));
}

#[test]
fn a_service_can_be_added_once() {
    let builder = Backend::builder().listen("127.0.0.1:0").add_service(Echo).add_service(Echo);

    assert!(error(builder).contains("test.Echo was added twice"));
}

#[test]
fn names_and_numbers_are_checked_by_name() {
    let base = || Backend::builder().listen("127.0.0.1:0").add_service(Echo);

    assert!(error(base().instance_id("")).starts_with("instance_id(\"\") cannot be used"));
    assert!(error(base().instance_id("x".repeat(257))).contains("instance_id"));
    assert!(error(base().routing_key("a\nb")).contains("routing_key(\"a\\nb\") cannot be used: it has a control"));
    assert!(error(base().label("", "x")).contains("label"));
    assert!(error(base().weight(0)).contains("weight(0) cannot be used: the least is 1"));
    assert!(error(base().max_calls(0)).contains("max_calls(0)"));
    assert!(error(base().max_calls(u32::MAX)).contains("from 1 to 1048576"));
}

#[test]
fn the_default_instance_id_is_new_with_each_backend() {
    let build = || Backend::builder().listen("127.0.0.1:0").add_service(Echo).build().unwrap();
    let (one, other) = (build(), build());

    assert_ne!(one.instance_id(), other.instance_id());
    assert_eq!(one.stats(), crate::backend::BackendStats::default());
}
