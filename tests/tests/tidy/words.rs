//! What no file may hold: names, words, lengths and paths.

use crate::rust::Source;
use crate::tree::{File, Finding, Tree};

/// Longer files hold two subjects.
const LONGEST: usize = 600;
/// The product in five steps; a newcomer reads it first.
const LONGEST_FORWARD: usize = 200;
const FORWARD: &str = "grpcrouter-runtime/src/gateway/forward.rs";

/// Words of code that must not follow each other anywhere.
const WORDS: &[(&[&str], &str)] = &[
    (&["#", "[", "ignore"], "a test that does not run tells nothing"),
    (&["todo", "!"], "finish it or leave it out"),
    (&["unimplemented", "!"], "finish it or leave it out"),
    (&["mod", "util"], "a room is named after what it does"),
    (&["mod", "utils"], "a room is named after what it does"),
    (&["mod", "helpers"], "a room is named after what it does"),
    (&["mod", "common"], "a room is named after what it does"),
];

/// Text that no file may hold. Cut in two, so that this one does not.
const TEXTS: &[(&str, &str)] = &[
    (concat!("/", "tmp/"), "a fixed path is not there on every machine"),
    (concat!("/", "work/"), "a fixed path is not there on every machine"),
    (concat!("/", "root/"), "a fixed path is not there on every machine"),
    (concat!("index.", "crates.io"), "the registry is the toolchain's matter"),
    (concat!("static.", "crates.io"), "the registry is the toolchain's matter"),
    (concat!("files.", "pythonhosted.org"), "the registry is pip's matter"),
    (concat!("pypi.", "org/simple"), "the registry is pip's matter"),
    (concat!("deb.", "debian.org"), "the archive is apt's matter"),
    (concat!("FIX", "ME"), "mend it or say in the changelog that it is not done"),
    (concat!("TO", "DO"), "do it or say in the changelog that it is not done"),
];

/// The endings of the files that somebody writes as text.
const TEXT_FILES: [&str; 13] = [
    ".rs",
    ".py",
    ".sh",
    ".md",
    ".toml",
    ".proto",
    ".txt",
    ".ini",
    ".yml",
    "Makefile",
    ".ci/run",
    ".ci/install-deps",
    ".editorconfig",
];

/// What a test that waits for a while must say.
const WAITS_BECAUSE: &str = "waits because ";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.path.ends_with("/mod.rs") {
            findings.push(file.finding(0, "mod.rs: a module is name.rs beside name/"));
        }
        if TEXT_FILES.iter().any(|ending| file.path.ends_with(ending)) && !file.is_generated() {
            texts(file, &mut findings);
            waits_in_scripts(file, &mut findings);
        }
    }
    for (file, source) in tree.written() {
        length(file, &mut findings);
        header(file, &mut findings);
        for (words, because) in WORDS {
            findings.extend(
                source.find(words).map(|token| file.finding(token.line, format!("{}: {because}", words.join("")))),
            );
        }
        waits(file, source, &mut findings);
    }
    findings
}

fn texts(file: &File, findings: &mut Vec<Finding>) {
    for (number, line) in file.text.lines().enumerate() {
        for (text, because) in TEXTS.iter().filter(|(text, _)| holds(line, text)) {
            findings.push(file.finding(number + 1, format!("{text}: {because}")));
        }
    }
}

/// Whether the text stands in the line as a word or path of its own: not as the end of a longer one.
fn holds(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + text.len()..].chars().next();
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
        !word(before) && !before.is_some_and(|c| c == '.' || c == '}') && (text.ends_with('/') || !word(after))
    })
}

fn length(file: &File, findings: &mut Vec<Finding>) {
    let limit = if file.path == FORWARD { LONGEST_FORWARD } else { LONGEST };
    let lines = file.text.lines().count();
    if lines > limit {
        findings.push(file.finding(lines, format!("{lines} lines, at most {limit}: look for the second subject")));
    }
}

fn header(file: &File, findings: &mut Vec<Finding>) {
    if !file.text.trim_start().starts_with("//!") {
        findings.push(file.finding(1, "begins without //! that says what the file is for"));
    }
}

fn waits(file: &File, source: &Source, findings: &mut Vec<Finding>) {
    let lines: Vec<&str> = file.text.lines().collect();
    for pair in source.tokens.windows(2).filter(|pair| pair[1].text == "(") {
        let sleeps = matches!(pair[0].text.as_str(), "sleep" | "sleep_until");
        if sleeps && (pair[0].test || file.is_test()) && !says_why(&lines, pair[0].line) {
            findings.push(file.finding(
                pair[0].line,
                "a test sleeps and hopes: wait for what happens, or say `// waits because ...`",
            ));
        }
    }
}

