//! What a gateway and a backend count and log: exact numbers after a known mix of calls, series that names from outside
//! cannot multiply, lines with ids and without contents, and a page that says all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

#[path = "observe/counts.rs"]
mod counts;
#[path = "observe/lines.rs"]
mod lines;
#[path = "observe/page.rs"]
mod page;
#[path = "observe/recorded.rs"]
mod recorded;
