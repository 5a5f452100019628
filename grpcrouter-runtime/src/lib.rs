//! Reach gRPC services behind firewalls: they dial out, you call in.
//!
//! A [`Gateway`] accepts ordinary gRPC clients and carries their calls to the instances of a service; a [`Backend`]
//! is such an instance: it holds any tonic service and dials out to the gateway.

mod backend;
mod backoff;
mod clock;
pub mod codegen;
mod error;
mod gateway;
mod h2_body;
mod metadata;
mod run;
mod status;
mod tunnel;

pub use backend::{Backend, BackendBuilder, BackendStats};
pub use error::{ConfigError, ServeError};
pub use gateway::{Gateway, GatewayBuilder, GatewayStats, RegisterService};
pub use run::run;
