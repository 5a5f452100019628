//! `grpcrouter completions SHELL`: a script that completes commands and flags in a shell.

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

/// What `completions` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Such as:\n  grpcrouter completions bash > ~/.local/share/bash-completion/completions/grpcrouter"
)]
pub(crate) struct Args {
    /// The shell to write for
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Into memory first: clap's writer panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "grpcrouter", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
