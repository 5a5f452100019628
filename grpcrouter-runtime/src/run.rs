//! The whole main function of a generated gateway: flags, log, signals, and an exit code.
//! All of it is done with the public builders; a program that wants it otherwise writes its own.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::error::{ConfigError, ServeError};
use crate::gateway::{GatewayBuilder, GatewayTls, RegistrationPolicy};

/// Runs a gateway as a whole program: the generated `run_gateway()` calls this, and its result is what `main` returns.
///
/// Takes `--listen ADDRESS` (default `127.0.0.1:8080`), `--tls-cert`, `--tls-key` and `--client-ca` (PEM files),
/// `--registration` (the file of [`RegistrationPolicy::file`]), each also from the environment as `GRPCROUTER_LISTEN` and
/// so on, and `--insecure`, without which an address that others reach needs TLS and a policy; `--help` and
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
    log_to_stderr("info")?;
    let address = matches.get_one::<String>(LISTEN).map_or(DEFAULT_ADDRESS, String::as_str);
    let builder = protected(matches, builder);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(|error| ServeError::listen(address, error))?;
        let listening = listener.local_addr().map_err(|error| ServeError::listen(address, error))?;
        // Of a name it is known only now whether others reach it.
        let gateway = builder.listen(listening).build()?;
        // Before the line: whoever reads it may send a signal at once.
        let shutdown = shutdown_signal(program).map_err(RunError::Runtime)?;
        // Nobody may be reading any more; that is no reason to stop.
        let _ = writeln!(io::stdout(), "{program}: listening on {listening}");
        let _ = io::stdout().flush();
        Ok(gateway.serve(listener, shutdown).await?)
    })
}

/// What the flags say of who may reach the gateway.
fn protected(matches: &ArgMatches, mut builder: GatewayBuilder) -> GatewayBuilder {
    let path = |flag| matches.get_one::<String>(flag);
    if let (Some(cert), Some(key)) = (path(TLS_CERT), path(TLS_KEY)) {
        let tls = GatewayTls::files(cert, key);
        builder = builder.tls(match path(CLIENT_CA) {
            Some(ca) => tls.client_ca(ca),
            None => tls,
        });
    }
    if let Some(file) = path(REGISTRATION) {
        builder = builder.registration(RegistrationPolicy::file(file));
    }
    if matches.get_flag(INSECURE) { builder.insecure() } else { builder }
}

/// Why a gateway did not run. Each text says what to do.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Log(#[from] LogFilterError),
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
        .args([
            file(TLS_CERT, "GRPCROUTER_TLS_CERT", "Serve TLS with this certificate and its chain, PEM")
                .requires(TLS_KEY),
            file(TLS_KEY, "GRPCROUTER_TLS_KEY", "The private key of --tls-cert, PEM").requires(TLS_CERT),
            file(CLIENT_CA, "GRPCROUTER_CLIENT_CA", "Verify the certificates of backends and clients by these, PEM")
                .requires(TLS_CERT),
            file(REGISTRATION, "GRPCROUTER_REGISTRATION", "Who may register, as `grpcrouter token create` writes it"),
        ])
        .arg(
            Arg::new(INSECURE)
                .long(INSECURE)
                .env("GRPCROUTER_INSECURE")
                .action(ArgAction::SetTrue)
                .value_parser(FalseyValueParser::new())
                .help("Listen where others reach it, though it has no TLS or does not ask who registers"),
        )
        .after_help(
            "Environment:\n  GRPCROUTER_LOG  what is logged, such as info (the default), debug or \
             grpcrouter_runtime=trace\n\nSIGTERM or ctrl-c: running calls finish, then the \
             gateway ends with code 0. A second signal ends it at once.",
        )
}

fn file(name: &'static str, variable: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("FILE").env(variable).help(help)
}

/// The name by which this program was called, for its messages.
fn program(path: Option<&Path>) -> String {
    path.and_then(Path::file_stem).map_or_else(|| "gateway".into(), |name| name.to_string_lossy().into_owned())
}

/// Logs to standard error, as `GRPCROUTER_LOG` says: a `tracing` filter, such as `debug` or `info,h2=debug`; `default`
/// where it is not set. Of the HTTP libraries below only warnings, unless one is named. A log that the program has set
/// up before stays.
///
/// # Errors
/// The filter is none.
pub fn log_to_stderr(default: &str) -> Result<(), LogFilterError> {
    start_log(std::env::var("GRPCROUTER_LOG").ok(), default)
}

/// What `GRPCROUTER_LOG` holds is no filter.
#[derive(Debug, thiserror::Error)]
#[error("the filter {filter:?} in GRPCROUTER_LOG is none: {error}; use a level, such as debug, or target=level,…")]
pub struct LogFilterError {
    filter: String,
    error: tracing_subscriber::filter::ParseError,
}

fn start_log(filter: Option<String>, default: &str) -> Result<(), LogFilterError> {
    let parsed = log_filter(filter, default)?;
    // A log that the program has set up before is its own choice, and stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init();
    Ok(())
}

/// What is asked for; libraries below only when they are named, for each of their lines would hide one of ours.
fn log_filter(filter: Option<String>, default: &str) -> Result<EnvFilter, LogFilterError> {
    let filter = filter.filter(|filter| !filter.trim().is_empty()).unwrap_or_else(|| default.into());
    // Of two directives for one target the later counts.
    EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| LogFilterError { filter, error })
}

/// Listens for SIGTERM and SIGINT (ctrl-c) from now on. What it returns is done at the first one, which is then told on
/// standard error in the name of `program`; the second ends the process with code 130.
///
/// # Errors
/// The system does not let this process listen for signals.
///
/// # Panics
/// Outside of a tokio runtime that has I/O.
///
/// # Cancel safety
/// Dropping the future gives up listening; the default of the signals does not come back.
pub fn shutdown_signal(program: &str) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let mut signals = Signals::new()?;
    let program = program.to_owned();
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
const TLS_CERT: &str = "tls-cert";
const TLS_KEY: &str = "tls-key";
const CLIENT_CA: &str = "client-ca";
const REGISTRATION: &str = "registration";
const INSECURE: &str = "insecure";

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
    fn a_certificate_without_its_key_is_a_usage_error() {
        let error = command("g").try_get_matches_from(["g", "--tls-cert", "c.pem"]).unwrap_err();

        assert_eq!(error.exit_code(), i32::from(USAGE));
        assert!(error.to_string().contains("--tls-key"), "{error}");
    }

    #[test]
    fn files_that_flags_name_are_read_when_the_gateway_is_built() {
        for flags in [
            &["g", "--tls-cert", "/nowhere/c.pem", "--tls-key", "/nowhere/k.pem"][..],
            &["g", "--registration", "/nowhere/r.toml"],
        ] {
            let matches = command("g").try_get_matches_from(flags).unwrap();

            let built = protected(&matches, crate::Gateway::builder().any_service(crate::MethodRoutes::new())).build();

            assert!(built.unwrap_err().to_string().contains("cannot read /nowhere/"), "{flags:?}");
        }
    }

    #[test]
    fn an_unknown_flag_is_a_usage_error() {
        let error = command("g").try_get_matches_from(["g", "--listn", "x"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(USAGE));
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let filter = |text: &str| log_filter(Some(text.into()), "info").unwrap().to_string();

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
        let error = start_log(Some("grpcrouter=loud".into()), "info").unwrap_err();
        assert!(error.to_string().starts_with("the filter \"grpcrouter=loud\" in GRPCROUTER_LOG is none: "), "{error}");
    }
}
