//! Compiles the proto files of the golden tests: as they come, with tonic's trait in its other shape, and without
//! client and server.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use protoc_gen_grpcrouter::{Builder, Error, configure};

fn main() -> Result<(), Error> {
    let all = ["kinds", "options", "names", "bare", "gateway"];
    build("plain", configure().gateway(true), false, &all)?;
    build("alone", configure().build_client(false).build_server(false).gateway(true), false, &all)?;
    another_abi();
    routers_alone();
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

/// The routers without the messages, each file's in a module of its own: their pages are built with every warning an
/// error, and what prost and tonic make of the same comments would have some.
fn routers_alone() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut all = String::new();
    let files = fs::read_dir(out.join("alone")).expect("written just now").flatten().map(|entry| entry.path());
    for (number, file) in files.filter(|file| !file.ends_with("all.rs")).enumerate() {
        let text = fs::read_to_string(file).expect("written just now");
        let routers = text.split("/// Generated router implementations.\n").skip(1);
        let routers = routers.map(|router| router.split_inclusive("\n}\n").next().unwrap_or_default());
        all.extend([format!("/// Of file {number}.\npub mod file_{number} {{\n"), routers.collect(), "}\n".to_owned()]);
    }
    assert!(all.contains("https://example.com/x"), "the comment that is no rustdoc is not there");
    fs::write(out.join("routers.rs"), all).expect("OUT_DIR is ours");
}

/// The same code as a later and as an earlier generator would write it, for programs that must not compile.
fn another_abi() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let text = fs::read_to_string(out.join("plain/_.rs")).expect("written just now");
    let (before, after) = text.split_once("assert_abi(").expect("each router has it");
    let (abi, after) = after.split_once(')').expect("it is a call");
    let abi: u32 = abi.parse().expect("of a number");
    for (name, abi) in [("later", abi + 1), ("earlier", abi - 1)] {
        fs::write(out.join(format!("{name}.rs")), format!("{before}assert_abi({abi}){after}"))
            .expect("OUT_DIR is ours");
    }
}
