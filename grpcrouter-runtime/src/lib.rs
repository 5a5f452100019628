//! Reach gRPC services behind firewalls: they dial out, you call in.
//!
//! A [`Gateway`] accepts ordinary gRPC clients and carries their calls to the instances of a service; a [`Backend`]
//! is such an instance: it holds any tonic service and dials out to the gateway.
//!
//! # Features
//! Each end can be had without the other; all three are on by default.
//!
//! | feature | brings |
//! |---|---|
//! | `gateway` | [`Gateway`], and `codegen`, on which generated routers stand |
//! | `backend` | [`Backend`] |
//! | `agent` | [`Agent`] and [`Upstream`]: a backend in front of an unmodified gRPC server; implies `backend` |
//! | `callers` | `Callers`: JSON Web Tokens, API keys, rules and rate limits for the clients of a gateway; not on by default |
//! | `run` | [`run`](fn@run), the whole main function of a generated gateway; implies `gateway` |
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]
// What all parts share is whole in each build: with some of them alone a part of it has no use.
#![cfg_attr(
    not(all(feature = "gateway", feature = "backend", feature = "callers", feature = "agent")),
    allow(dead_code, unused_imports)
)]
// The page above names both ends.
#![cfg_attr(not(all(feature = "backend", feature = "run")), allow(rustdoc::broken_intra_doc_links))]

mod accept_log;
#[cfg(feature = "backend")]
mod backend;
mod backoff;
mod clock;
#[cfg(feature = "gateway")]
pub mod codegen;
mod descriptors;
mod error;
#[cfg(feature = "gateway")]
mod gateway;
mod h2_body;
mod health;
mod metadata;
mod metrics;
#[cfg(feature = "run")]
mod run;
mod status;
mod tls;
mod tunnel;

#[cfg(feature = "agent")]
pub use backend::{Agent, AgentError, Upstream};
#[cfg(feature = "backend")]
pub use backend::{Backend, BackendBuilder, BackendHealth, BackendStats};
#[cfg(feature = "backend")]
pub use backend::{CheckedStep, CheckedTls, CheckedWelcome, GatewayCheck};
#[cfg(feature = "gateway")]
pub use codegen::{BroadcastAnswers, BroadcastOptions};
#[cfg(feature = "gateway")]
pub use codegen::{FieldPath, FieldType, IdempotencyLevel, LoadBalancing, MethodRoutes, OnMissingKey, Strategy};
pub use error::{ConfigError, DialStep, NoSuchService, ServeError, SplitError, UnknownService};
#[cfg(feature = "gateway")]
pub use gateway::RetryBudget;
#[cfg(feature = "callers")]
pub use gateway::{
    ApiKey, By, Callers, CallersBody, CallersFuture, CallersLayer, CallersService, JwtIssuer, RateLimit, Who,
};
#[cfg(feature = "gateway")]
pub use gateway::{DescriptorConflict, DescriptorVersion, ReflectionService, ReflectionV1, ReflectionV1Alpha};
#[cfg(feature = "gateway")]
pub use gateway::{Gateway, GatewayBuilder, GatewayStats, GatewayTls, HealthService, RegisterService, ServiceRoutes};
#[cfg(feature = "gateway")]
pub use gateway::{InstanceChange, InstanceState, InstanceWatch, RegisteredInstance};
#[cfg(feature = "gateway")]
pub use gateway::{
    RegistrationFile, RegistrationFileError, RegistrationPolicy, RegistrationRule, RegistrationToken, TokenRecord,
};
#[cfg(feature = "run")]
pub use run::{LogFilterError, log_to_stderr, run, shutdown_signal};
pub use tls::TlsFileError;
