//! The parameters of the protoc plugin (`--grpcrouter_opt`), named as protoc-gen-prost and -tonic name theirs.
//! All that are wrong are told at once; an unknown one names the known.

use std::collections::HashSet;

use crate::{
    emit::Style,
    error::{Error, Faults, Problem},
    resolve::Resolver,
    routes::Routes,
};

/// The parameters, checked.
pub(crate) struct Params {
    pub(crate) layout: Layout,
    pub(crate) style: Style,
    pub(crate) resolver: Resolver,
    pub(crate) routes: Routes,
}

/// Which files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) paths: Paths,
    /// Asks for `include!` of the file in the file that protoc-gen-prost wrote in the same run.
    pub(crate) insert_include: bool,
    pub(crate) flat_output_dir: bool,
    /// The base name for protos without a package, taken as it is.
    pub(crate) default_package_filename: String,
}

/// How output files are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paths {
    /// One file for each package, beside the one of protoc-gen-prost.
    Package,
    /// One file for each proto file, in the same directory.
    SourceRelative,
}

impl Params {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let mut params = Self {
            layout: Layout {
                paths: Paths::Package,
                insert_include: false,
                flat_output_dir: false,
                default_package_filename: "_".to_owned(),
            },
            style: Style::default(),
            resolver: Resolver::default(),
            routes: Routes::default(),
        };
        let mut extern_paths = Vec::new();
        let mut compile_well_known_types = false;
        let mut faults = Faults::default();
        let mut seen = HashSet::new();

        for part in split(text) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (part.as_str(), None),
            };
            if !REPEATABLE.contains(&name) && !seen.insert(name.to_owned()) {
                faults.push(Problem::ParameterTwice { name: name.to_owned() });
                continue;
            }
            let style = &mut params.style;
            let layout = &mut params.layout;
            let server_trait = &mut style.server_trait;
            let result = match name {
                "paths" => paths(name, value).map(|value| layout.paths = value),
                "insert_include" => flag(name, value).map(|value| layout.insert_include = value),
                "flat_output_dir" => flag(name, value).map(|value| layout.flat_output_dir = value),
                "default_package_filename" => {
                    file_name(name, value).map(|value| layout.default_package_filename = value)
                }
                "gateway" => flag(name, value).map(|value| style.gateway = value),
                "no_client" => flag(name, value).map(|value| style.client = !value),
                "no_server" => flag(name, value).map(|value| style.server = !value),
                "use_arc_self" => flag(name, value).map(|value| server_trait.arc_self = value),
                "generate_default_stubs" => flag(name, value).map(|value| server_trait.boxed_streams = value),
                "router_mod_attribute" => {
                    let (pattern, attribute) = pair(value);
                    style.module_attributes.add("router_mod_attribute", pattern, attribute)
                }
                "router_attribute" => {
                    let (pattern, attribute) = pair(value);
                    style.router_attributes.add("router_attribute", pattern, attribute)
                }
                "route" => {
                    let (service, text) = pair(value);
                    faults.take(params.routes.add(service, text));
                    Ok(())
                }
                "runtime_path" => rust_path(name, value).map(|value| style.runtime_path = value),
                "codec_path" => rust_path(name, value).map(|value| style.codec_path = value),
                "proto_path" => rust_path(name, value).map(|value| style.proto_path = value),
                "compile_well_known_types" => flag(name, value).map(|value| compile_well_known_types = value),
                "extern_path" => extern_path(name, value).map(|value| extern_paths.push(value)),
                unknown => Err(unknown_parameter(unknown)),
            };
            if let Err(problem) = result {
                faults.push(problem);
            }
        }
        check_together(&params.layout, &mut faults);
        if let Some(resolver) = faults.take(Resolver::new(&extern_paths, compile_well_known_types)) {
            params.resolver = resolver;
        }
        faults.or(params)
    }
}

