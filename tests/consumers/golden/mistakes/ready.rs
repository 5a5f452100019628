//! A router serves requests of every body: which one must be said, as for tonic's own servers.
//~ type annotations needed
#![allow(dead_code, unused_imports, non_camel_case_types)]

include!(concat!(env!("OUT_DIR"), "/plain/all.rs"));

use demo::v1::my_service_router::MyServiceRouter;
use tonic::codegen::Service;

fn ready(mut router: MyServiceRouter, cx: &mut std::task::Context<'_>) {
    let _ = router.poll_ready(cx);
}

fn main() {}
