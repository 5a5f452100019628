//! The pages of the repository as programs see them: fenced blocks, and what of them is Rust.
//! Also part of the build script, which compiles what this finds.

use std::fs;
use std::path::Path;

/// A fenced block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Of its first line, from 1.
    pub line: usize,
    /// What stands between the fences.
    pub text: String,
}

/// The folder that holds all pages and all crates.
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// The pages, from the root: its own and those of `docs/`.
pub fn names() -> Vec<String> {
    let docs = fs::read_dir(root().join("docs")).into_iter().flatten().flatten();
    let docs = docs.map(|entry| format!("docs/{}", entry.file_name().to_string_lossy()));
    let own = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(String::from);
    let mut names: Vec<String> = own.into_iter().chain(docs.filter(|name| name.ends_with(".md"))).collect();
    names.sort();
    names
}

/// The fenced blocks of one language.
pub fn blocks(page: &str, language: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, Block)> = None;
    for (index, line) in page.lines().enumerate() {
        open = match (open, line.strip_prefix("```")) {
            (None, Some(name)) => Some((name == language, Block { line: index + 2, text: String::new() })),
            (Some((wanted, block)), Some(_)) => {
                blocks.extend(wanted.then_some(block));
                None
            }
            (Some((wanted, mut block)), None) => {
                block.text.extend([line, "\n"]);
                Some((wanted, block))
            }
            (None, None) => None,
        };
    }
    blocks
}

/// A block of Rust as an item that compiles where it is included: a whole file as a module, and what are only
/// statements as the body of a function.
pub fn item(page: &str, block: &Block) -> String {
    let line = block.line;
    let name: String =
        page.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let text = &block.text;
    let file = text.lines().any(|line| line.starts_with("fn main(") || line.starts_with("async fn main("));
    if file {
        return format!("// {page}:{line}\npub mod {name}_{line} {{\n{text}}}\n");
    }
    format!(
        "// {page}:{line}\npub async fn {name}_{line}(listener: TcpListener) -> Result<(), Box<dyn Error>> {{\n{text}\
         Ok(())\n}}\n"
    )
}
