//! Ways out: a backend reaches its gateway over TLS and through proxies, and where it does not, it says at which step, why,
//! and what to do. On real sockets, with real certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

#[path = "ways_out/check.rs"]
mod check;
#[path = "ways_out/doors.rs"]
mod doors;
#[path = "ways_out/problems.rs"]
mod problems;
#[path = "ways_out/proxy.rs"]
mod proxy;
#[path = "ways_out/through.rs"]
mod through;
#[path = "ways_out/tokens.rs"]
mod tokens;

use grpcrouter_runtime::{Backend, BackendBuilder, DialStep};
use grpcrouter_tests::{
    probe::Probe,
    world::{PATIENCE, TestBackend, TestGateway},
};
use myservice::proto::{Method1Request, my_service_server::MyServiceServer};

const SERVICE: &str = "myservice.MyService";

/// A backend that is about to dial `gateway`.
fn backend(gateway: &str) -> BackendBuilder {
    Backend::builder().gateway(gateway).dial_timeout(PATIENCE)
}

/// The step that fails, and what is said of it.
async fn problem(backend: BackendBuilder) -> (DialStep, String) {
    let found = backend.check([SERVICE]).await.expect("settings that can be used");
    let problem = found[0].problem().unwrap_or_else(|| panic!("a problem, not {:?}", found[0].steps));
    (problem.step, problem.found.clone())
}

/// Serves what was set up, as `a`.
fn serve(backend: BackendBuilder) -> TestBackend {
    let probe = Probe::new("a");
    let backend = backend.instance_id("a").add_service(MyServiceServer::new(probe.clone()));
    TestBackend::serve(backend.drain_timeout(PATIENCE).build().expect("a backend"), probe)
}

/// A call through `gateway` is answered by a backend that came by its way.
async fn answers(gateway: &TestGateway) {
    gateway.instances(1).await;
    let mut client = gateway.client().await;
    // More than a record of TLS and a frame of HTTP/2 hold.
    let text = "x".repeat(300_000);
    let answer = client.method1(Method1Request { text: text.clone() }).await.expect("an answer").into_inner();
    assert_eq!(answer.instance_id, "a");
    assert!(answer.text.ends_with(&text));
}
