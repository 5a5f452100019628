//! Reads the tree and fails where it breaks the house's rules: who may use whom, what a file may hold, what must be
//! alike. Every rule is shown to fail on a bad sample beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod alike;
mod docs;
mod rooms;
mod rust;
mod tree;
mod words;

use tree::Tree;

fn assert_clean(findings: Vec<tree::Finding>) {
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{} against the rules:\n{}", text.len(), text.join("\n"));
}

#[test]
fn each_room_uses_only_what_it_may() {
    assert_clean(rooms::check(&Tree::read()));
}

#[test]
fn each_rule_about_rooms_guards_a_room_that_exists() {
    assert_clean(rooms::rules_without_a_room(&Tree::read()));
}

#[test]
fn no_file_holds_what_a_file_must_not_hold() {
    assert_clean(words::check(&Tree::read()));
}

#[test]
fn what_a_dropped_future_leaves_is_told_where_one_is_given() {
    assert_clean(docs::check(&Tree::read()));
}

#[test]
fn what_must_be_alike_is_alike_and_versions_keep_their_floors() {
    assert_clean(alike::check(&Tree::read()));
}

#[test]
fn the_walk_finds_the_tree() {
    let tree = Tree::read();
    for path in ["Cargo.toml", "proto/router.proto", "tests/tests/tidy/main.rs", "grpcrouter-protocol/src/lib.rs"] {
        assert!(tree.file(path).is_some(), "{path} was not read");
    }
    assert!(tree.files.iter().all(|file| !file.path.starts_with("target/")), "what was built is no source");
}
