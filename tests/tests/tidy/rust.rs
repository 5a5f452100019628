//! A small scanner of Rust: words without comments and strings, which of them are test code, and the paths that they
//! name, made absolute. It knows as much of the language as the rules need.

use std::collections::{BTreeMap, BTreeSet};

/// What one file says.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) tokens: Vec<Token>,
    pub(crate) mentions: Vec<Mention>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    /// A word, `::`, one sign, or `""` for any string.
    pub(crate) text: String,
    pub(crate) line: usize,
    /// In an item under `#[cfg(test)]`.
    pub(crate) test: bool,
}

/// A path that the code names: `crate::…` for the file's own crate, else it begins with the name of a crate, or of
/// something local that the scanner does not know.
#[derive(Debug, PartialEq)]
pub(crate) struct Mention {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) test: bool,
}

pub(crate) fn scan(path: &str, text: &str) -> Source {
    let mut tokens = tokens(text);
    mark_tests(&mut tokens);
    let mentions = Paths::of(path, &tokens).read();
    Source { tokens, mentions }
}

impl Source {
    /// Where these words stand one after the other.
    pub(crate) fn find<'a>(&'a self, words: &'a [&'a str]) -> impl Iterator<Item = &'a Token> {
        self.tokens
            .windows(words.len())
            .filter(move |window| window.iter().zip(words).all(|(token, word)| token.text == **word))
            .map(|window| &window[0])
    }
}

/// The module of a file in its crate; a root has none.
fn module_of(path: &str) -> Vec<String> {
    let inner = match path.split_once("src/") {
        Some((_, inner)) if !inner.starts_with("bin/") => inner.trim_end_matches(".rs"),
        _ => return Vec::new(),
    };
    if inner == "lib" || inner == "main" { Vec::new() } else { inner.split('/').map(String::from).collect() }
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut i, mut line, mut found) = (0, 1, Vec::new());
    while i < chars.len() {
        let start = i;
        let mut word = String::new();
        match at(i) {
            '/' if at(i + 1) == '/' => i = skip_while(&chars, i, |c| c != '\n'),
            '/' if at(i + 1) == '*' => i = skip_comment(&chars, i),
            '"' => (i, word) = (skip_string(&chars, i), "\"\"".into()),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i = if at(i + 1) == '\\' { skip_while(&chars, i + 3, |c| c != '\'') + 1 } else { i + 3 };
            }
            '\'' => i = skip_while(&chars, i + 1, is_word),
            ':' if at(i + 1) == ':' => (i, word) = (i + 2, "::".into()),
            c if is_word(c) => {
                i = skip_while(&chars, i, is_word);
                word = chars[start..i].iter().collect();
                let hashes = skip_while(&chars, i, |c| c == '#') - i;
                let prefix = matches!(word.as_str(), "r" | "br" | "cr" | "b" | "c");
                if prefix && at(i + hashes) == '"' {
                    i = if word.contains('r') { skip_raw(&chars, i + hashes, hashes) } else { skip_string(&chars, i) };
                    word = "\"\"".into();
                } else if word == "b" && at(i) == '\'' {
                    // The value of a byte: the quote is read as a character next.
                    word.clear();
                } else if word == "r" && hashes == 1 {
                    i = skip_while(&chars, i + 1, is_word);
                    word = chars[start + 2..i].iter().collect();
                }
            }
            c if c.is_whitespace() => i += 1,
            c => (i, word) = (i + 1, c.to_string()),
        }
        if !word.is_empty() {
            found.push(Token { text: word, line, test: false });
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn skip_while(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|i| !wanted(chars[*i])).unwrap_or(chars.len())
}

fn skip_comment(chars: &[char], from: usize) -> usize {
    let (mut i, mut depth) = (from + 2, 1);
    while depth > 0 && i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (i, depth) = (i + 2, depth + 1),
            ('*', Some('/')) => (i, depth) = (i + 2, depth - 1),
            _ => i += 1,
        }
    }
    i
}

