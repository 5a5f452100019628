//! What all subcommands print: tables and JSON to standard output, one line for a failure to standard error.
//! Colours are for terminals alone, and not where NO_COLOR is set.

use std::fmt::Display;
use std::io::{self, Write as _};

use anstream::{eprintln, stdout};
use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// How a result is printed: `-o table` for people, `-o json` for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON value
    Json,
}

/// One line.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    // A program that waits for this line may be behind a pipe.
    out.flush()
}

/// One JSON value, over several lines.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Columns under their names. `nothing` stands in place of a table without rows.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    nothing: &str,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table.add_rows(rows);
    if table.is_empty() {
        return line(nothing);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // The colour of the first line is no part of any width.
    for (index, text) in table.lines().enumerate() {
        let text = text.trim_end();
        if index == 0 { line(format_args!("{HEAD}{text}{HEAD:#}"))? } else { line(text)? }
    }
    Ok(())
}

/// Why it did not work, in one line.
pub(crate) fn failure(error: &anyhow::Error) {
    eprintln!("{FAILURE}grpcrouter:{FAILURE:#} {error:#}");
}

/// How a call ended, and what more is told of it.
pub(crate) fn status(lines: &[String]) {
    let (first, rest) = lines.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    eprintln!("{FAILURE}grpcrouter:{FAILURE:#} {first}");
    rest.iter().for_each(|line| eprintln!("{line}"));
}

/// What is told beside a result.
pub(crate) fn note(lines: &[String]) {
    lines.iter().for_each(|line| eprintln!("{NOTE}{line}{NOTE:#}"));
}

const NOTE: Style = Style::new().dimmed();
const HEAD: Style = Style::new().bold();
const FAILURE: Style = AnsiColor::Red.on_default().bold();
