//! docs/ERRORS.md lists what the code can answer, no more and no less, and none of what a proxy may not invent.

use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("../../../grpcrouter-runtime/src/status.rs");
const PAGE: &str = include_str!("../../../docs/ERRORS.md");

/// The code before the unit tests.
fn table() -> &'static str {
    TABLE.split("#[cfg(test)]").next().unwrap()
}

/// What `Reason::as_str` gives, by the name of the variant.
fn reasons() -> BTreeMap<&'static str, &'static str> {
    let body = table().split("impl Reason {").nth(1).unwrap().split("\n}\n").next().unwrap();
    body.lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \""))
        .map(|(variant, text)| (variant, text.split('"').next().unwrap()))
        .collect()
}

/// The codes that each reason is given with.
fn codes() -> BTreeMap<&'static str, BTreeSet<String>> {
    let reasons = reasons();
    let mut codes: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for piece in table().split("Self::new(").skip(1) {
        let (code, rest) = piece.split_once(", Reason::").unwrap();
        let reason = reasons[rest.split([',', ')']).next().unwrap()];
        let all = codes.entry(reason).or_default();
        match code.trim().strip_prefix("Code::") {
            Some(code) => all.extend([screaming(code)]),
            // The table of HTTP statuses: each of its arms.
            None => {
                all.extend(table().split(" => Code::").skip(1).map(|arm| screaming(arm.split(',').next().unwrap())))
            }
        }
    }
    codes
}

/// "DeadlineExceeded" as "DEADLINE_EXCEEDED".
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_uppercase());
    }
    out
}

/// The rows of the page: reason, codes, when, what to do.
fn page() -> BTreeMap<&'static str, Vec<&'static str>> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_end_matches(" |").split(" | ").collect();
        (cells[0].trim_end_matches('`'), cells[1..].to_vec())
    })
    .collect()
}

#[test]
fn the_page_of_errors_lists_every_reason_with_its_codes_and_no_other() {
    let (codes, page) = (codes(), page());

    assert_eq!(reasons().len(), codes.len(), "every reason is given somewhere");
    assert_eq!(page.keys().collect::<Vec<_>>(), codes.keys().collect::<Vec<_>>());
    for (reason, cells) in page {
        assert_eq!(cells.len(), 3, "{reason}: code, when, what to do");
        let listed: BTreeSet<_> = cells[0].split(", ").map(str::to_owned).collect();
        assert_eq!(listed, codes[reason], "{reason}");
        assert!(cells[1..].iter().all(|cell| cell.len() > 10), "{reason}");
    }
}

#[test]
fn no_answer_has_a_code_that_belongs_to_services_alone() {
    for code in ["ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "DATA_LOSS", "NOT_FOUND"] {
        assert!(!codes().values().any(|codes| codes.contains(code)), "{code}");
    }
}

#[test]
fn the_page_of_errors_lists_every_outcome() {
    let body = table().split("impl Outcome {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let outcomes: Vec<_> = body.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        assert!(PAGE.contains(&format!("- `{outcome}`: ")), "{outcome}");
    }
}
