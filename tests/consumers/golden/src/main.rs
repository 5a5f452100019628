//! Everything that the golden files promise compiles, without a warning of rustc's in what we generate.
//! Prints `consumer ok`.
#![deny(warnings)]

/// tonic's own code has a type `listThingsStream`, as the proto file spells it.
#[allow(non_camel_case_types)]
mod plain {
    include!(concat!(env!("OUT_DIR"), "/plain/all.rs"));
}

#[allow(dead_code, non_camel_case_types)]
mod boxed {
    include!(concat!(env!("OUT_DIR"), "/boxed/all.rs"));
}

/// No client and no server, so nobody makes or reads the messages.
#[allow(dead_code)]
mod alone {
    include!(concat!(env!("OUT_DIR"), "/alone/all.rs"));
}

/// What programs in mistakes/ get wrong, done right. The service is deprecated, and its router says so.
#[allow(dead_code, deprecated)]
mod right {
    use tonic::{
        body::Body,
        codegen::{Service, http::Request},
    };

    use super::plain::demo::r#type::v1::{
        http_admin_v2api_router::HttpAdminV2apiRouter, http_admin_v2api_server::HttpAdminV2api,
    };

    /// The trait is in scope, and is implemented.
    fn api<T: HttpAdminV2api>(_: &T) {}

    fn raw(router: &mut HttpAdminV2apiRouter, request: Request<Body>, cx: &mut std::task::Context<'_>) {
        api(router);
        let mut copy = Clone::clone(router);
        let _ = Service::<Request<Body>>::poll_ready(&mut copy, cx);
        drop(Service::call(&mut copy, request));
    }
}

fn main() {
    let plain = &plain::shop::v1::by_field_router::SPEC;
    let alone = &alone::shop::v1::by_field_router::SPEC;
    assert_eq!(plain, alone, "client and server must not change what the router says");
    assert_eq!(plain.routing_key, Some("customer.id"));
    println!("consumer ok");
}
