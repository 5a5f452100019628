//! Code of a later generator than the runtime: the error says which of the two to update.
//~ is newer than the grpcrouter-runtime in use: update the crate grpcrouter-runtime
#![allow(dead_code)]

include!(concat!(env!("OUT_DIR"), "/later.rs"));

fn main() {}
