//! Proto comments as rustdoc that can neither become a doctest nor break `cargo doc`.
//! Proto comments are written for other languages: their code is not Rust and their brackets are no links.

use proc_macro2::TokenStream;
use quote::quote;

/// A blank line and the comment, as attributes; nothing for a comment that is not there.
pub(super) fn attributes(comment: &[String]) -> TokenStream {
    if comment.is_empty() {
        return TokenStream::new();
    }
    let lines = lines(comment);
    let lines = std::iter::once(String::new()).chain(lines.iter().map(|line| match line.as_str() {
        "" => String::new(),
        line => format!(" {line}"),
    }));
    lines.map(|line| quote!(#[doc = #line])).collect()
}

/// Where in the comment we are.
enum Inside {
    Prose,
    /// An indented block, which we fence.
    Indented,
    /// The comment's own fence: this character, at least so many.
    Fence(char, usize),
}

/// The comment as markdown in which every block of code is `text` and every block is closed.
fn lines(comment: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut inside = Inside::Prose;
    for line in comment {
        let line = visible(line);
        let line = line.strip_prefix(' ').unwrap_or(&line).trim_end();
        if let Inside::Fence(mark, length) = inside {
            out.push(line.to_owned());
            if let Some((closing, run, "")) = fence(line)
                && closing == mark
                && run >= length
            {
                inside = Inside::Prose;
            }
            continue;
        }
        let indented = line.starts_with("    ") || line.starts_with('\t');
        if matches!(inside, Inside::Indented) {
            if indented || line.is_empty() {
                out.push(inert(line.strip_prefix("    ").unwrap_or(line)));
                continue;
            }
            out.push(FENCE.to_owned());
            inside = Inside::Prose;
        }
        if indented {
            out.push(format!("{FENCE}text"));
            out.push(inert(line.strip_prefix("    ").unwrap_or(line)));
            inside = Inside::Indented;
        } else if let Some((mark, length, _)) = fence(line) {
            // Whatever language it names, rustdoc would take an unknown one for Rust.
            out.push(format!("{}text", mark.to_string().repeat(length)));
            inside = Inside::Fence(mark, length);
        } else {
            out.push(prose(line));
        }
    }
    match inside {
        Inside::Prose => {}
        Inside::Indented => out.push(FENCE.to_owned()),
        Inside::Fence(mark, length) => out.push(mark.to_string().repeat(length)),
    }
    out
}

/// The line without what rustc refuses in a comment: a carriage return, or characters that turn the direction of text.
fn visible(line: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = line.chars().filter(|c| !turns(*c));
    shown.map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

/// The mark, the length and the rest of a line that opens or closes a fence.
fn fence(line: &str) -> Option<(char, usize, &str)> {
    let line = line.trim();
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let rest = line.trim_start_matches(mark);
    let length = line.len().saturating_sub(rest.len());
    (length >= FENCE.len()).then_some((mark, length, rest))
}

/// Code in our own fence must not close it.
fn inert(line: &str) -> String {
    line.replace(FENCE, "` ` `")
}

/// Brackets are no links, angles no HTML, and a bare address is one.
fn prose(line: &str) -> String {
    let escaped = |word: &str| word.replace('[', "\\[").replace(']', "\\]").replace('<', "\\<");
    let is_address = |word: &str| word.starts_with("https://") || word.starts_with("http://");
    let words = line.split(' ').map(|word| match word.trim_end_matches(['.', ',', ';', ')', '>']) {
        address if is_address(address) && !address.contains(['<', '>']) => {
            let rest = word.strip_prefix(address).unwrap_or_default();
            format!("<{address}>{rest}")
        }
        _ => escaped(word),
    });
    words.collect::<Vec<_>>().join(" ")
}

const FENCE: &str = "```";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(comment: &str) -> String {
        lines(&comment.lines().map(str::to_owned).collect::<Vec<_>>()).join("\n")
    }

    #[test]
    fn prose_keeps_its_words_and_loses_its_links() {
        assert_eq!(
            text(" It has [all] four <kinds>.\n See https://example.com/x. (And <http://y>)"),
            "It has \\[all\\] four \\<kinds>.\nSee <https://example.com/x>. (And \\<http://y>)"
        );
    }

    #[test]
    fn no_block_of_code_is_rust() {
        assert_eq!(
            text(" Use:\n\n     let x = {\n\n done\n ```\n fn f() {}\n ```\n ~~~js\n x\n ~~~"),
            "Use:\n\n```text\nlet x = {\n\n```\ndone\n```text\nfn f() {}\n```\n~~~text\nx\n~~~"
        );
    }

    #[test]
    fn an_open_block_is_closed() {
        assert_eq!(text(" ````rust\n x\n ```"), "````text\nx\n```\n````");
        assert_eq!(text("     x ``` y"), "```text\nx ` ` ` y\n```");
    }

    #[test]
    fn what_rustc_refuses_in_a_comment_is_left_out() {
        assert_eq!(text(" a\rb \u{202e}c\u{2069}\0."), "a b c .");
    }

    #[test]
    fn no_comment_gives_no_attribute() {
        assert!(attributes(&[]).is_empty());
    }
}
