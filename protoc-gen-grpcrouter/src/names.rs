//! How protobuf names become Rust names: exactly as prost-build 0.14 and tonic-build 0.14 spell them.
//! Both keep these functions private, so they are written again here; tests compare them with what those crates write.

use heck::{ToSnakeCase, ToUpperCamelCase};

/// A protobuf identifier: `[A-Za-z_][A-Za-z0-9_]*`.
pub(crate) fn is_ident(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Identifiers joined by dots, without a leading dot.
pub(crate) fn is_full_ident(name: &str) -> bool {
    name.split('.').all(is_ident)
}

/// The name of a method or module.
pub(crate) fn snake(name: &str) -> String {
    sanitize(name.to_snake_case())
}

/// The name of a message or service.
pub(crate) fn upper_camel(name: &str) -> String {
    sanitize(name.to_upper_camel_case())
}

/// The stem of the modules `_client`, `_server` and `_router` of a service with this Rust name. It is not
/// snake case as heck makes it: an underscore stands before every capital, so `HttpV2api` gives `http_v2api`.
pub(crate) fn module_stem(rust_name: &str) -> String {
    let mut stem = String::with_capacity(rust_name.len() + 4);
    let mut chars = rust_name.chars().peekable();
    while let Some(c) = chars.next() {
        stem.push(c.to_ascii_lowercase());
        if chars.peek().is_some_and(|next| next.is_uppercase()) {
            stem.push('_');
        }
    }
    stem
}

/// The directory of a package, `foo.type.v1` in `foo/r#type/v1/`, as protoc-gen-prost makes it.
pub(crate) fn package_dir(package: &str) -> String {
    package.split('.').filter(|segment| !segment.is_empty()).map(|segment| snake(segment) + "/").collect()
}

fn sanitize(name: String) -> String {
    if KEYWORDS.contains(&name.as_str()) {
        format!("r#{name}")
    } else if NEVER_RAW.contains(&name.as_str()) {
        format!("{name}_")
    } else if name.starts_with(|first: char| first.is_numeric()) {
        format!("_{name}")
    } else {
        name
    }
}

/// Keywords that may be written raw, those reserved for later among them.
const KEYWORDS: &[&str] = &[
    "as", "break", "const", "continue", "else", "enum", "false", "fn", "for", "if", "impl", "in", "let", "loop",
    "match", "mod", "move", "mut", "pub", "ref", "return", "static", "struct", "trait", "true", "type", "unsafe",
    "use", "where", "while", "dyn", "abstract", "become", "box", "do", "final", "macro", "override", "priv", "typeof",
    "unsized", "virtual", "yield", "async", "await", "try", "gen",
];

/// Keywords that `r#` does not help.
const NEVER_RAW: &[&str] = &["_", "super", "self", "Self", "extern", "crate"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_stem_is_tonics_and_not_snake_case() {
        for (proto, rust, stem) in [
            ("MyService", "MyService", "my_service"),
            ("HTTPAdminV2API", "HttpAdminV2api", "http_admin_v2api"),
            ("greeter", "Greeter", "greeter"),
            ("Self", "Self_", "self_"),
        ] {
            assert_eq!(upper_camel(proto), rust);
            assert_eq!(module_stem(rust), stem);
        }
    }

    #[test]
    fn keywords_are_escaped_as_prost_escapes_them() {
        assert_eq!(snake("Type"), "r#type");
        assert_eq!(snake("Gen"), "r#gen");
        assert_eq!(snake("Self"), "self_");
        assert_eq!(snake("GetHTTP2Info"), "get_http2_info");
        assert_eq!(package_dir("foo.type.v1"), "foo/r#type/v1/");
        assert_eq!(package_dir(""), "");
    }

    #[test]
    fn a_protobuf_name_has_no_path_in_it() {
        assert!(is_full_ident("a.b_1.C"));
        for bad in ["", "a/b", "..", "a..b", "1a", "a b", "é"] {
            assert!(!is_full_ident(bad), "{bad}");
        }
    }
}
