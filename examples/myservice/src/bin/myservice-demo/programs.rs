//! The other programs of the example as child processes: started on free ports, awaited, stopped by SIGTERM.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// They are built into one directory.
    pub(crate) fn beside_this_one() -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("the system does not tell where this program is")?;
        let directory = this.parent().context("this program is in no directory")?.to_owned();
        Ok(Self { directory })
    }

    /// Starts a gateway on a free port; tells where it listens.
    pub(crate) async fn gateway(&self) -> anyhow::Result<(Program, String)> {
        let (program, line) =
            self.start("myservice-gateway", "the gateway", "info", &["--listen", "127.0.0.1:0"]).await?;
        let address = line.rsplit(' ').next().context("the gateway does not say where it listens")?;
        Ok((program, address.to_owned()))
    }

    /// Starts a backend that only dials out, and waits until the gateway has taken it in.
    pub(crate) async fn backend(&self, gateway: &str, id: &str) -> anyhow::Result<Program> {
        let gateway = format!("http://{gateway}");
        let arguments = ["--mode", "router", "--gateway", &gateway, "--instance-id", id];
        let (program, _) = self.start("myservice-backend", id, "warn", &arguments).await?;
        Ok(program)
    }

    /// Starts a program and waits for its one line. It logs as `log` says, unless the environment says it already.
    async fn start(&self, file: &str, id: &str, log: &str, arguments: &[&str]) -> anyhow::Result<(Program, String)> {
        let path = self.directory.join(file).with_extension(std::env::consts::EXE_EXTENSION);
        let mut child = Command::new(&path)
            .args(arguments)
            .env_remove("GRPCROUTER_LISTEN")
            .env("GRPCROUTER_LOG", std::env::var("GRPCROUTER_LOG").unwrap_or_else(|_| log.into()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}: build it with `cargo build -p myservice`", path.display()))?;
        let output = child.stdout.take().with_context(|| format!("{file} has no output"))?;
        let mut lines = BufReader::new(output).lines();
        let line = match timeout(PATIENCE, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => bail!("{file} ended before it was ready: {}", child.wait().await?),
            Ok(Err(error)) => return Err(error).with_context(|| format!("{file} cannot be read")),
            Err(_) => bail!("{file} was not ready after {} s", PATIENCE.as_secs()),
        };
        // Read on, so that the program never waits for room to write.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((Program { child, id: id.to_owned() }, line))
    }
}

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    id: String,
}

impl Program {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Asks it to end, by SIGTERM.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        terminate(&self.child).with_context(|| format!("{} cannot be sent a signal", self.id))
    }

    /// Ends it without a word.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("{} cannot be killed", self.id))
    }

    /// Waits until it has ended, with code 0.
    pub(crate) async fn ended(mut self) -> anyhow::Result<()> {
        let id = &self.id;
        let Ok(ended) = timeout(PATIENCE, self.child.wait()).await else {
            bail!("{id} got SIGTERM and had not ended after {} s", PATIENCE.as_secs());
        };
        let code = ended?;
        ensure!(code.success(), "{id} got SIGTERM and ended badly: {code}");
        Ok(())
    }
}

#[cfg(unix)]
fn terminate(child: &Child) -> anyhow::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(kill_process(pid.context("it has ended already")?, Signal::TERM)?)
}

#[cfg(not(unix))]
fn terminate(_: &Child) -> anyhow::Result<()> {
    bail!("this system has no SIGTERM, which the demo stops programs with")
}

/// For a program to get ready, or to end: far longer than it takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);
