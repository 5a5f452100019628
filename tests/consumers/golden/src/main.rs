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

fn main() {
    let plain = &plain::shop::v1::by_field_router::SPEC;
    let alone = &alone::shop::v1::by_field_router::SPEC;
    assert_eq!(plain, alone, "client and server must not change what the router says");
    assert_eq!(plain.routing_key, Some("customer.id"));
    println!("consumer ok");
}
