//! The programs of a scenario as child processes: started on free ports, awaited, sent signals, looked into.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// Where the programs are, and a folder for what they write.
#[derive(Debug)]
pub(crate) struct Programs {
    directory: PathBuf,
    work: tempfile::TempDir,
}

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    name: String,
    log: PathBuf,
    /// The line that said that it was ready.
    pub(crate) line: String,
}

impl Programs {
    /// They are built into one directory.
    pub(crate) fn beside_this_one() -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("the system does not tell where this program is")?;
        let directory = this.parent().context("this program is in no directory")?.to_owned();
        Ok(Self { directory, work: tempfile::tempdir()? })
    }

    /// Where a scenario may write.
    pub(crate) fn work(&self) -> &Path {
        self.work.path()
    }

    /// Keeps what was written, for who wants to know why something failed.
    pub(crate) fn keep(self) -> PathBuf {
        self.work.keep()
    }

    /// `grpcrouter gateway` on a free port of loopback, for any service.
    pub(crate) async fn gateway(&self, name: &str, more: &[&str]) -> anyhow::Result<(Program, SocketAddr)> {
        self.gateway_at(name, "127.0.0.1:0", more).await
    }

    /// The same at this address.
    pub(crate) async fn gateway_at(
        &self,
        name: &str,
        address: &str,
        more: &[&str],
    ) -> anyhow::Result<(Program, SocketAddr)> {
        let mut command = Command::new(self.directory.join("grpcrouter"));
        command.args(["gateway", "--any-service", "--any-service-key", "instanceid", "--listen", address]).args(more);
        let program = self.start(name, command, "listening on").await?;
        let address = program.line.split(' ').find_map(|word| word.trim_end_matches([',', ';']).parse().ok());
        let address = address.with_context(|| format!("{name} does not say where it listens: {}", program.line))?;
        Ok((program, address))
    }

    /// This program as an instance, registered.
    pub(crate) async fn backend(&self, gateway: &str, id: &str) -> anyhow::Result<Program> {
        let mut command = Command::new(std::env::current_exe()?);
        self.dials(&mut command, gateway, id);
        self.start(id, command, "is ready").await
    }

    /// The same in a network namespace.
    pub(crate) async fn backend_in(&self, namespace: &str, gateway: &str, id: &str) -> anyhow::Result<Program> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(std::env::current_exe()?);
        self.dials(&mut command, gateway, id);
        self.start(id, command, "is ready").await
    }

    fn dials(&self, command: &mut Command, gateway: &str, id: &str) {
        command.args(["backend", "--gateway", gateway, "--instance-id", id, "--journal"]).arg(self.journal(id));
    }

    fn journal(&self, id: &str) -> PathBuf {
        self.work.path().join(format!("{id}.journal"))
    }

    /// How often each call was begun, in all processes that ever ran.
    pub(crate) fn executions(&self) -> anyhow::Result<BTreeMap<u64, u64>> {
        let mut executions = BTreeMap::new();
        for entry in fs::read_dir(self.work.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "journal") {
                for line in fs::read_to_string(&path)?.lines() {
                    let id = line.parse().with_context(|| format!("{} holds {line:?}", path.display()))?;
                    *executions.entry(id).or_default() += 1;
                }
            }
        }
        Ok(executions)
    }

    /// Starts a program and waits for a line that holds `ready`.
    pub(crate) async fn start(&self, name: &str, mut command: Command, ready: &str) -> anyhow::Result<Program> {
        let log = self.work.path().join(format!("{name}.log"));
        let errors = File::options().create(true).append(true).open(&log)?;
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("GRPCROUTER_")) {
            command.env_remove(variable);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        let mut lines = BufReader::new(child.stdout.take().context("it has an output")?).lines();
        let said = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains(ready) {
                    return Ok(line);
                }
            }
            bail!("{name} ended before it was ready: {}", last_lines(&log))
        };
        let line = timeout(PATIENCE, said)
            .await
            .map_err(|_| anyhow::anyhow!("{name} was not ready after {PATIENCE:?}: {}", last_lines(&log)))??;
        // Read on, so that the program never waits for room to write.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Program { child, name: name.to_owned(), log, line })
    }
}

impl Program {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        pid.with_context(|| format!("{} has ended already: {}", self.name, last_lines(&self.log)))
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} has not ended after {PATIENCE:?}: {}", self.name, last_lines(&self.log)),
        }
    }

    /// Asks it to end, and waits until it has, with code 0.
    pub(crate) async fn stopped(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended().await?;
        ensure!(status.success(), "{} got SIGTERM and ended with {status}: {}", self.name, last_lines(&self.log));
        Ok(())
    }

    /// Ends it without a word.
    pub(crate) async fn killed(mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.ended().await.map(drop)
    }

    /// Returns when its log has so many lines that hold all of these.
    pub(crate) async fn logs(&self, times: usize, parts: &[&str]) -> anyhow::Result<()> {
        let began = std::time::Instant::now();
        while self.logged(parts) < times {
            ensure!(began.elapsed() < PATIENCE, "{} never said {parts:?}: {}", self.name, last_lines(&self.log));
            sleep(Duration::from_millis(10)).await; // waits because a log is asked, which does not tell
        }
        Ok(())
    }

    /// How many lines of its log hold all of these.
    pub(crate) fn logged(&self, parts: &[&str]) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

/// Of a log, for a message.
fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().fold(String::new(), |all, line| all + "\n    " + line)
}

/// For a program to get ready, to say something, or to end: far longer than it takes, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
