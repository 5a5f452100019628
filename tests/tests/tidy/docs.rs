//! What the pages of a public function that waits must tell: what becomes of its work when its future is dropped.
//! That errors and panics are told, clippy sees to.

use crate::tree::{File, Finding, Tree};

/// The crates that others use.
const CRATES: [&str; 3] = ["grpcrouter-protocol/src/", "grpcrouter-runtime/src/", "protoc-gen-grpcrouter/src/"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let files = tree.written().filter(|(file, _)| CRATES.iter().any(|path| file.path.starts_with(path)));
    files.flat_map(|(file, _)| waits_untold(file)).collect()
}

fn waits_untold(file: &File) -> Vec<Finding> {
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let above = lines[..index].iter().rev();
        let mut docs = above.take_while(|above| above.starts_with("///") || above.starts_with("#["));
        if waits(&lines[index..]) && !docs.any(|above| above.starts_with("/// # Cancel safety")) {
            findings.push(file.finding(index + 1, format!("no `# Cancel safety`, and it waits: {line}")));
        }
    }
    findings
}

/// Whether these lines begin with the head of a public function that gives a future.
fn waits(lines: &[&str]) -> bool {
    let length = lines.iter().take(SIGNATURE).position(|line| line.ends_with(['{', '}', ';']));
    let mut head = lines.iter().take(length.map_or(SIGNATURE, |last| last + 1));
    lines[0].starts_with("pub async fn ")
        || (lines[0].starts_with("pub fn ") && head.any(|line| line.contains("-> impl Future<")))
}

/// Lines of the longest head of a function.
const SIGNATURE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        check(&Tree::sample(&[("grpcrouter-runtime/src/a.rs", text)])).len()
    }

    #[test]
    fn a_public_function_that_waits_tells_what_dropping_it_does() {
        assert_eq!(findings("/// Waits.\npub async fn f() {}"), 1);
        assert_eq!(findings("/// Waits.\npub fn f(\n    a: u8,\n) -> impl Future<Output = ()> {"), 1);
        assert_eq!(findings("/// Waits.\n///\n/// # Cancel safety\n/// Safe.\n#[inline]\npub async fn f() {}"), 0);
        assert_eq!(findings("async fn f() {}\npub fn g() {}\nfn h() -> impl Future<Output = ()> {"), 0);
    }
}
