//! What protoc itself says when the plugin or options.proto is not where it looks: the README knows these words, and
//! says what to do.

use std::{fs, process::Command};

use crate::protoc::{Protoc, crate_dir, directory};

const SERVICE: &str = "syntax = \"proto3\"; package a; import \"proto/options.proto\"; message M {}\n\
     service S { option (grpcrouter.routes_to) = {}; rpc Get(M) returns (M); }\n";

/// The README's row for `said`, which protoc must have said; it names `remedy`.
fn readme_knows(protoc: &str, said: &str, remedy: &str) {
    assert!(protoc.contains(said), "protoc says something else: {protoc}");
    let readme = crate_dir().join("../README.md");
    // The README stands beside this crate in the repository; the published crate has none to compare with.
    let Ok(readme) = fs::read_to_string(readme) else { return };
    let row = readme.lines().find(|line| line.starts_with('|') && line.contains(said));
    let row = row.unwrap_or_else(|| panic!("no row of the README has {said:?}"));
    assert!(row.contains(remedy), "{row}");
}

#[test]
fn a_plugin_that_is_not_on_the_path_is_in_the_readme_with_what_to_do() {
    let protos = directory(&[("a.proto", SERVICE)]);
    let output = Command::new(protoc_bin_vendored::protoc_bin_path().unwrap())
        .current_dir(protos.path())
        .env("PATH", protos.path())
        .args(["-I.", "--grpcrouter_out=.", "a.proto"])
        .arg(format!("-I{}", crate_dir().display()))
        .output()
        .unwrap();

    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    readme_knows(&said, "protoc-gen-grpcrouter: program not found", "`make install`");
}

#[test]
fn an_options_proto_that_is_not_found_is_in_the_readme_with_what_to_do() {
    let protos = directory(&[("a.proto", SERVICE)]);

    let said = Protoc::new(protos.path()).run(&["a.proto"]).err().unwrap();

    readme_knows(&said, "proto/options.proto: File not found", "--print-options-proto > proto/options.proto");
}
