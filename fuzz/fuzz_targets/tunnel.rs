//! Any steps of two apps with a hostile way between them: no panic, and nothing kept beyond the limits.
//! The property is the one that a test of the crate holds over inputs drawn by chance.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../grpcrouter-protocol/tests/fuzzed/property.rs"]
#[allow(dead_code, reason = "the other target has the other half")]
mod property;

fuzz_target!(|input: &[u8]| property::any_steps(input));
