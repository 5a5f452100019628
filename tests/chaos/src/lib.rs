//! Calls whose every byte is known beforehand, the service that answers them and writes down what it began, and the
//! client that checks the answers: what both the real programs and the seeded schedules are loaded with.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

mod caller;
mod service;
mod work;

pub use caller::{Caller, Failure};
pub use service::{Journal, Worker};
pub use work::{Kind, Work};
