//! The file: what is right is read, what is wrong is told with its line, and the example has all of it.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
use std::collections::BTreeSet;

use super::*;

const EXAMPLE: &str = include_str!("../../../../examples/gateway.toml");

/// With each setting that stands in a comment, as `#name = value` and `#[table]` without a blank.
fn whole() -> String {
    let shown = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') => {
            setting.to_owned()
        }
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(shown).collect::<Vec<_>>().join("\n")
}

fn refused(text: &str) -> String {
    Config::parse(text).unwrap_err()
}

#[test]
fn the_example_can_be_used_as_it_is_and_with_all_its_settings() {
    Config::parse(EXAMPLE).unwrap();
    Config::parse(&whole()).unwrap_or_else(|wrong| panic!("{wrong}\n{}", whole()));
}

#[test]
fn the_example_has_every_setting_that_there_is() {
    let example: toml::Table = whole().parse().unwrap();
    // What serde says of a name that is unknown: all that are known.
    let known = |table: &str| -> BTreeSet<String> {
        let message = refused(&table.replace('?', "none_of_these = 1"));
        message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    };
    let in_example = |path: &[&str]| -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut tables = vec![&example];
        for name in path {
            tables = tables
                .iter()
                .flat_map(|table| match (&table.get(*name), *name) {
                    (_, "*") => table.values().filter_map(toml::Value::as_table).collect(),
                    (Some(toml::Value::Array(all)), _) => all.iter().filter_map(toml::Value::as_table).collect(),
                    (Some(toml::Value::Table(one)), _) => vec![one],
                    _ => Vec::new(),
                })
                .collect();
        }
        tables.iter().for_each(|table| found.extend(table.keys().cloned()));
        found
    };

    for (table, path) in [
        ("?", &[][..]),
        ("[tls]\n?", &["tls"]),
        ("[register_tls]\n?", &["tls"]),
        ("[registration]\n?", &["registration"]),
        ("[limits]\n?", &["limits"]),
        ("[limits]\nkeepalive = { ? }", &["limits", "keepalive"]),
        ("[any_service]\n?", &["services", "*", "routes"]),
        ("[services.\"a.S\"]\n?", &["services", "*"]),
        ("[services.\"a.S\".routes]\nfield = { ? }", &["services", "*", "routes", "field"]),
        ("[services.\"a.S\".methods.M]\n?", &["services", "*", "methods", "*"]),
        ("[callers]\n?", &["callers"]),
        ("[[callers.jwt]]\n?", &["callers", "jwt"]),
        ("[[callers.rules]]\n?", &["callers", "rules"]),
        ("[[callers.limits]]\n?", &["callers", "limits"]),
    ] {
        let (known, shown) = (known(table), in_example(path));
        assert!(!known.is_empty() && known.is_subset(&shown), "{path:?}: {:?}", known.difference(&shown));
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_column() {
    for (text, told) in [
        ("listen = \"127.0.0.1:1\"\nlissten = 1", "2:1: unknown field `lissten`"),
        ("[limits]\nmax_cals = 1", "2:1: unknown field `max_cals`"),
        ("[limits]\nmax_calls = \"many\"", "2:13: invalid type: string \"many\", expected usize"),
        ("drain_timeout = \"30\"", "1:17: \"30\" is no time; write a number and a unit"),
        ("\nlisten = \"8080\"", "2:10: \"8080\" is no address; write HOST:PORT"),
        ("[any_service]\n\nstrategy = \"METADATA\"", "3:12: unknown variant `METADATA`"),
        ("[tls]\ncert = \"c.pem\"", "1:1: missing field `key`"),
        ("listen = ", "1:10: "),
        ("[[callers.rules]]\nmethods = \"*\"\nwho = [\"alice\"]", "3:7: \"alice\" is nobody that a rule knows; write"),
        ("[[callers.limits]]\nrate = \"fast\"", "2:8: \"fast\" is no rate; write 100/s"),
        ("[[callers.limits]]\nrate = \"1/s\"\nkey = \"me\"", "3:7: \"me\" is nothing to count calls by; write"),
    ] {
        let wrong = refused(text);
        assert!(wrong.starts_with(told), "{wrong}");
        assert!(!wrong.contains('\n'), "{wrong}");
    }
    assert!(refused("[limits]\nmax_cals = 1").ends_with("; did you mean max_calls?"));
    assert!(refused("[any_service]\nstrategy = \"HEADER\"").ends_with("; did you mean HEADER_BASED?"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::read(Path::new("nowhere/gateway.toml")).unwrap_err().to_string();

    assert!(error.starts_with("cannot read nowhere/gateway.toml"), "{error}");
}
