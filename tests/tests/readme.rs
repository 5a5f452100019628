//! What the pages at the root say is so: their Rust compiles, their links lead somewhere, their make targets exist.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{error::Error, future::Future, path::Path};

use grpcrouter_runtime::{Backend, Gateway};
use myservice::{
    MyServiceImpl,
    proto::{my_service_router::MyServiceRouter, my_service_server::MyServiceServer},
};
use tokio::net::TcpListener;

#[expect(dead_code, reason = "the README's backend: that it compiles is the test")]
async fn backend() -> Result<(), Box<dyn Error>> {
    Backend::builder()
        .gateway("http://gateway:8080")
        .instance_id("a")
        .add_service(MyServiceServer::new(MyServiceImpl::new("a")))
        .build()?
        .serve(ctrl_c())
        .await?;
    Ok(())
}

#[expect(dead_code, reason = "the README's gateway: that it compiles is the test")]
async fn gateway(listener: TcpListener) -> Result<(), Box<dyn Error>> {
    Gateway::builder().add_router::<MyServiceRouter>().build()?.serve(listener, ctrl_c()).await?;
    Ok(())
}

#[expect(dead_code, reason = "the README's build script: that it compiles is the test")]
fn build_script() -> Result<(), protoc_gen_grpcrouter::Error> {
    protoc_gen_grpcrouter::configure().compile_protos(&["proto/service.proto"], &["."])
}

fn ctrl_c() -> impl Future<Output = ()> {
    std::future::pending()
}

#[test]
fn the_rust_of_the_readme_is_compiled_here() {
    let here = squeezed(include_str!("readme.rs"));
    let blocks = blocks(&page("README.md"), "rust");
    assert_eq!(blocks.len(), 3, "blocks of Rust in the README");
    for block in blocks {
        // A function has another name here, and comments stay there.
        let lines: Vec<_> = block.lines().filter(|line| !line.starts_with("//")).collect();
        let body = match lines.as_slice() {
            [first, body @ .., "}"] if first.starts_with("fn ") => body.join("\n"),
            _ => lines.join("\n"),
        };
        assert!(here.contains(&squeezed(&body)), "only in the README:\n{body}");
    }
}

#[test]
fn the_options_of_the_readme_are_those_of_the_example() {
    let option = |text: &str| {
        let (_, rest) = text.split_once("option (grpcrouter.routes_to) = {").expect("the option");
        squeezed(rest.split_once("};").map_or(rest, |(inner, _)| inner).trim_end_matches('}'))
    };
    let example = option(&page("examples/myservice/service.proto"));
    assert_eq!(option(&blocks(&page("README.md"), "protobuf").concat()), example);
}

#[test]
fn links_within_the_repository_lead_to_a_file() {
    for name in PAGES {
        for target in links(&page(name)) {
            let path = target.split('#').next().unwrap();
            let local = !path.is_empty() && !path.contains("://");
            assert!(!local || root().join(path).exists(), "{name} links to {target}, which is not there");
        }
    }
}

#[test]
fn every_make_target_that_a_page_names_exists() {
    let makefile = page("Makefile");
    for name in PAGES {
        for target in targets(&page(name)) {
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{name} says `make {target}`, which the Makefile does not know");
        }
    }
}

const PAGES: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the root")
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// The fenced blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(name)) => open = Some((name == language, String::new())),
            (Some((wanted, text)), Some(_)) => {
                blocks.extend(wanted.then(|| std::mem::take(text)));
                open = None;
            }
            (Some((_, text)), None) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    blocks
}

fn links(page: &str) -> Vec<String> {
    page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The words after `make` in code: as the first word of a line in a block, or after a backtick.
fn targets(page: &str) -> Vec<String> {
    let inline = page.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("make "));
    let code = blocks(page, "sh").concat();
    let lines = code.lines().filter_map(|line| line.strip_prefix("make "));
    let known = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    inline.chain(lines).flat_map(|rest| rest.split_whitespace().take_while(known)).map(String::from).collect()
}

#[test]
fn the_readers_of_the_pages_find_what_is_there() {
    let page = "a [b](c.md#d) `make one two`\n```sh\nmake three  # four\n```\n```rust\nlet x;\n```\n";
    assert_eq!(links(page), ["c.md#d"]);
    assert_eq!(targets(page), ["one", "two", "three"]);
    assert_eq!(blocks(page, "rust"), ["let x;\n"]);
}
