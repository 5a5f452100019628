//! What a crate takes in with ours: the README's dependency lines as they stand, how many crates each feature adds, and
//! that all of them go with the Rust that we promise. Cargo answers, offline; nothing is built.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use grpcrouter_tests::pages::{blocks, root};
use tempfile::TempDir;

#[test]
fn the_dependency_lines_of_the_readme_work_as_they_stand() {
    let user = User::new(&dependency_lines());

    let tree = user.cargo(&["tree", "--edges", "normal,build", "--depth", "1", "--prefix", "none"]);

    for ours in ["grpcrouter-runtime v", "protoc-gen-grpcrouter v"] {
        assert!(tree.lines().any(|line| line.starts_with(ours)), "no {ours} in:\n{tree}");
    }
}

/// That one is built and run by `make consumers`.
#[test]
fn the_dependency_lines_of_the_readme_are_those_of_a_consumer_that_is_built() {
    let manifest = read("tests/consumers/buildrs/Cargo.toml");
    let (_, lines) = manifest.split_once("[dependencies]").expect("dependencies");

    let consumers = format!("[dependencies]{lines}").replace("../../../", "../grpcrouter/");

    assert_eq!(dependency_lines().trim(), consumers.trim());
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn each_feature_adds_as_many_crates_as_the_readme_says() {
    let readme = read("README.md");
    let lines = dependency_lines();
    let (dependencies, _) = lines.split_once("[build-dependencies]").expect("build-dependencies");
    let crates = |runtime: &str| {
        let lines = dependencies.lines().map(|line| if line.starts_with(RUNTIME) { runtime } else { line });
        let user = User::new(&lines.collect::<Vec<_>>().join("\n"));
        let tree = user.cargo(&["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
        // A crate that stands there again has a mark; this one is not counted.
        let names = tree.lines().map(|line| line.split(" (").next().unwrap_or(line).to_owned());
        names.filter(|name| !name.is_empty() && !name.starts_with("shop ")).collect::<BTreeSet<_>>()
    };
    let plain = crates("");
    let said = format!("which has {} crates on Linux", plain.len());
    assert!(readme.replace('\n', " ").contains(&said), "the README does not say: {said}");

    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let count: usize = cells.get(2)?.parse().ok()?;
        Some((cells[0].replace('`', ""), count))
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), 6, "rows of the table of features: {rows:?}");
    for (features, count) in rows {
        let list: Vec<_> = features.split(", ").map(|feature| format!("{feature:?}")).collect();
        let path = "../grpcrouter/grpcrouter-runtime";
        let runtime =
            format!("{RUNTIME}{{ path = {path:?}, default-features = false, features = [{}] }}", list.join(", "));
        let added: Vec<_> = crates(&runtime).difference(&plain).cloned().collect();
        assert_eq!(added.len(), count, "crates that {features} adds, in the README's table; it adds {added:#?}");
    }
}

#[test]
fn no_crate_needs_a_later_rust_than_ours() {
    let manifest = read("Cargo.toml");
    let promised = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("rust-version");
    let host = host();
    let user = User::new(&dependency_lines());

    let metadata = user.cargo(&["metadata", "--format-version", "1", "--filter-platform", &host]);

    let needs = rust_versions(&metadata);
    assert!(needs.len() > 50, "only {} crates tell their rust-version", needs.len());
    let promised = version(promised.trim_matches('"'));
    let later: Vec<_> = needs.iter().filter(|(_, needed)| version(needed) > promised).collect();
    assert!(later.is_empty(), "crates that need more than Rust {promised:?}: {later:?}");
}

#[test]
fn a_crate_that_needs_a_later_rust_is_found() {
    let metadata = r#"{"name":"a","manifest_path":"/x/a-1/Cargo.toml","rust_version":"1.99"},
        {"name":"b","manifest_path":"/x/b-1/Cargo.toml","rust_version":null}"#;

    assert_eq!(rust_versions(metadata), [("/x/a-1/Cargo.toml".to_owned(), "1.99".to_owned())]);
    assert!(version("1.99") > version("1.88"));
    assert!(version("1.88.0") == version("1.88"));
}

/// A crate of somebody else, with a clone of this repository beside it.
struct User {
    folder: TempDir,
}

impl User {
    fn new(dependencies: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let shop = folder.path().join("shop");
        fs::create_dir_all(shop.join("src")).unwrap();
        let package = "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n";
        fs::write(shop.join("Cargo.toml"), format!("{package}{dependencies}")).unwrap();
        fs::write(shop.join("src/main.rs"), "fn main() {}\n").unwrap();
        // The versions that are here already, so that nothing needs to be fetched.
        fs::copy(root().join("Cargo.lock"), shop.join("Cargo.lock")).unwrap();
        clone(root(), &folder.path().join("grpcrouter"));
        Self { folder }
    }

    fn cargo(&self, arguments: &[&str]) -> String {
        let cargo = Command::new(env!("CARGO"))
            .args(arguments)
            .arg("--offline")
            .current_dir(self.folder.path().join("shop"))
            .output()
            .unwrap();
        assert!(cargo.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&cargo.stderr));
        String::from_utf8(cargo.stdout).unwrap()
    }
}

#[cfg(unix)]
fn clone(repository: &Path, at: &Path) {
    std::os::unix::fs::symlink(repository, at).unwrap();
}

#[cfg(windows)]
fn clone(repository: &Path, at: &Path) {
    std::os::windows::fs::symlink_dir(repository, at).unwrap();
}

/// The README's lines, both tables.
fn dependency_lines() -> String {
    let blocks = blocks(&read("README.md"), "toml");
    assert_eq!(blocks.len(), 1, "blocks of TOML in the README");
    blocks[0].text.clone()
}

/// From what `cargo metadata` says: the manifest of each package and the Rust that it needs.
fn rust_versions(metadata: &str) -> Vec<(String, String)> {
    let string_after = |text: &str, at: usize| text[at..].split('"').next().unwrap_or_default().to_owned();
    let (needs, manifest) = (r#""rust_version":""#, r#""manifest_path":""#);
    metadata
        .match_indices(needs)
        .filter_map(|(at, _)| {
            let before = metadata[..at].rfind(manifest)?;
            Some((string_after(metadata, before + manifest.len()), string_after(metadata, at + needs.len())))
        })
        .collect()
}

fn version(text: &str) -> (u64, u64, u64) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// The platform that this was built for: what other platforms need may not be here.
fn host() -> String {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let said = String::from_utf8(rustc.stdout).unwrap();
    said.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const RUNTIME: &str = "grpcrouter-runtime = ";
