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
//! | `run` | [`run`](fn@run), the whole main function of a generated gateway; implies `gateway` |
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]
// What both ends share is whole in each of them: with one end alone some of it has no use.
#![cfg_attr(not(all(feature = "gateway", feature = "backend")), allow(dead_code, unused_imports))]
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
mod tunnel;

#[cfg(feature = "backend")]
pub use backend::{Backend, BackendBuilder, BackendHealth, BackendStats};
#[cfg(feature = "gateway")]
pub use codegen::{BroadcastAnswers, BroadcastOptions};
#[cfg(feature = "gateway")]
pub use codegen::{FieldPath, FieldType, LoadBalancing, MethodRoutes, OnMissingKey, Strategy};
pub use error::{ConfigError, NoSuchService, ServeError, SplitError, UnknownService};
#[cfg(feature = "gateway")]
pub use gateway::{DescriptorConflict, DescriptorVersion, ReflectionService, ReflectionV1, ReflectionV1Alpha};
#[cfg(feature = "gateway")]
pub use gateway::{Gateway, GatewayBuilder, GatewayStats, HealthService, RegisterService, ServiceRoutes};
#[cfg(feature = "gateway")]
pub use gateway::{InstanceChange, InstanceState, InstanceWatch, RegisteredInstance};
#[cfg(feature = "run")]
pub use run::run;
