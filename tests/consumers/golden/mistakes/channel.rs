//! A router calls through a channel, and nothing else.
//~ its trait bounds were not satisfied
#![allow(dead_code, unused_imports, non_camel_case_types)]

include!(concat!(env!("OUT_DIR"), "/plain/all.rs"));

use demo::v1::my_service_router::MyServiceRouter;

fn main() {
    let _ = MyServiceRouter::with_channel("http://127.0.0.1:8080").typed_client();
}
