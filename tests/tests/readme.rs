//! What the pages at the root say is so: their Rust compiles, their links lead somewhere, their make targets exist.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;

use grpcrouter_tests::pages::{Block, blocks, item, names, root};

/// The Rust of the pages, each block by itself: a block that does not compile is an error of the compiler here, under a
/// comment that tells its page and line.
#[allow(dead_code, unused_imports, unused_variables, unreachable_pub, reason = "that it compiles is the test")]
mod compiled {
    use std::{error::Error, future::Future};

    use grpcrouter_runtime::{Backend, Gateway, GatewayTls, RegistrationPolicy};
    use myservice::{
        MyServiceImpl,
        proto::{my_service_router::MyServiceRouter, my_service_server::MyServiceServer},
    };
    use tokio::net::TcpListener;

    include!(concat!(env!("OUT_DIR"), "/pages.rs"));

    fn ctrl_c() -> impl Future<Output = ()> {
        std::future::pending()
    }
}

#[test]
fn the_rust_of_the_pages_is_compiled_here() {
    let compiled = include_str!(concat!(env!("OUT_DIR"), "/pages.rs"));
    let mut found = 0;
    for name in names() {
        for block in blocks(&page(&name), "rust") {
            assert!(compiled.contains(&item(&name, &block)), "{name}:{} was not compiled", block.line);
            found += 1;
        }
    }
    assert!(found >= 3, "a backend, a gateway and a build script are in the README; found: {found}");
}

#[test]
fn the_options_of_the_readme_are_those_of_the_example() {
    let option = |text: &str| {
        let (_, rest) = text.split_once("option (grpcrouter.routes_to) = {").expect("the option");
        squeezed(rest.split_once("};").map_or(rest, |(inner, _)| inner).trim_end_matches('}'))
    };
    let example = option(&page("examples/myservice/service.proto"));
    assert_eq!(option(&text_of(blocks(&page("README.md"), "protobuf"))), example);
}

#[test]
fn links_within_the_repository_lead_to_a_file() {
    for name in names() {
        for target in links(&page(&name)) {
            let path = target.split('#').next().unwrap();
            let local = !path.is_empty() && !path.contains("://");
            let folder = root().join(&name).parent().unwrap().to_owned();
            assert!(!local || folder.join(path).exists(), "{name} links to {target}, which is not there");
        }
    }
}

#[test]
fn every_make_target_that_a_page_names_exists() {
    let makefile = page("Makefile");
    for name in names() {
        for target in targets(&page(&name)) {
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{name} says `make {target}`, which the Makefile does not know");
        }
    }
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// All blocks of one language as one text.
fn text_of(blocks: Vec<Block>) -> String {
    blocks.into_iter().map(|block| block.text).collect()
}

fn links(page: &str) -> Vec<String> {
    page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The words after `make` in code: as the first word of a line in a block, or after a backtick.
fn targets(page: &str) -> Vec<String> {
    let inline = page.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("make "));
    let code = text_of(blocks(page, "sh"));
    let lines = code.lines().filter_map(|line| line.strip_prefix("make "));
    let known = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    inline.chain(lines).flat_map(|rest| rest.split_whitespace().take_while(known)).map(String::from).collect()
}

#[test]
fn the_readers_of_the_pages_find_what_is_there() {
    let page = "a [b](c.md#d) `make one two`\n```sh\nmake three  # four\n```\n```rust\nlet x;\n```\n";
    assert_eq!(links(page), ["c.md#d"]);
    assert_eq!(targets(page), ["one", "two", "three"]);
    assert_eq!(blocks(page, "rust"), [Block { line: 6, text: "let x;\n".into() }]);
}

#[test]
fn statements_become_a_function_and_a_whole_file_becomes_a_module() {
    let item = |text: &str| item("docs/A.md", &Block { line: 7, text: text.into() });
    assert_eq!(item("fn main() {}\n"), "// docs/A.md:7\npub mod docs_a_md_7 {\nfn main() {}\n}\n");
    let function = item("gateway.stats();\n");
    assert!(function.starts_with("// docs/A.md:7\npub async fn docs_a_md_7(listener: TcpListener)"), "{function}");
    assert!(function.ends_with("{\ngateway.stats();\nOk(())\n}\n"), "{function}");
}
