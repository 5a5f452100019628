//! One process of the program, which does not outlive its test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::NamedTempFile;

/// It runs.
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: NamedTempFile,
}

impl Process {
    /// Starts `grpcrouter` with these arguments and no environment of the test's own.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let stderr = NamedTempFile::new().unwrap();
        let mut child = command(arguments)
            .stdout(Stdio::piped())
            .stderr(stderr.reopen().unwrap())
            .spawn()
            .expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// The next line of standard output; "" at its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it ended:\n{}", self.told());
        line.trim_end().to_owned()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn told(&self) -> String {
        let mut text = String::new();
        self.stderr.reopen().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until it has ended; the code that it ended with.
    pub(crate) fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Sends SIGTERM and waits; the code that it ended with.
    pub(crate) fn stop(self) -> Option<i32> {
        self.terminate();
        self.ended()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `grpcrouter` with these arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpcrouter"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GRPCROUTER_")) {
        command.env_remove(name);
    }
    command
}

/// The address behind `what` in a gateway's one line.
pub(crate) fn address(line: &str, what: &str) -> SocketAddr {
    let (_, rest) = line.split_once(&format!("{what} on ")).unwrap_or_else(|| panic!("{line}"));
    rest.split(',').next().unwrap_or_default().parse().unwrap_or_else(|error| panic!("{line}: {error}"))
}
