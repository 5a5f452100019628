//! The speed gate: instructions for one unary call at the gateway against those of a tonic server that is called
//! directly, or, with `resume`, against those of a gateway that keeps no call of a lost connection. Counted by callgrind, as
//! the difference of a long and a short run, so that start and end do not count.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use grpcrouter_tests::load::Load;

/// At most this share of a direct tonic server's instructions.
const LIMIT: f64 = 0.85;
/// At most this share of the instructions without it: what it costs while nothing fails.
const RESUME_LIMIT: f64 = 1.02;
const SHORT: u64 = 2_000;
const LONG: u64 = 12_000;

fn main() -> ExitCode {
    match gate() {
        Ok((ratio, limit, of)) if ratio <= limit => {
            println!("speed-gate: {ratio:.3} of {of}, limit {limit}: passed");
            ExitCode::SUCCESS
        }
        Ok((ratio, limit, of)) => {
            eprintln!("speed-gate: {ratio:.3} of {of}, over the limit of {limit}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("speed-gate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The share, its limit, and what it is a share of.
fn gate() -> anyhow::Result<(f64, f64, &'static str)> {
    // Measured as it is shipped: optimised. This program only makes the load and need not be.
    let mut arguments = std::env::args_os().skip(1);
    let programs = PathBuf::from(arguments.next().context("usage: speed_gate DIRECTORY-OF-RELEASE-BINARIES [resume]")?);
    match arguments.next() {
        None => {
            let direct = per_call("direct tonic server", || direct(&programs))?;
            let gateway = per_call("gateway", || gateway(&programs))?;
            Ok((gateway / direct, LIMIT, "a direct tonic server"))
        }
        Some(what) if what == "resume" => {
            let without = per_call("gateway, resume_window 0s", || keeps_calls(&programs, "0s"))?;
            let with = per_call("gateway, resume_window 15s", || keeps_calls(&programs, "15s"))?;
            Ok((with / without, RESUME_LIMIT, "a gateway that keeps no call of a lost connection"))
        }
        Some(what) => bail!("{} is not known; there is `resume`", what.display()),
    }
}

/// Instructions for one call, and a line that says so.
fn per_call(name: &str, start: impl Fn() -> anyhow::Result<Setup>) -> anyhow::Result<f64> {
    let mut counted = Vec::new();
    for calls in [SHORT, LONG] {
        let setup = start()?;
        let load = Load { calls, ..Load::method1(setup.target) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(load.run()).with_context(|| format!("load on the {name}"))?;
        counted.push(setup.instructions()?);
    }
    let [short, long] = counted[..] else { bail!("two runs") };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = (long - short) as f64 / (LONG - SHORT) as f64;
    println!("speed-gate: {each:>9.0} instructions per unary call: {name}");
    Ok(each)
}

/// The program that is measured, and what it needs beside it.
struct Setup {
    target: SocketAddr,
    measured: Process,
    report: tempfile::NamedTempFile,
    beside: Vec<Process>,
}

impl Setup {
    /// Ends everything and reads the count.
    fn instructions(mut self) -> anyhow::Result<u64> {
        self.beside.clear();
        self.measured.stop()?;
        let report = std::fs::read_to_string(self.report.path())?;
        let totals =
            report.lines().find_map(|line| line.strip_prefix("totals: ")).context("callgrind wrote no totals")?;
        Ok(totals.trim().parse()?)
    }
}

fn direct(programs: &Path) -> anyhow::Result<Setup> {
    let (target, report) = (free_address()?, tempfile::NamedTempFile::new()?);
    let backend = programs.join("myservice-backend");
    let measured =
        Process::start(callgrind(&backend, report.path()).args(["--mode", "direct", "--listen", &target.to_string()]))?;
    accepts(target)?;
    Ok(Setup { target, measured, report, beside: Vec::new() })
}

fn gateway(programs: &Path) -> anyhow::Result<Setup> {
    let (target, report) = (free_address()?, tempfile::NamedTempFile::new()?);
    let gateway = programs.join("myservice-gateway");
    let measured = Process::start(callgrind(&gateway, report.path()).args(["--listen", &target.to_string()]))?;
    with_an_instance(programs, target, measured, report)
}

/// The ready-made gateway with this resume window.
fn keeps_calls(programs: &Path, window: &str) -> anyhow::Result<Setup> {
    let (target, report) = (free_address()?, tempfile::NamedTempFile::new()?);
    let settings = tempfile::NamedTempFile::new()?;
    std::fs::write(settings.path(), format!("[any_service]\n[limits]\nresume_window = \"{window}\"\n"))?;
    let gateway = programs.join("grpcrouter");
    let mut command = callgrind(&gateway, report.path());
    command.args(["gateway", "--listen", &target.to_string(), "--config"]).arg(settings.path());
    let measured = Process::start(&mut command)?;
    // It has read them when it listens.
    accepts(target)?;
    with_an_instance(programs, target, measured, report)
}

/// The measured gateway with one instance behind it, which is ready.
fn with_an_instance(
    programs: &Path,
    target: SocketAddr,
    measured: Process,
    report: tempfile::NamedTempFile,
) -> anyhow::Result<Setup> {
    accepts(target)?;
    let mut backend = Command::new(programs.join("myservice-backend"));
    backend.args(["--mode", "router", "--gateway", &format!("http://{target}"), "--instance-id", "a"]);
    let beside = vec![Process::start(&mut backend)?];
    let first = Load { calls: 1, concurrency: 1, connections: 1, ..Load::method1(target) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    while runtime.block_on(first.run()).is_err() {
        if started.elapsed() > Duration::from_secs(60) {
            bail!("no backend registered within a minute");
        }
        std::thread::sleep(Duration::from_millis(50)); // waits because only a call that succeeds tells that it has
    }
    Ok(Setup { target, measured, report, beside })
}

fn callgrind(program: &PathBuf, report: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", report.display()))
        .arg(program);
    command
}

struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| {
            let program = command.get_program().to_string_lossy().into_owned();
            format!(
                "{program} does not start: `make install-deps` installs valgrind, `make speed-gate` builds the rest"
            )
        })?;
        Ok(Self(child))
    }

    /// SIGTERM, then waits for a graceful end.
    fn stop(&mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        let status = self.0.wait()?;
        if !status.success() {
            bail!("the measured program ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Returns when `address` accepts connections.
fn accepts(address: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if started.elapsed() > Duration::from_secs(60) {
            bail!("nothing listens on {address} within a minute");
        }
        std::thread::sleep(Duration::from_millis(50)); // waits because valgrind starts slowly
    }
    Ok(())
}
