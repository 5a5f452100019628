//! The example: a service with one method of each of gRPC's four kinds, behind a gateway that its backends dial.
//! The binaries of this package are a gateway, a backend, a client, and a demo of them all.

mod service;
mod shutdown;

pub use service::MyServiceImpl;
pub use shutdown::Shutdown;

/// What is generated from service.proto: the messages, tonic's client and server, the router and its gateway.
#[allow(missing_docs, missing_debug_implementations, clippy::all, reason = "the generators' own style")]
pub mod proto {
    include!("generated/myservice.rs");
}
