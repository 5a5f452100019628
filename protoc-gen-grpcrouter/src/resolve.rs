//! Which Rust type prost makes of a protobuf message, for the plugin, which has no run of prost-build to ask.
//! Follows prost-build 0.14 `resolve_ident` and its table of well-known types.

use std::collections::BTreeMap;

use crate::{
    error::{Error, Faults, Problem},
    names,
};

/// Where types live in Rust that prost does not generate in this run.
#[derive(Debug)]
pub(crate) struct Resolver {
    extern_paths: BTreeMap<String, String>,
}

impl Resolver {
    pub(crate) fn new(extern_paths: &[(String, String)], compile_well_known_types: bool) -> Result<Self, Error> {
        let mut paths = BTreeMap::new();
        let mut faults = Faults::default();
        for (proto, rust) in extern_paths {
            if !proto.strip_prefix('.').is_some_and(names::is_full_ident) {
                let expected = "a full protobuf path that begins with '.'";
                faults.push(Problem::Parameter { name: "extern_path".to_owned(), expected, found: proto.clone() });
            } else if syn::parse_str::<syn::Type>(rust).is_err() {
                faults.push(Problem::Parameter {
                    name: "extern_path".to_owned(),
                    expected: "a Rust path",
                    found: rust.clone(),
                });
            } else if paths.insert(proto.clone(), rust.clone()).is_some() {
                faults.push(Problem::ParameterTwice { name: format!("extern_path={proto}") });
            }
        }
        if !compile_well_known_types {
            for (name, rust) in WELL_KNOWN {
                paths.entry((*name).to_owned()).or_insert_with(|| (*rust).to_owned());
            }
        }
        faults.or(Self { extern_paths: paths })
    }

    /// The type `full_name` (no leading dot) as code in the module of `package` names it.
    pub(crate) fn rust_type(&self, package: &str, full_name: &str) -> String {
        self.external(full_name).unwrap_or_else(|| relative(package, full_name))
    }

    fn external(&self, full_name: &str) -> Option<String> {
        let absolute = format!(".{full_name}");
        if let Some(rust) = self.extern_paths.get(&absolute) {
            return Some(rust.clone());
        }
        // The longest prefix that is known: modules below it, then the type.
        absolute.rmatch_indices('.').find_map(|(dot, _)| {
            let root = self.extern_paths.get(absolute.get(..dot)?)?;
            let mut below: Vec<&str> = absolute.get(dot + 1..)?.split('.').collect();
            let name = names::upper_camel(below.pop()?);
            let segments = root.split("::").enumerate().map(|(index, segment)| match segment {
                // A leading `::` or `crate` stays; any other segment is spelled as prost spells modules.
                "" => String::new(),
                "crate" if index == 0 => segment.to_owned(),
                _ => names::snake(segment),
            });
            Some(segments.chain(below.into_iter().map(names::snake)).chain([name]).collect::<Vec<_>>().join("::"))
        })
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            extern_paths: WELL_KNOWN.iter().map(|(proto, rust)| ((*proto).to_owned(), (*rust).to_owned())).collect(),
        }
    }
}

/// Up to where both part, `super` for each package left, then down to the type.
fn relative(package: &str, full_name: &str) -> String {
    let mut here = package.split('.').filter(|segment| !segment.is_empty()).peekable();
    let mut there: Vec<&str> = full_name.split('.').collect();
    let name = there.pop().unwrap_or_default();
    let mut there = there.into_iter().peekable();
    while here.peek().is_some() && here.peek() == there.peek() {
        here.next();
        there.next();
    }
    here.map(|_| "super".to_owned())
        .chain(there.map(names::snake))
        .chain([names::upper_camel(name)])
        .collect::<Vec<_>>()
        .join("::")
}

const WELL_KNOWN: &[(&str, &str)] = &[
    (".google.protobuf", "::prost_types"),
    (".google.protobuf.BoolValue", "bool"),
    (".google.protobuf.BytesValue", "::prost::alloc::vec::Vec<u8>"),
    (".google.protobuf.DoubleValue", "f64"),
    (".google.protobuf.Empty", "()"),
    (".google.protobuf.FloatValue", "f32"),
    (".google.protobuf.Int32Value", "i32"),
    (".google.protobuf.Int64Value", "i64"),
    (".google.protobuf.StringValue", "::prost::alloc::string::String"),
    (".google.protobuf.UInt32Value", "u32"),
    (".google.protobuf.UInt64Value", "u64"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn a_type_is_named_from_the_module_of_its_package() {
        let resolver = Resolver::default();
        for (package, full_name, rust) in [
            ("demo.v1", "demo.v1.Msg", "Msg"),
            ("demo.v1", "demo.v1.Msg.Inner", "msg::Inner"),
            ("demo.v1", "common.v1.page.Cursor", "super::super::common::v1::page::Cursor"),
            ("", "M", "M"),
            ("", "foo.type.M", "foo::r#type::M"),
            ("demo.v1", "M", "super::super::M"),
            ("p", "google.protobuf.Empty", "()"),
            ("p", "google.protobuf.Timestamp", "::prost_types::Timestamp"),
            ("p", "google.protobuf.Field.Kind", "::prost_types::field::Kind"),
        ] {
            assert_eq!(resolver.rust_type(package, full_name), rust, "{full_name} in {package}");
        }
    }

    #[test]
    fn an_extern_path_covers_what_is_below_it() {
        let paths = [
            (".other.v1".to_owned(), "crate::types::Other".to_owned()),
            (".one.M".to_owned(), "::one::Special".to_owned()),
        ];
        let resolver = Resolver::new(&paths, true).expect("fine paths");

        assert_eq!(resolver.rust_type("p", "other.v1.A.B"), "crate::types::other::a::B");
        assert_eq!(resolver.rust_type("p", "one.M"), "::one::Special");
        assert_eq!(resolver.rust_type("google", "google.protobuf.Empty"), "protobuf::Empty");
    }
}
