//! docs/LIMITS.md says what is so: each number is the one in the code, and no limit of a connection is left out.

use std::{collections::BTreeSet, fs};

use grpcrouter_tests::pages::root;

/// Limits of which all are told; with those of their constants that are none.
const WHOLE: &[(&str, &[&str])] = &[
    ("gateway/builder.rs", &["MAX_HEALTH_WATCHES", "EJECT_AFTER"]),
    ("gateway/builder/connections.rs", &[]),
    // The connection's window is the product of two; the tunnel's is transit.
    ("gateway/connection.rs", &["CONNECTION_WINDOW", "TUNNEL_WINDOW"]),
    ("gateway/connection/upkeep.rs", &["QUIET_LOOKS", "LAST_WORDS"]),
    (
        "gateway/connection/frames.rs",
        // The numbers of RFC 9113.
        &[
            "DATA",
            "HEADERS",
            "RST_STREAM",
            "WINDOW_UPDATE",
            "CONTINUATION",
            "HEAD",
            "PREFACE",
            "ANSWER",
            "BYTES_PER_CONTROL",
        ],
    ),
];

/// What stands between `const NAME: … =` and `;` in a file of the runtime, before its tests.
fn constants(file: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("grpcrouter-runtime/src").join(file)).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.split("const ")
        .skip(1)
        .filter_map(|rest| {
            let (head, value) = rest.split_once(';')?.0.split_once(" = ")?;
            Some((head.split_once(':')?.0.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A number, or a time in milliseconds, as Rust writes it.
fn in_code(value: &str) -> Option<u64> {
    let value = value.replace('_', "");
    if let Some(inner) = value.strip_prefix("Duration::fromsecs(") {
        return Some(in_code(inner.strip_suffix(')')?)? * 1_000);
    }
    if let Some(inner) = value.strip_prefix("Duration::frommillis(") {
        return in_code(inner.strip_suffix(')')?);
    }
    if let Some((number, bits)) = value.split_once(" << ") {
        return Some(number.parse::<u64>().ok()? << bits.parse::<u32>().ok()?);
    }
    value.split(" * ").map(|factor| factor.parse::<u64>().ok()).product()
}

/// The same as people write it.
fn on_page(value: &str) -> Option<u64> {
    let value = value.replace(',', "");
    let (number, unit) = value.split_once(' ').unwrap_or((&value, ""));
    let times = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    Some(number.parse::<u64>().ok()? * times)
}

#[test]
fn the_page_of_limits_tells_the_numbers_of_the_code_and_all_of_a_connections() {
    let page = fs::read_to_string(root().join("docs/LIMITS.md")).unwrap();
    let mut told = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains(" in gateway/")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [limit, default, setter, .., code] = cells[..] else { panic!("{row}") };
        assert_eq!(cells.len(), 6, "{row}");
        let (name, file) = code.strip_prefix('`').unwrap().split_once("` in ").unwrap();
        let value = constants(file).into_iter().find(|(constant, _)| constant == name);
        let (_, value) = value.unwrap_or_else(|| panic!("{limit}: no {name} in {file}"));
        let value = in_code(&value).unwrap_or_else(|| panic!("{limit}: {value}"));
        assert_eq!(on_page(default), Some(value), "{limit}: {default}");
        if let Some(setter) = setter.strip_prefix('`') {
            let setter = format!("pub fn {}(", setter.trim_end_matches('`'));
            let builders = ["gateway/builder.rs", "gateway/builder/connections.rs"];
            let builders = builders.map(|file| root().join("grpcrouter-runtime/src").join(file));
            assert!(builders.iter().any(|file| fs::read_to_string(file).unwrap().contains(&setter)), "{setter}");
        }
        told.insert((file.to_owned(), name.to_owned()));
    }

    for (file, but) in WHOLE {
        for (name, _) in constants(file).into_iter().filter(|(name, _)| !but.contains(&name.as_str())) {
            assert!(told.contains(&((*file).to_owned(), name.clone())), "{name} of {file} is not on the page");
        }
    }
    assert!(told.len() > 20);
}

#[test]
fn numbers_are_read_as_they_are_written() {
    assert_eq!(in_code("10_000"), Some(10_000));
    assert_eq!(in_code("32 * 1024 * 1024"), on_page("32 MiB"));
    assert_eq!(in_code("512 << 20"), on_page("512 MiB"));
    assert_eq!(in_code("Duration::from_secs(300)"), on_page("300 s"));
    assert_eq!(in_code("Duration::from_millis(100)"), on_page("100 ms"));
    assert_eq!((in_code("MAX * 2"), on_page("many")), (None, None));
}
