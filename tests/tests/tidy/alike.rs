//! Files that must be the same, and versions that must not go below their floors.

use crate::tree::{Finding, Tree};

/// Files that are shipped twice: a crate that is published holds only what lies in its folder.
const COPIES: &[(&str, &str)] = &[("proto/options.proto", "protoc-gen-grpcrouter/proto/options.proto")];

/// Below these, something that we promise is broken.
const FLOORS: &[(&str, [u64; 3], &str)] = &[
    ("tonic", [0, 14, 9], "earlier ones turn a cancelled upload into a clean end"),
    ("hyper", [1, 12, 0], "the front of HTTP/1.1 and of embedded gateways was tried with it"),
    ("h2", [0, 4, 20], "0.4.16 to 0.4.18 end a whole connection on a handful of small unread DATA frames"),
];

/// Where crates come from, as cargo itself writes it; any other source is a mirror or a fork.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (one, other) in COPIES {
        match (tree.file(one), tree.file(other)) {
            (Some(a), Some(b)) if a.text == b.text => {}
            _ => findings.push(Finding {
                path: (*other).into(),
                line: 0,
                what: format!("is not the same as {one}: copy it"),
            }),
        }
    }
    for file in tree.files.iter().filter(|file| file.path.ends_with("Cargo.lock")) {
        lock(file, &mut findings);
    }
    for file in tree.files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let member = !file.path.starts_with("tests/consumers/") && file.path != "Cargo.toml";
        if member && !file.text.contains("[lints]\nworkspace = true") {
            findings.push(file.finding(0, "does not take the workspace's lints"));
        }
        if file.text.contains("\n[source.") || file.text.contains("\n[patch.") {
            findings.push(file.finding(0, "replaces a registry or a crate"));
        }
    }
    findings
}

fn lock(file: &crate::tree::File, findings: &mut Vec<Finding>) {
    let mut name = "";
    for (number, line) in file.text.lines().enumerate() {
        let value = line.split('"').nth(1).unwrap_or_default();
        if line.starts_with("name = ") {
            name = value;
        } else if line.starts_with("version = ") {
            let floor = FLOORS.iter().find(|(floor, _, _)| *floor == name);
            if let Some((_, floor, because)) = floor.filter(|(_, floor, _)| version(value) < *floor) {
                findings.push(file.finding(number + 1, format!("{name} {value} is below {floor:?}: {because}")));
            }
        } else if line.starts_with("source = ") && value != SOURCE {
            findings.push(file.finding(number + 1, format!("{name} comes from {value}")));
        }
    }
}

fn version(text: &str) -> [u64; 3] {
    let plain = text.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = plain.split('.').map(|number| number.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(files: &[(&str, &str)]) -> Vec<String> {
        let copies = COPIES.iter().flat_map(|(one, other)| [(*one, "same"), (*other, "same")]);
        let files: Vec<_> = files.iter().copied().chain(copies).collect();
        check(&Tree::sample(&files)).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_copy_that_differs_or_is_gone_is_found() {
        assert_eq!(breaches(&[]), [""; 0]);
        assert_eq!(breaches(&[("proto/options.proto", "changed")]).len(), 1);
        assert_eq!(check(&Tree::sample(&[("proto/options.proto", "same")])).len(), COPIES.len());
    }

    #[test]
    fn a_version_below_its_floor_is_found() {
        let lock =
            |version: &str| format!("[[package]]\nname = \"h2\"\nversion = \"{version}\"\nsource = \"{SOURCE}\"\n");
        assert_eq!(breaches(&[("Cargo.lock", &lock("0.4.20"))]), [""; 0]);
        assert_eq!(breaches(&[("Cargo.lock", &lock("0.5.0"))]), [""; 0]);
        assert_eq!(breaches(&[("Cargo.lock", &lock("0.4.18"))]).len(), 1);
        assert_eq!(breaches(&[("tests/consumers/a/Cargo.lock", &lock("0.3.27"))]).len(), 1);
    }

    #[test]
    fn another_source_of_crates_is_found() {
        assert_eq!(
            breaches(&[("Cargo.lock", "name = \"h2\"\nsource = \"registry+https://mirror.example/index\"\n")]).len(),
            1
        );
    }

    #[test]
    fn a_crate_without_the_workspaces_lints_is_found() {
        assert_eq!(breaches(&[("a/Cargo.toml", "[package]\nname = \"a\"\n")]).len(), 1);
        assert_eq!(breaches(&[("a/Cargo.toml", "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n")]), [""; 0]);
    }
}
