//! The program as people run it: its real binary against a real gateway, a real backend and a real upstream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "cli/agent.rs"]
mod agent;
#[path = "cli/call.rs"]
mod call;
#[path = "cli/certs.rs"]
mod certs;
#[path = "cli/list.rs"]
mod list;
#[path = "cli/token.rs"]
mod token;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/world.rs"]
mod world;