fn waits_in_scripts(file: &File, findings: &mut Vec<Finding>) {
    let script = [".py", ".sh"].iter().any(|ending| file.path.ends_with(ending));
    let lines: Vec<&str> = file.text.lines().collect();
    for (number, line) in lines.iter().enumerate().filter(|_| script && file.is_test()) {
        let code = line.trim_start();
        let sleeps = code.contains("time.sleep(") || code.starts_with("sleep ") || code.contains("; sleep ");
        if sleeps && !code.starts_with('#') && !says_why(&lines, number + 1) {
            findings.push(
                file.finding(
                    number + 1,
                    "a test sleeps and hopes: wait for what happens, or say `# waits because ...`",
                ),
            );
        }
    }
}

/// On the line itself, or in a comment on the line above.
fn says_why(lines: &[&str], number: usize) -> bool {
    let above = number.checked_sub(2).and_then(|at| lines.get(at)).is_some_and(|line| {
        let line = line.trim_start();
        (line.starts_with("//") || line.starts_with('#')) && line.contains(WAITS_BECAUSE)
    });
    above || lines.get(number - 1).is_some_and(|line| line.contains(WAITS_BECAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(path: &str, text: &str) -> Vec<String> {
        check(&Tree::sample(&[(path, text)])).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_clean_file_has_nothing_against_it() {
        assert_eq!(breaches("a/src/b.rs", "//! What b is for.\n\nfn f() {}\n"), [""; 0]);
    }

    #[test]
    fn a_file_without_a_purpose_or_with_two_subjects_is_found() {
        assert_eq!(breaches("a/src/b.rs", "fn f() {}\n").len(), 1);
        let long = |lines: usize| format!("//! b\n{}", "fn f() {}\n".repeat(lines - 1));
        assert_eq!(breaches("a/src/b.rs", &long(LONGEST)).len(), 0);
        assert_eq!(breaches("a/src/b.rs", &long(LONGEST + 1)).len(), 1);
        assert_eq!(breaches(FORWARD, &long(LONGEST_FORWARD + 1)).len(), 1);
        assert_eq!(breaches("a/src/generated/b.rs", &long(LONGEST + 1)).len(), 0);
    }

    #[test]
    fn unfinished_and_switched_off_code_is_found_but_not_in_comments_and_strings() {
        for bad in [
            "#[ignore]\nfn t() {}",
            "#[ignore = \"slow\"]\nfn t() {}",
            "fn f() { todo!() }",
            "fn f() { unimplemented!(\"x\") }",
            "mod util;",
        ] {
            assert_eq!(breaches("a/src/b.rs", &format!("//! b\n{bad}")).len(), 1, "{bad}");
        }
        assert_eq!(breaches("a/src/b.rs", "//! b\n// todo!() is refused\nconst A: &str = \"#[ignore]\";"), [""; 0]);
        assert_eq!(breaches("a/src/b/mod.rs", "//! b").len(), 1);
    }

    #[test]
    fn fixed_paths_and_registries_are_found_in_any_text() {
        for (path, text) in [
            ("a/src/b.rs", concat!("//! b\nconst A: &str = \"/", "tmp/x\";")),
            ("README.md", concat!("see /", "work/main")),
            ("run.sh", concat!("curl https://static.", "crates.io/x")),
            ("Makefile", concat!("# TO", "DO later")),
        ] {
            assert_eq!(breaches(path, text).len(), 1, "{path}");
        }
        assert_eq!(breaches("README.md", concat!("target/", "tmp/x and $dir/", "tmp/x")), [""; 0]);
    }

    #[test]
    fn a_test_that_sleeps_says_why() {
        let sleeps = "//! b\nfn t() {\n    std::thread::sleep(D);\n}";
        assert_eq!(breaches("a/tests/b.rs", sleeps).len(), 1);
        assert_eq!(breaches("a/src/b.rs", sleeps).len(), 0);
        assert_eq!(
            breaches("a/src/b.rs", "//! b\n#[cfg(test)]\nmod tests { async fn t() { sleep(D).await; } }").len(),
            1
        );
        assert_eq!(
            breaches(
                "a/tests/b.rs",
                "//! b\nfn t() {\n    sleep(D); // waits because the peer is silent on purpose\n}"
            )
            .len(),
            0
        );
        assert_eq!(breaches("tests/a.py", "time.sleep(1)").len(), 1);
        assert_eq!(breaches("tests/a.py", "# waits because nothing must come\ntime.sleep(1)").len(), 0);
        assert_eq!(breaches("tests/a.sh", "sleep 1").len(), 1);
    }
}
