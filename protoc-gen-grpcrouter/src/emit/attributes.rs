//! Attributes that the user asks for, on the modules of routers or on the routers themselves.
//! A pattern means what it means for prost: `.` everything, `.pkg` all below it, `pkg.Service` or `Service` that name.

use syn::{Attribute, parse::Parser};

use crate::error::Problem;

/// Attributes and the services that get them, in the order in which they were given.
#[derive(Clone, Default)]
pub(crate) struct Attributes(Vec<(String, Vec<Attribute>)>);

impl Attributes {
    /// Adds `text`, one or more outer attributes, to the services that `pattern` matches.
    pub(crate) fn add(&mut self, name: &'static str, pattern: &str, text: &str) -> Result<(), Problem> {
        let fits = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c == '=');
        match Attribute::parse_outer.parse_str(text) {
            Ok(attributes) if !attributes.is_empty() && fits(pattern) => {
                self.0.push((pattern.to_owned(), attributes));
                Ok(())
            }
            _ => Err(Problem::Parameter {
                name: name.to_owned(),
                expected: "a pattern, '=' and an attribute, such as .=#[cfg(feature = \"router\")]",
                found: format!("{pattern}={text}"),
            }),
        }
    }

    /// Those of the service with this full name.
    pub(super) fn of(&self, service: &str) -> Vec<&Attribute> {
        self.0.iter().filter(|(pattern, _)| matches(pattern, service)).flat_map(|(_, attributes)| attributes).collect()
    }
}

fn matches(pattern: &str, service: &str) -> bool {
    match pattern.strip_prefix('.') {
        Some("") => true,
        Some(prefix) => service.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        None => service.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_all_a_package_or_a_name() {
        for (pattern, fits) in [
            (".", true),
            (".a", true),
            (".a.b", true),
            (".a.b.S", true),
            ("S", true),
            ("b.S", true),
            ("a.b.S", true),
            (".b", false),
            (".a.bb", false),
            ("a.b", false),
            (".a.b.SS", false),
            ("bS", false),
        ] {
            assert_eq!(matches(pattern, "a.b.S"), fits, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_attribute_is_refused() {
        let mut attributes = Attributes::default();
        for (pattern, text) in [(".", "cfg(test)"), (".", ""), ("", "#[cfg(test)]"), (".", "#![cfg(test)]")] {
            let refused = attributes.add("router_attribute", pattern, text);
            assert!(
                matches!(&refused, Err(problem) if problem.to_string().starts_with("parameter router_attribute: expected a pattern, '='")),
                "{pattern}={text}"
            );
        }
        assert!(attributes.of("a.S").is_empty());
    }
}
