//! `protoc-gen-grpcrouter`, as protoc and buf start it: a request on stdin, a response on stdout.
//! Started by hand it explains itself instead of waiting for a request that never comes.

use std::{
    io::{self, IsTerminal, Read, Write},
    panic,
    process::ExitCode,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] if io::stdin().is_terminal() => {
            fail(&format!("protoc starts this program; it reads a request from stdin.\n\n{HELP}"), 2)
        }
        [] => plugin(),
        ["--version" | "-V"] => print(&format!("protoc-gen-grpcrouter {}\n", env!("CARGO_PKG_VERSION"))),
        ["--help" | "-h"] => print(HELP),
        ["--print-options-proto"] => print(protoc_gen_grpcrouter::OPTIONS_PROTO),
        _ => fail(&format!("unexpected arguments: {}\n\n{HELP}", arguments.join(" ")), 2),
    }
}

fn plugin() -> ExitCode {
    quiet_where_panics_are_caught();
    let mut request = Vec::new();
    if let Err(error) = io::stdin().lock().read_to_end(&mut request) {
        return fail(&format!("cannot read the request: {error}\n"), 1);
    }
    match protoc_gen_grpcrouter::run(&request) {
        Ok(response) => write(&response),
        Err(error) => fail(&format!("{error}\n"), 1),
    }
}

/// prost-reflect panics on some broken descriptors, which the library catches and words; its own words would only puzzle.
fn quiet_where_panics_are_caught() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|location| location.file().contains("prost-reflect")) {
            hook(info);
        }
    }));
}

fn print(text: &str) -> ExitCode {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write to stdout: {error}\n"), 1),
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    eprint!("protoc-gen-grpcrouter: {text}");
    ExitCode::from(code)
}

const HELP: &str = include_str!("help.txt");
