//! TLS at the gateway: who is let in and with what, certificates that change while calls run, what those are told who
//! speak something else, and what a connection may cost. One file for each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "tls/answers.rs"]
mod answers;
#[path = "tls/floods.rs"]
mod floods;
#[path = "tls/handshake.rs"]
mod handshake;
#[path = "tls/limits.rs"]
mod limits;
#[path = "tls/page.rs"]
mod page;
#[path = "tls/reload.rs"]
mod reload;

use grpcrouter_runtime::{GatewayBuilder, GatewayTls};
use grpcrouter_tests::{
    certs::Certs,
    world::{TestBackend, TestGateway},
};
use myservice::proto::Method1Request;

const METHOD1: &str = "/myservice.MyService/Method1";

fn text(text: &str) -> Method1Request {
    Method1Request { text: text.to_owned() }
}

/// TLS with what this authority signs, for the gateway and for clients that show a certificate.
fn tls(certs: &Certs) -> GatewayTls {
    let server = certs.server();
    GatewayTls::files(server.cert, server.key).client_ca(certs.ca())
}

/// A gateway that speaks TLS.
async fn gateway(certs: &Certs, settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> TestGateway {
    let tls = tls(certs);
    TestGateway::start_with(|builder| settings(builder.tls(tls))).await
}

/// A backend that dials out to it with TLS.
async fn backend(gateway: &TestGateway, certs: &Certs, id: &str) -> TestBackend {
    let uri = format!("https://localhost:{}", gateway.address.port());
    TestBackend::start_with(gateway, id, |builder| builder.gateway(uri).ca_file(certs.ca())).await
}
