//! Code of an earlier generator than the runtime: the error says to generate again.
//~ is older than the grpcrouter-runtime in use: generate it again with the plugin
#![allow(dead_code)]

include!(concat!(env!("OUT_DIR"), "/earlier.rs"));

fn main() {}
