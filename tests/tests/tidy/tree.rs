//! The files of the repository as the rules see them: relative path, text, and what kind of file it is. Needs no git.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::rust::{self, Source};

/// All files that somebody wrote, and the names of the crates that they may mention.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
    pub(crate) crates: BTreeSet<String>,
}

pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// What the scanner found, for a Rust file that somebody wrote or a program generated.
    pub(crate) rust: Option<Source>,
}

/// One breach of one rule.
pub(crate) struct Finding {
    pub(crate) path: String,
    /// From 1; 0 where it is about the whole file.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Tree {
    /// The repository that holds this test.
    pub(crate) fn read() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the root");
        let mut files = Vec::new();
        walk(root, "", &mut files);
        files.sort();
        let files: Vec<_> = files
            .into_iter()
            // Not UTF-8: no text, no rule.
            .filter_map(|path| fs::read_to_string(root.join(&path)).ok().map(|text| (path, text)))
            .collect();
        Tree::of(files)
    }

    /// A made-up tree, to show that a rule fails.
    pub(crate) fn sample(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::of(files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect());
        tree.crates.extend(
            ["tokio", "rand", "bytes", "proptest", "grpcrouter_runtime", "grpcrouter_protocol"].map(String::from),
        );
        tree
    }

    fn of(files: Vec<(String, String)>) -> Tree {
        let mut crates: BTreeSet<String> = ["std", "core", "alloc"].map(String::from).into();
        if let Some((_, manifest)) = files.iter().find(|(path, _)| path == "Cargo.toml") {
            crates.extend(keys(manifest, "[workspace.dependencies]").into_iter().map(|(_, key)| key.replace('-', "_")));
        }
        let files = files.into_iter().map(|(path, text)| File::new(path, text)).collect();
        Tree { files, crates }
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Rust that somebody wrote.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter(|file| !file.is_generated()).filter_map(|file| Some((file, file.rust.as_ref()?)))
    }

    /// Rust that a program wrote.
    pub(crate) fn generated(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter(|file| file.is_generated()).filter_map(|file| Some((file, file.rust.as_ref()?)))
    }
}

impl File {
    fn new(path: String, text: String) -> File {
        let rust = path.ends_with(".rs").then(|| rust::scan(&path, &text));
        File { path, text, rust }
    }

    pub(crate) fn is_generated(&self) -> bool {
        GENERATED.iter().any(|part| self.path.contains(part))
    }

    /// Code that only tests run; a Rust file may hold test code beside other code.
    pub(crate) fn is_test(&self) -> bool {
        // The consumers are programs that tests run, not tests.
        let consumer = self.path.starts_with("tests/consumers/") && self.path.contains("/src/");
        let test = self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        test && !consumer
    }

    pub(crate) fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }
}

/// The keys of one table of a manifest, with their lines. Enough for manifests as they are written here.
pub(crate) fn keys(manifest: &str, table: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == table;
        } else if inside && !line.starts_with('#') {
            let key = line.split(['=', '.']).next().unwrap_or_default().trim();
            if !key.is_empty() && line.contains('=') {
                found.push((number + 1, key.to_owned()));
            }
        }
    }
    found
}

fn walk(root: &Path, folder: &str, files: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(root.join(folder)).expect("a folder of the tree").flatten().collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            // Cargo and others mark what can be made again.
            if !SKIPPED.contains(&name.as_str()) && !entry.path().join("CACHEDIR.TAG").exists() {
                walk(root, &path, files);
            }
        } else if kind.is_file() {
            files.push(path);
        }
    }
}

const SKIPPED: [&str; 6] = [".git", "target", "gen", "__pycache__", ".pytest_cache", "node_modules"];
/// Parts of the paths of generated code.
const GENERATED: [&str; 3] = ["grpcrouter-protocol/src/wire.rs", "/src/generated/", "/tests/golden/"];

#[test]
fn the_keys_of_a_manifest_are_those_of_its_table() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\n# no = 1\nbytes.workspace = true\ntokio = { version = \"1\" }\n\n[lints]\nworkspace = true\n";
    let names: Vec<_> = keys(manifest, "[dependencies]");
    assert_eq!(names, [(5, "bytes".to_owned()), (6, "tokio".to_owned())]);
}
