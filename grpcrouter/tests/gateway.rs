//! `grpcrouter gateway` as a program: what it prints, how it ends, what it refuses, and the page that tells of routing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "gateway/page.rs"]
mod page;
#[path = "gateway/process.rs"]
mod process;
#[path = "gateway/program.rs"]
mod program;
