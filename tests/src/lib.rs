//! The harness of the tests that cross crates: a gateway and backends in this process, on real sockets, and a service
//! that does what a test tells it to and writes down what happened to it.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

pub mod admin;
pub mod by_hand;
pub mod certs;
pub mod deadlines;
pub mod echo;
pub mod frames;
pub mod held_link;
pub mod lines;
pub mod load;
pub mod pages;
pub mod probe;
pub mod raw;
pub mod relay;
pub mod slow_link;
pub mod tls;
pub mod world;
