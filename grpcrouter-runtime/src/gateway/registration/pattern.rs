//! Patterns of names: `*` stands for any text, also none; all else for itself.

/// A name, or a pattern of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Pattern(String);

impl Pattern {
    /// Reads a pattern of services, instance ids or routing keys.
    pub(in crate::gateway) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty: write a name, or a pattern such as \"shop.*\"");
        }
        if text.len() > MAX_LENGTH {
            return Err("it is longer than 256 bytes, and no name is");
        }
        if text.chars().any(|char| char.is_control() || char.is_whitespace()) {
            return Err("it holds white space, which no name does: write several as a list");
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a pattern of URIs, whose scheme and authority are certain: who vouches for them is no question of patterns.
    pub(in crate::gateway) fn parse_uri(text: &str) -> Result<Self, &'static str> {
        let pattern = Self::parse(text)?;
        let authority = text.split_once("://").and_then(|(scheme, rest)| {
            let (authority, path) = rest.split_once('/')?;
            (!scheme.is_empty() && !authority.is_empty() && !path.is_empty()).then_some((scheme, authority))
        });
        match authority {
            None => Err("it is no URI with a path: write such as \"spiffe://hospital.example/site-a\""),
            Some((scheme, authority)) if scheme.contains('*') || authority.contains('*') => {
                Err("a `*` stands before the path: name the trust domain itself, as in \"spiffe://hospital.example/*\"")
            }
            Some(_) => Ok(pattern),
        }
    }

    /// Whether it stands for other names than its own text.
    pub(in crate::gateway) fn is_wild(&self) -> bool {
        self.0.contains('*')
    }

    pub(in crate::gateway) fn as_str(&self) -> &str {
        &self.0
    }

    pub(in crate::gateway) fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

/// As long as the longest name.
const MAX_LENGTH: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_all_else_for_itself() {
        for (pattern, name, fits) in [
            ("shop.Orders", "shop.Orders", true),
            ("shop.Orders", "shop.Orders2", false),
            ("shop.Orders", "xshop.Orders", false),
            ("shop.*", "shop.Orders", true),
            ("shop.*", "shop.v1.Orders", true),
            ("shop.*", "shop.", true),
            ("shop.*", "shopx.Orders", false),
            ("*", "", true),
            ("*", "anything", true),
            ("*-a", "site-a", true),
            ("*-a", "site-a-1", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("**", "x", true),
            ("shop.?", "shop.x", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_refused() {
        for text in ["", "a b", "a,\nb", &"x".repeat(257)] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_of_uris_names_its_trust_domain() {
        assert!(Pattern::parse_uri("spiffe://hospital.example/site-a").is_ok());
        assert!(Pattern::parse_uri("spiffe://hospital.example/*").unwrap().matches("spiffe://hospital.example/a/b"));
        for text in ["*", "site-a", "spiffe://*/site-a", "spiffe://hospital*", "*://x/y", "spiffe:///x", "spiffe://x/"]
        {
            assert!(Pattern::parse_uri(text).is_err(), "{text}");
        }
    }
}
