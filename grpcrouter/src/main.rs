//! The program `grpcrouter`: what its flags say becomes builders of `grpcrouter-runtime`; nothing else is decided here.
//! One module for each subcommand, with its flags and its `run`.

mod admin;
mod agent;
mod call;
mod certs;
mod channel;
mod check;
mod completions;
mod dial;
mod gateway;
mod list;
mod output;
mod token;
mod values;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Reach gRPC services behind firewalls: they dial out, you call in.
#[derive(Debug, Parser)]
#[command(name = "grpcrouter", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway: backends dial in and register here, gRPC clients call them here
    Gateway(Box<gateway::Args>),
    /// Bring an unmodified gRPC server to a gateway, by dialling out
    Agent(Box<agent::Args>),
    /// Tell step by step why a gateway cannot be reached, and what to do
    Check(Box<check::Args>),
    /// Call a method with JSON, as grpcurl does
    Call(Box<call::Args>),
    /// List the instances that are registered at a gateway
    Instances(list::InstancesArgs),
    /// List the services of a gateway, and who has them
    Services(list::ServicesArgs),
    /// Make, list and revoke the tokens with which backends register
    Token(token::Args),
    /// Make certificates to try things out with
    Certs(certs::Args),
    /// Print a script that completes commands in a shell
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        // Whoever read the output has what they wanted, as in `grpcrouter instances | head -1`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    grpcrouter_runtime::log_to_stderr(default_log(&command))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        match command {
            Command::Gateway(args) => gateway::run(*args).await,
            Command::Agent(args) => agent::run(*args).await,
            Command::Check(args) => check::run(*args).await,
            Command::Call(args) => call::run(*args).await,
            Command::Instances(args) => list::instances(args).await,
            Command::Services(args) => list::services(args).await,
            Command::Token(args) => token::run(args).await,
            Command::Certs(args) => certs::run(args),
            Command::Completions(args) => completions::run(args),
        }
    })
}

/// What is logged unless `GRPCROUTER_LOG` says otherwise: programs that stay tell what happens, the others are quiet.
fn default_log(command: &Command) -> &'static str {
    match command {
        Command::Gateway(_) | Command::Agent(_) => "info",
        _ => "warn",
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

const AFTER_HELP: &str = "Environment:
  GRPCROUTER_LOG  what is logged, such as info, debug or grpcrouter_runtime=trace
  NO_COLOR        no colours, as in a pipe

Exit codes: 0 done; 1 it did not work, and one line on standard error says why; 2 a wrong flag;
3 `call`: the gateway or the service answered with an error; 130 ended by a second signal.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }
}
