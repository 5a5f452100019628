//! A method called Call is found before the one of `tower::Service`: write `Service::call(&mut router, request)`.
//~ error[E0308]: mismatched types
#![allow(dead_code, unused_imports, non_camel_case_types)]

include!(concat!(env!("OUT_DIR"), "/plain/all.rs"));

use demo::r#type::v1::{http_admin_v2api_router::HttpAdminV2apiRouter, http_admin_v2api_server::HttpAdminV2api};
use tonic::codegen::{Service, http::Request};

fn send(mut router: HttpAdminV2apiRouter, request: Request<tonic::body::Body>) {
    let _ = router.call(request);
}

fn main() {}
