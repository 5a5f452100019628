//! The agent in front of servers that know nothing of gateways: a tonic server as people run it, and one that is nothing but
//! HTTP/2, which shows exactly what came.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "agent/connection.rs"]
mod connection;
#[path = "agent/discovery.rs"]
mod discovery;
#[path = "agent/exact.rs"]
mod exact;
#[path = "agent/health.rs"]
mod health;
#[path = "agent/kinds.rs"]
mod kinds;
#[path = "agent/raw_upstream.rs"]
mod raw_upstream;
#[path = "agent/world.rs"]
mod world;

const SERVICE: &str = "myservice.MyService";
