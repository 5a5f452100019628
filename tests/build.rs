//! Writes the Rust of the pages into one file, which tests/readme.rs compiles.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a build script may panic")]

#[path = "src/pages.rs"]
#[allow(unreachable_pub, reason = "public in the crate, private here")]
mod pages;

use std::{env, fs, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=src/pages.rs");
    // For pages that come. Not the root itself: Cargo would look at all below it, also at what it built.
    println!("cargo:rerun-if-changed={}", pages::root().join("docs").display());
    let mut items = String::new();
    for name in pages::names() {
        let path = pages::root().join(&name);
        println!("cargo:rerun-if-changed={}", path.display());
        let page = fs::read_to_string(path).expect("a page");
        items.extend(pages::blocks(&page, "rust").iter().map(|block| pages::item(&name, block)));
    }
    let out = env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("pages.rs"), items).expect("OUT_DIR can be written to");
}
