//! Who may call: tokens, API keys, rules and limits, at a gateway that clients reach over sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "callers/credentials.rs"]
mod credentials;
#[path = "callers/forge.rs"]
mod forge;
#[path = "callers/hostile.rs"]
mod hostile;
#[path = "callers/layer.rs"]
mod layer;
#[path = "callers/limits.rs"]
mod limits;
#[path = "callers/quiet.rs"]
mod quiet;
#[path = "callers/rules.rs"]
mod rules;

use std::{path::PathBuf, time::Duration};

use grpcrouter_runtime::{Callers, JwtIssuer};
use grpcrouter_tests::{
    raw::RawEnd,
    world::{TestBackend, TestGateway},
};
use myservice::proto::Method1Request;
use tempfile::TempDir;
use tonic::Status;
use tonic_types::StatusExt as _;

const METHOD1: &str = "/myservice.MyService/Method1";
const ISSUER: &str = "https://login.test";
const AUDIENCE: &str = "shop";

/// Files of keys that go with the test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("jwks.json", &forge::jwks().to_string());
        files.write("keys.toml", "");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file as a whole, as who cares for it does.
    fn write(&self, name: &str, content: &str) {
        let new = self.path("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// Takes the tokens of the issuer and the API keys.
    fn callers(&self) -> Callers {
        Callers::new()
            .jwt(JwtIssuer::new(ISSUER).audience(AUDIENCE).jwks_file(self.path("jwks.json")))
            .api_keys_file(self.path("keys.toml"))
            // Changes are seen by the next call.
            .reload_every(Duration::ZERO)
    }
}

/// A gateway with these callers, and one backend.
struct Place {
    gateway: TestGateway,
    backend: TestBackend,
}

impl Place {
    async fn new(callers: Callers) -> Self {
        let gateway = TestGateway::start_with(|builder| builder.callers(callers)).await;
        let backend = TestBackend::start(&gateway, "a").await;
        Self { gateway, backend }
    }

    /// Calls `Method1` with these headers.
    async fn call(&self, headers: &[(&str, &str)]) -> RawEnd {
        self.call_of(METHOD1, headers).await
    }

    async fn call_of(&self, path: &str, headers: &[(&str, &str)]) -> RawEnd {
        let message = Method1Request { text: "x".to_owned() };
        self.gateway.raw().await.unary(path, headers, &message).await.unwrap()
    }

    async fn with_token(&self, token: &str) -> RawEnd {
        self.call(&[("authorization", &format!("Bearer {token}"))]).await
    }

    /// How many calls the service has seen.
    fn seen(&self) -> usize {
        self.backend.probe.times("method1 begins")
    }

    async fn stop(self) {
        self.gateway.stop(vec![self.backend]).await;
    }
}

/// The entry of a response's headers.
fn header<'a>(end: &'a RawEnd, name: &str) -> &'a str {
    end.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

fn status(end: &RawEnd) -> Status {
    Status::from_header_map(&end.trailers).unwrap()
}

/// The code, the reason, and the text.
fn refusal(end: &RawEnd) -> (i32, String, String) {
    (end.code(), end.reason().0, status(end).message().to_owned())
}

const UNAUTHENTICATED: i32 = 16;
const PERMISSION_DENIED: i32 = 7;
const UNIMPLEMENTED: i32 = 12;
const RESOURCE_EXHAUSTED: i32 = 8;

/// What `www-authenticate` in the details asks for.
fn challenge(end: &RawEnd) -> String {
    let info = status(end).get_details_error_info().unwrap();
    info.metadata.get("www-authenticate").cloned().unwrap_or_default()
}