fn skip_string(chars: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn skip_raw(chars: &[char], quote: usize, hashes: usize) -> usize {
    let ends = |i: &usize| chars[*i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    (quote + 1..chars.len()).find(ends).map_or(chars.len(), |i| i + 1 + hashes)
}

/// The position after what the sign at `open` opens.
fn skip_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

fn mark_tests(tokens: &mut [Token]) {
    let word = |tokens: &[Token], i: usize| tokens.get(i).map_or(String::new(), |token| token.text.clone());
    let mut i = 0;
    while i < tokens.len() {
        let attribute = word(tokens, i) == "#" && word(tokens, i + 1) == "[" && word(tokens, i + 2) == "cfg";
        let end = if attribute { skip_group(tokens, i + 1) } else { i + 1 };
        let says = |name: &str| tokens[i..end].iter().any(|token| token.text == name);
        if attribute && says("test") && !says("not") {
            let open = (end..tokens.len()).find(|at| matches!(tokens[*at].text.as_str(), "{" | ";")).unwrap_or(end);
            let close = if word(tokens, open) == "{" { skip_group(tokens, open) } else { open };
            tokens[i..close].iter_mut().for_each(|token| token.test = true);
        }
        i = end;
    }
}

struct Paths<'a> {
    tokens: &'a [Token],
    module: Vec<String>,
    children: BTreeSet<String>,
    /// What `use` brought in, under the name that it has here.
    names: BTreeMap<String, String>,
    found: Vec<Mention>,
}

impl<'a> Paths<'a> {
    fn of(path: &str, tokens: &'a [Token]) -> Self {
        let modules = tokens.windows(3).filter(|t| t[0].text == "mod" && t[2].text == ";");
        let children = modules.map(|t| t[1].text.clone()).collect();
        Self { tokens, module: module_of(path), children, names: BTreeMap::new(), found: Vec::new() }
    }

    fn word(&self, i: usize) -> &'a str {
        self.tokens.get(i).map_or("", |token| token.text.as_str())
    }

    fn read(mut self) -> Vec<Mention> {
        let mut inline: Vec<usize> = Vec::new();
        let (mut i, mut depth) = (0, 0);
        while i < self.tokens.len() {
            let before = if i == 0 { ";" } else { self.word(i - 1) };
            match self.word(i) {
                "{" => (i, depth) = (i + 1, depth + 1),
                "}" => {
                    depth -= 1;
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        self.module.pop();
                    }
                    i += 1;
                }
                "mod" if self.word(i + 2) == "{" => {
                    inline.push(depth);
                    self.module.push(self.word(i + 1).to_owned());
                    i += 2;
                }
                // What a macro quotes is the text of another program.
                "quote" | "quote_spanned" | "parse_quote" if self.word(i + 1) == "!" => {
                    i = skip_group(self.tokens, i + 2)
                }
                "use" if matches!(before, ";" | "{" | "}" | "]" | "pub" | ")") => {
                    i += 1;
                    let global = self.word(i) == "::";
                    i = self.read_use(i + usize::from(global), &[], global);
                }
                word if word.starts_with(is_word) && self.word(i + 1) == "::" && before != "." => {
                    let (start, global) = (i, before == "::");
                    let mut path = vec![word.to_owned()];
                    i += 1;
                    while self.word(i) == "::" && self.word(i + 1).starts_with(is_word) {
                        path.push(self.word(i + 1).to_owned());
                        i += 2;
                    }
                    // After "::<…>" the path goes on, but its beginning has been told.
                    self.mention(start, path, global, false);
                }
                _ => i += 1,
            }
        }
        self.found
    }

    /// One branch of a use tree; returns the position after it.
    fn read_use(&mut self, mut i: usize, prefix: &[String], global: bool) -> usize {
        let start = i;
        let mut path = prefix.to_vec();
        loop {
            match self.word(i) {
                "{" => {
                    let end = skip_group(self.tokens, i);
                    i += 1;
                    while i + 1 < end {
                        // The comma after an inner group.
                        i = if self.word(i) == "," { i + 1 } else { self.read_use(i, &path, global) };
                    }
                    return end;
                }
                "::" => i += 1,
                "as" => {
                    self.mention(start, path.clone(), global, false);
                    self.names.insert(self.word(i + 1).to_owned(), self.absolute(path, global));
                    return i + 3;
                }
                "self" if !path.is_empty() => i += 1,
                word if word == "*" || word.starts_with(is_word) => {
                    path.push(word.to_owned());
                    i += 1;
                }
                _ => {
                    self.mention(start, path, global, true);
                    return i + 1;
                }
            }
        }
    }

    fn mention(&mut self, at: usize, path: Vec<String>, global: bool, named: bool) {
        let Token { line, test, .. } = self.tokens[at];
        let last = path.last().cloned().unwrap_or_default();
        let path = self.absolute(path, global);
        if named {
            self.names.insert(last, path.clone());
        }
        self.found.push(Mention { path, line, test });
    }

    fn absolute(&self, path: Vec<String>, global: bool) -> String {
        let (head, rest) = match path.split_first() {
            Some((head, rest)) if !global => (head.as_str(), rest),
            _ => return path.join("::"),
        };
        let mut base = vec!["crate".to_owned()];
        let mut rest = rest.to_vec();
        match head {
            "crate" => {}
            "self" | "super" => {
                let mut module = self.module.clone();
                if head == "super" {
                    module.pop();
                }
                while rest.first().is_some_and(|word| word == "super") {
                    rest.remove(0);
                    module.pop();
                }
                base.extend(module);
            }
            child if self.children.contains(child) => {
                base.extend(self.module.iter().cloned());
                base.push(child.to_owned());
            }
            name => base = vec![self.names.get(name).cloned().unwrap_or_else(|| name.to_owned())],
        }
        base.extend(rest);
        base.join("::")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    fn paths(path: &str, text: &str) -> Vec<String> {
        scan(path, text).mentions.into_iter().map(|mention| mention.path).collect()
    }

    #[test]
    fn comments_and_strings_are_no_words() {
        let text = "a // b\n/* c /* d */ e */ f \"g \\\" h\" r#\"i \" j\"# b\"k\" 'l' '\\'' b'm' &'n o r#type";
        assert_eq!(words(text), ["a", "f", "\"\"", "\"\"", "\"\"", "&", "o", "type"]);
    }

    #[test]
    fn lines_are_counted_across_strings_and_comments() {
        let found = tokens("a\n\"\n\"\n/*\n*/ b\nc");
        let lines: Vec<_> = found.iter().map(|token| (token.text.as_str(), token.line)).collect();
        assert_eq!(lines, [("a", 1), ("\"\"", 2), ("b", 5), ("c", 6)]);
    }

    #[test]
    fn what_stands_under_cfg_test_is_test_code() {
        let source = scan("src/a.rs", "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\n#[cfg(not(test))]\nfn c() {}");
        let test = |word: &str| source.tokens.iter().find(|token| token.text == word).is_some_and(|token| token.test);
        assert_eq!([test("a"), test("b"), test("c")], [false, true, false]);
    }

    #[test]
    fn a_use_tree_names_all_its_paths() {
        let text = "use crate::{a::{self, B}, c as d};\npub(crate) use std::time::*;\nfn f() { d::E::new(); }";
        assert_eq!(
            paths("x/src/m.rs", text),
            ["crate::a", "crate::a::B", "crate::c", "std::time::*", "crate::c::E::new"]
        );
    }

    #[test]
    fn relative_paths_begin_at_the_module_they_stand_in() {
        let text = "mod e;\nuse super::f;\nuse e::G;\nmod tests { use super::h; fn t() { super::super::k::L::m(); } }\nuse self::n::O;";
        let expected = ["crate::a::f", "crate::a::b::e::G", "crate::a::b::h", "crate::a::k::L::m", "crate::a::b::n::O"];
        assert_eq!(paths("x/src/a/b.rs", text), expected);
    }

    #[test]
    fn a_module_that_was_brought_in_keeps_its_full_name() {
        assert_eq!(
            paths("x/src/a.rs", "use std::time;\nfn f() { time::Instant::now(); }"),
            ["std::time", "std::time::Instant::now"]
        );
    }

    #[test]
    fn quoted_code_is_not_this_programs_code() {
        assert_eq!(
            paths("x/src/a.rs", "fn f() { quote! { ::other::Thing::new() } }\nfn g() { ::other::h(); }"),
            ["other::h"]
        );
    }
}