fn check_together(layout: &Layout, faults: &mut Faults) {
    if layout.paths == Paths::SourceRelative {
        let pairs = [
            (
                layout.insert_include,
                "insert_include",
                "the file of the package is in another directory; include! the file where you want it",
            ),
            (layout.flat_output_dir, "flat_output_dir", "the files keep the directories of their proto files"),
        ];
        for (given, name, why) in pairs {
            if given {
                faults.push(Problem::ParametersDisagree { name, other: "paths=source_relative", why });
            }
        }
    }
}

/// Splits at commas; `\,` is a comma and `\\` a backslash inside of a value.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(last) = parts.last_mut() else { break };
        match c {
            '\\' => match chars.next_if(|next| matches!(next, ',' | '\\')) {
                Some(escaped) => last.push(escaped),
                None => last.push(c),
            },
            ',' => parts.push(String::new()),
            c => last.push(c),
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// With the one that was meant, if the name is only misspelt.
fn unknown_parameter(name: &str) -> Problem {
    let plain = |name: &str| name.replace('-', "_").to_ascii_lowercase();
    let distance = |known: &&&str| strsim::damerau_levenshtein(&plain(name), known);
    let nearest = KNOWN.iter().filter(|known| distance(known) <= known.len() / 3).min_by_key(distance);
    let hint = nearest.map(|known| format!(" (did you mean {known:?}?)")).unwrap_or_default();
    Problem::UnknownParameter { name: name.to_owned(), hint, known: KNOWN.join(", ") }
}

fn wrong(name: &str, expected: &'static str, found: Option<&str>) -> Problem {
    Problem::Parameter { name: name.to_owned(), expected, found: found.unwrap_or_default().to_owned() }
}

fn flag(name: &str, value: Option<&str>) -> Result<bool, Problem> {
    match value {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        other => Err(wrong(name, "true or false", other)),
    }
}

fn paths(name: &str, value: Option<&str>) -> Result<Paths, Problem> {
    match value {
        Some("source_relative") => Ok(Paths::SourceRelative),
        Some("package") => Ok(Paths::Package),
        other => Err(wrong(
            name,
            "source_relative (a file for each proto file) or package (a file for each package, the default)",
            other,
        )),
    }
}

fn file_name(name: &str, value: Option<&str>) -> Result<String, Problem> {
    match value {
        Some(text) if !text.is_empty() && !text.contains(['/', '\\']) && text != ".." => Ok(text.to_owned()),
        other => Err(wrong(name, "a file name", other)),
    }
}

fn rust_path(name: &str, value: Option<&str>) -> Result<syn::Path, Problem> {
    value.and_then(|text| syn::parse_str(text).ok()).ok_or_else(|| wrong(name, "a Rust path", value))
}

fn extern_path(name: &str, value: Option<&str>) -> Result<(String, String), Problem> {
    value
        .and_then(|text| text.split_once('='))
        .map(|(proto, rust)| (proto.to_owned(), rust.to_owned()))
        .ok_or_else(|| wrong(name, ".proto.path=::rust::path", value))
}

/// `key=value` of a parameter's value; only the first `=` counts.
fn pair(value: Option<&str>) -> (&str, &str) {
    let value = value.unwrap_or_default();
    value.split_once('=').unwrap_or((value, ""))
}

/// The parameters that may be given more than once.
const REPEATABLE: &[&str] = &["extern_path", "route", "router_mod_attribute", "router_attribute"];

const KNOWN: &[&str] = &[
    "paths",
    "gateway",
    "runtime_path",
    "no_client",
    "no_server",
    "insert_include",
    "flat_output_dir",
    "default_package_filename",
    "extern_path",
    "compile_well_known_types",
    "proto_path",
    "codec_path",
    "use_arc_self",
    "generate_default_stubs",
    "router_mod_attribute",
    "router_attribute",
    "route",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Params::parse(text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn nothing_given_means_a_file_per_package_with_client_and_server() {
        let Ok(params) = Params::parse("") else { panic!("no parameters are fine") };

        assert_eq!(params.layout.paths, Paths::Package);
        assert!(!params.layout.insert_include);
        assert!(params.style.client && params.style.server && !params.style.gateway);
    }

    #[test]
    fn a_comma_may_be_escaped() {
        assert_eq!(split(r"a=1,b=x\,y, c=\\,,d=\z"), ["a=1", "b=x,y", r"c=\", r"d=\z"]);
    }

    #[test]
    fn a_value_may_hold_commas_backslashes_and_equal_signs() {
        let text = r#"route=a.S={routing_key: "x"\, strategy: HEADER_BASED},route=a.T,router_attribute=.=#[doc = "a\\\\b\, c"],use_arc_self"#;
        let Ok(params) = Params::parse(text) else { panic!("{}", error(text)) };

        assert_eq!(params.routes.services().collect::<Vec<_>>(), ["a.S", "a.T"]);
        assert_eq!(params.routes.of("a.S").and_then(|route| route.routing_key.as_deref()), Some("x"));
        assert!(params.style.server_trait.arc_self && !params.style.server_trait.boxed_streams);
    }

    #[test]
    fn what_is_wrong_with_attributes_and_routes_is_told_with_the_rest() {
        assert_eq!(
            error(
                "router_attribute=.=derive(Eq),router_mod_attribute=x,route=a.S={},route=a.S={},generate_default_stubs=1"
            ),
            "parameter router_attribute: expected a pattern, '=' and an attribute, such as .=#[cfg(feature = \"router\")], found \".=derive(Eq)\"\n\
             parameter router_mod_attribute: expected a pattern, '=' and an attribute, such as .=#[cfg(feature = \"router\")], found \"x=\"\n\
             parameter route=a.S is given twice\n\
             parameter generate_default_stubs: expected true or false, found \"1\""
        );
    }

    #[test]
    fn an_unknown_parameter_names_the_known_ones() {
        assert_eq!(
            error("bogus"),
            "unknown parameter \"bogus\"; known: paths, gateway, runtime_path, no_client, no_server, insert_include, flat_output_dir, \
             default_package_filename, extern_path, compile_well_known_types, proto_path, codec_path, use_arc_self, generate_default_stubs, \
             router_mod_attribute, router_attribute, route"
        );
    }

    #[test]
    fn a_misspelt_parameter_names_the_one_that_was_meant() {
        for (wrong, meant) in [
            ("path=package", "paths"),
            ("gatway", "gateway"),
            ("no-client", "no_client"),
            ("Runtime_Path=::a", "runtime_path"),
        ] {
            let said = error(wrong);
            let name = wrong.split('=').next().unwrap_or_default();
            let wanted = format!("unknown parameter {name:?} (did you mean {meant:?}?); known: paths, ");
            assert!(said.starts_with(&wanted), "{said}");
        }
        assert!(!error("x").contains("did you mean"));
    }

    #[test]
    fn all_wrong_parameters_are_told_at_once() {
        assert_eq!(
            error(
                "gateway=maybe,paths=import,runtime_path=a b,extern_path=foo,extern_path=foo=::bar,paths=package,no_client,no_client"
            ),
            "parameter gateway: expected true or false, found \"maybe\"\n\
             parameter paths: expected source_relative (a file for each proto file) or package (a file for each package, the default), found \"import\"\n\
             parameter runtime_path: expected a Rust path, found \"a b\"\n\
             parameter extern_path: expected .proto.path=::rust::path, found \"foo\"\n\
             parameter paths is given twice\n\
             parameter no_client is given twice\n\
             parameter extern_path: expected a full protobuf path that begins with '.', found \"foo\""
        );
    }

    #[test]
    fn parameters_that_exclude_each_other_say_why() {
        assert_eq!(
            error("paths=source_relative,insert_include"),
            "parameter insert_include cannot go with paths=source_relative: the file of the package is in another directory; include! the \
             file where you want it"
        );
    }

    #[test]
    fn a_file_name_cannot_leave_the_output_directory() {
        assert_eq!(
            error("default_package_filename=../x"),
            "parameter default_package_filename: expected a file name, found \"../x\""
        );
    }
}
