//! The whole main function of a generated gateway: flags, log, signals, and an exit code.
//! All of it is done with the public builders; a program that wants it otherwise writes its own.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use tokio::net::TcpListener;
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::error::{ConfigError, ServeError};
use crate::gateway::GatewayBuilder;

/// Runs a gateway as a whole program: the generated `run_gateway()` calls this, and its result is what `main` returns.
///
/// Takes `--listen ADDRESS` (default `127.0.0.1:8080`, or the environment's `GRPCROUTER_LISTEN`), `--help` and
/// `--version`. Logs to standard error, as `GRPCROUTER_LOG` says (a `tracing` filter, default `info`; of the
/// HTTP libraries below only warnings, unless one is named, as in `debug,h2=debug`). Prints one line to
/// standard output once it listens. The first SIGTERM or SIGINT (ctrl-c) lets running calls finish and then ends with
/// code 0; a second one ends at once. Makes its own multi-threaded tokio runtime.
///
/// The code is 1, with one line on standard error that says what to do, if the gateway cannot be built or cannot listen;
/// 2 for a wrong flag; 130 after a second signal.
///
/// # Panics
/// When it is called inside of another tokio runtime.
///
/// # Examples
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     grpcrouter_runtime::run(grpcrouter_runtime::Gateway::builder())
/// }
/// ```
pub fn run(builder: GatewayBuilder) -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = program(arguments.next().as_deref().map(Path::new));
    let matches = match command(&program).try_get_matches_from(std::iter::once(program.clone().into()).chain(arguments))
    {
        Ok(matches) => matches,
        Err(answer) => {
            // --help and --version come as errors too; only a real one has another code than 0.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(USAGE));
        }
    };
    match start(&program, &matches, builder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(program: &str, matches: &ArgMatches, builder: GatewayBuilder) -> Result<(), RunError> {
    start_log(std::env::var("GRPCROUTER_LOG").ok())?;
    let address = matches.get_one::<String>(LISTEN).map_or(DEFAULT_ADDRESS, String::as_str);
    let gateway = builder.build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(|error| ServeError::listen(address, error))?;
        let listening = listener.local_addr().map_err(|error| ServeError::listen(address, error))?;
        if !listening.ip().is_loopback() {
            warn!(
                %listening,
                "no TLS and no authentication yet: whoever reaches this address can call every service and register as \
                 a backend; keep it in a network that you trust"
            );
        }
        // Before the line: whoever reads it may send a signal at once.
        let shutdown = shutdown(program.to_owned()).map_err(RunError::Runtime)?;
        // Nobody may be reading any more; that is no reason to stop.
        let _ = writeln!(io::stdout(), "{program}: listening on {listening}");
        let _ = io::stdout().flush();
        Ok(gateway.serve(listener, shutdown).await?)
    })
}

/// Why a gateway did not run. Each text says what to do.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("the filter {filter:?} in GRPCROUTER_LOG is none: {error}; use a level, such as debug, or target=level,…")]
    Log { filter: String, error: tracing_subscriber::filter::ParseError },
    #[error("the system does not give what a gateway needs to run: {0}")]
    Runtime(io::Error),
}

fn command(program: &str) -> Command {
    Command::new("gateway")
        .bin_name(program)
        .display_name(program)
        .about("A grpcrouter gateway: backends dial in and register here, gRPC clients call them here.")
        .version(concat!("(grpcrouter ", env!("CARGO_PKG_VERSION"), ")"))
        .arg(
            Arg::new(LISTEN)
                .long(LISTEN)
                .value_name("ADDRESS")
                .env("GRPCROUTER_LISTEN")
                .default_value(DEFAULT_ADDRESS)
                .help("Where backends and clients reach this gateway: HOST:PORT; port 0 is any free one"),
        )
        .after_help(
            "Environment:\n  GRPCROUTER_LISTEN  the same as --listen\n  GRPCROUTER_LOG     what is logged, such as \
             info (the default), debug or grpcrouter_runtime=trace\n\nSIGTERM or ctrl-c: running calls finish, then the \
             gateway ends with code 0. A second signal ends it at once.",
        )
}

/// The name by which this program was called, for its messages.
fn program(path: Option<&Path>) -> String {
    path.and_then(Path::file_stem).map_or_else(|| "gateway".into(), |name| name.to_string_lossy().into_owned())
}

fn start_log(filter: Option<String>) -> Result<(), RunError> {
    let parsed = log_filter(filter)?;
    // A log that the program has set up before is its own choice, and stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init();
    Ok(())
}

/// What is asked for; libraries below only when they are named, for each of their lines would hide one of ours.
fn log_filter(filter: Option<String>) -> Result<EnvFilter, RunError> {
    let filter = filter.filter(|filter| !filter.trim().is_empty()).unwrap_or_else(|| "info".into());
    // Of two directives for one target the later counts.
    EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| RunError::Log { filter, error })
}

/// Listens for signals from now on; what it returns is done at the first one. The second ends the program.
fn shutdown(program: String) -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::new()?;
    Ok(async move {
        signals.next().await;
        let _ = writeln!(io::stderr(), "{program}: stopping once running calls are done; a second signal ends at once");
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(i32::from(CUT_SHORT));
        });
    })
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn next(&mut self) {
        self.interrupt.recv().await;
    }
}

/// What the libraries below may say.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,tower=warn,tonic=warn";

const LISTEN: &str = "listen";

/// Loopback: a gateway is open to others only where somebody asked for it.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

/// The exit code of a wrong flag, as clap has it.
const USAGE: u8 = 2;

/// The exit code after a second signal: what a shell gives a program that ctrl-c ended.
const CUT_SHORT: u8 = 130;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_sound() {
        command("shop-gateway").debug_assert();
    }

    #[test]
    fn a_program_is_called_by_its_file_name() {
        assert_eq!(program(Some(Path::new("/opt/shop/shop-gateway"))), "shop-gateway");
        assert_eq!(program(None), "gateway");
    }

    #[test]
    fn listen_is_taken_from_the_flag() {
        let matches = command("g").try_get_matches_from(["g", "--listen", "0.0.0.0:9000"]).unwrap();
        assert_eq!(matches.get_one::<String>(LISTEN).unwrap(), "0.0.0.0:9000");
    }

    #[test]
    fn an_unknown_flag_is_a_usage_error() {
        let error = command("g").try_get_matches_from(["g", "--listn", "x"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(USAGE));
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let filter = |text: &str| log_filter(Some(text.into())).unwrap().to_string();

        let debug = filter("debug");
        assert!(debug.split(',').any(|directive| directive == "h2=warn"), "{debug}");
        assert!(debug.split(',').any(|directive| directive == "debug"), "{debug}");
        let named = filter("debug,h2=trace");
        assert!(named.split(',').any(|directive| directive == "h2=trace"), "{named}");
        assert!(!named.contains("h2=warn"), "{named}");
        assert_eq!(filter(" "), filter("info"));
    }

    #[test]
    fn a_filter_that_is_none_says_so() {
        let error = start_log(Some("grpcrouter=loud".into())).unwrap_err();
        assert!(error.to_string().starts_with("the filter \"grpcrouter=loud\" in GRPCROUTER_LOG is none: "), "{error}");
    }
}
