//! The generator from outside: real protoc against the plugin, the builder, and what both say when something is wrong.
//! `UPDATE_GOLDEN=1 cargo test -p protoc-gen-grpcrouter` writes the golden files again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod builder;
mod first_hour;
mod golden;
mod hostile;
mod misspelt;
mod mistakes;
mod plugin;
mod property;
mod protoc;
mod requests;
mod routes;
