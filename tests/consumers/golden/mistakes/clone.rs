//! A method called Clone: with the trait in scope write `Clone::clone(&router)`.
//~ error[E0034]: multiple applicable items in scope
#![allow(dead_code, unused_imports, non_camel_case_types)]

include!(concat!(env!("OUT_DIR"), "/plain/all.rs"));

use demo::r#type::v1::{http_admin_v2api_router::HttpAdminV2apiRouter, http_admin_v2api_server::HttpAdminV2api};

fn copy(router: HttpAdminV2apiRouter) {
    let _ = router.clone();
}

fn main() {}
