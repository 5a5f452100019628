//! What a newcomer runs into in the first hour, on the real programs: each message says what happened, why, and what to
//! do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

const GATEWAY: &str = env!("CARGO_BIN_EXE_myservice-gateway");
const BACKEND: &str = env!("CARGO_BIN_EXE_myservice-backend");
const CLIENT: &str = env!("CARGO_BIN_EXE_myservice-client");
const PATIENCE: Duration = Duration::from_secs(60);

/// A program, and the lines that it has printed to either output.
struct Program {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Program {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line that contains all of `parts`.
    fn says(&mut self, parts: &[&str]) -> String {
        let started = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
                Ok(line) if parts.iter().all(|part| line.contains(part)) => return line,
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no line with {parts:?}, but:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    fn terminate(mut self) -> ExitStatus {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
        self.end()
    }

    fn end(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the program does not end");
            std::thread::sleep(Duration::from_millis(5)); // waits because a process can only be asked whether it ended
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn gateway() -> (Program, String) {
    let mut gateway = Program::start(GATEWAY, &["--listen", "127.0.0.1:0"]);
    let line = gateway.says(&["listening on 127.0.0.1:"]);
    let address = line.rsplit(' ').next().unwrap().to_owned();
    (gateway, address)
}

fn client(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(CLIENT).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn all_four_kinds_in_router_mode_and_every_program_ends_with_code_0() {
    let (mut gateway, address) = gateway();
    let uri = format!("http://{address}");
    let backend = Program::start(BACKEND, &["--mode", "router", "--gateway", &uri, "--instance-id", "site-a"]);
    gateway.says(&["site-a", "myservice.MyService"]);

    let (ok, text) = client(&["--target", &uri, "all"]);

    assert!(ok, "{text}");
    contains_all(&text, &["site-a"]);
    let (ok, text) = client(&["--target", &uri, "--instance-id", "site-a", "all"]);
    assert!(ok, "{text}");
    assert!(backend.terminate().success());
    // A line for the one that goes, too.
    gateway.says(&["site-a"]);
    assert!(gateway.terminate().success());
}

#[test]
fn a_call_before_any_backend_says_that_none_has_registered_and_how_one_does() {
    let (gateway, address) = gateway();

    let (ok, text) = client(&["--target", &format!("http://{address}"), "method1"]);

    assert!(!ok);
    contains_all(&text.to_lowercase(), &["unavailable", "no instance of myservice.myservice has registered", "dial"]);
    assert!(gateway.terminate().success());
}

#[test]
fn an_unknown_key_names_the_key_and_who_is_there() {
    let (mut gateway, address) = gateway();
    let uri = format!("http://{address}");
    let backend = Program::start(BACKEND, &["--mode", "router", "--gateway", &uri, "--instance-id", "site-a"]);
    gateway.says(&["site-a"]);

    let (ok, text) = client(&["--target", &uri, "--instance-id", "site-b", "method1"]);

    assert!(!ok);
    contains_all(&text, &["instanceid", "site-b", "site-a"]);
    assert!(backend.terminate().success());
    assert!(gateway.terminate().success());
}

#[test]
fn a_backend_whose_gateway_is_not_there_says_so_and_comes_when_it_is() {
    let address = free_address();
    let uri = format!("http://{address}");
    let mut backend = Program::start(BACKEND, &["--mode", "router", "--gateway", &uri, "--instance-id", "early"]);
    backend.says(&[&address, "refused", "is the gateway running"]);

    let mut gateway = Program::start(GATEWAY, &["--listen", &address]);

    gateway.says(&["early"]);
    assert!(client(&["--target", &uri, "method1"]).0);
    assert!(backend.terminate().success());
    assert!(gateway.terminate().success());
}

#[test]
fn a_port_in_use_says_who_may_hold_it_and_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (program, arguments) in
        [(GATEWAY, vec!["--listen", &address]), (BACKEND, vec!["--mode", "direct", "--listen", &address])]
    {
        let mut program = Program::start(program, &arguments);
        program.says(&[&address, "another process listens there", "choose another port"]);
        assert!(!program.end().success());
    }
}

#[test]
fn help_is_printed_with_code_0_and_names_the_flags() {
    for (program, flags) in [
        (GATEWAY, &["--listen"][..]),
        (BACKEND, &["--mode", "--gateway", "--listen", "--instance-id"]),
        (CLIENT, &["--target", "--instance-id", "method1", "stream", "all"]),
    ] {
        let output = Command::new(program).arg("--help").output().unwrap();
        assert!(output.status.success(), "{program}");
        contains_all(&String::from_utf8_lossy(&output.stdout), flags);
    }
}

#[test]
fn direct_and_both_modes_answer_the_same_client() {
    let direct = free_address();
    let mut backend = Program::start(BACKEND, &["--mode", "direct", "--listen", &direct, "--instance-id", "d"]);
    backend.says(&[&direct]);
    let (ok, text) = client(&["--target", &format!("http://{direct}"), "all"]);
    assert!(ok, "{text}");
    assert!(backend.terminate().success());

    let (mut gateway, address) = gateway();
    let (uri, both) = (format!("http://{address}"), free_address());
    let arguments = ["--mode", "both", "--gateway", &uri, "--listen", &both, "--instance-id", "both"];
    let backend = Program::start(BACKEND, &arguments);
    gateway.says(&["both"]);
    for target in [uri, format!("http://{both}")] {
        let (ok, text) = client(&["--target", &target, "all"]);
        assert!(ok, "{text}");
    }
    assert!(backend.terminate().success());
    assert!(gateway.terminate().success());
}
