//! Compiles the proto files of the golden tests: as they come, with tonic's trait in its other shape, and without
//! client and server.

use std::{env, path::Path};

use protoc_gen_grpcrouter::{Builder, Error, configure};

fn main() -> Result<(), Error> {
    let all = ["kinds", "options", "names", "bare", "gateway"];
    build("plain", configure().gateway(true), false, &all)?;
    build("alone", configure().build_client(false).build_server(false).gateway(true), false, &all)?;
    // With `Arc<Self>` tonic's own server does not compile for a method called Clone, which "names" has.
    build("boxed", configure(), true, &["kinds", "options", "bare", "gateway"])
}

/// Into a directory of its own, with one file that includes all.
fn build(name: &str, builder: Builder, boxed: bool, cases: &[&str]) -> Result<(), Error> {
    let golden = "../../../protoc-gen-grpcrouter/tests/golden";
    let protos: Vec<String> = cases.iter().map(|case| format!("{golden}/{case}.proto")).collect();
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(name);
    let all = out.join("all.rs");
    builder
        .out_dir(out)
        .tonic(move |tonic| tonic.include_file(all).use_arc_self(boxed).generate_default_stubs(boxed))
        .compile_protos(&protos, &[golden])
}
