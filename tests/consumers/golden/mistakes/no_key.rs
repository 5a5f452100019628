//! A service without a routing key has no client for a key.
//~ no method named `typed_client_for` found
#![allow(dead_code, unused_imports, non_camel_case_types)]

include!(concat!(env!("OUT_DIR"), "/plain/all.rs"));

use shop::v1::balanced_router::BalancedRouter;
use tonic::codegen::http::HeaderValue;

fn client(router: BalancedRouter) {
    let _ = router.typed_client_for(HeaderValue::from_static("key"));
}

fn main() {}
