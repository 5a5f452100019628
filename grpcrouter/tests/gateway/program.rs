//! The program by itself: its one line, its exit codes, its errors.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use grpcrouter_protocol::{CallId, Event, Headers, RejectReason, ResponsePart, Trailers};
use grpcrouter_tests::{
    by_hand::ByHand,
    raw::{RawCall, RawClient},
    world::PATIENCE,
};
use tokio::time::timeout;

use crate::process::{Process, address, command};

/// Runs it to its end: the code, and what it wrote.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_tells_where_it_listens_and_ends_with_0_when_it_is_told_to() {
    let mut gateway = Process::start(&["gateway", "--dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);

    let line = gateway.line();

    assert!(line.starts_with("grpcrouter gateway: listening on 127.0.0.1:"), "{line}");
    for what in ["listening", "admin"] {
        TcpStream::connect(address(&line, what)).unwrap();
    }
    assert!(gateway.told().contains("--dev: NO TLS, NO TOKENS"), "{}", gateway.told());
    assert_eq!(gateway.stop(), Some(0));
}

/// A gateway with an instance that has a call of a client.
struct Busy {
    gateway: Process,
    at: SocketAddr,
    instance: ByHand,
    client: RawClient,
    call: RawCall,
    id: CallId,
}

impl Busy {
    async fn new() -> Self {
        let other = "https://other.example";
        let mut gateway = Process::start(&["gateway", "--any-service", "--listen", "127.0.0.1:0", "--peer", other]);
        let at = address(&gateway.line(), "listening");
        let mut instance = ByHand::register(at, "a").await.unwrap();
        assert_eq!(instance.accepted.gateways, ["https://other.example:443"]);
        let (client, _) = RawClient::connect(at).await.unwrap();
        let mut call = client.call("/myservice.MyService/Method1", &[]).await.unwrap();
        call.request.send_data(Default::default(), true).unwrap();
        let (id, _) = instance.started().await.unwrap();
        Self { gateway, at, instance, client, call, id }
    }

    /// Told to stop, and the instance has heard of it.
    async fn told_to_stop(&mut self) {
        self.gateway.terminate();
        let told = timeout(PATIENCE, self.instance.event()).await.unwrap().unwrap();
        assert_eq!(told, Event::Draining { gateways: vec!["https://other.example:443".to_owned()] });
    }
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_runs_and_sends_others_on() {
    let mut busy = Busy::new().await;

    busy.told_to_stop().await;

    let hello = ByHand::introduction("b", 16).unwrap();
    let rejected = ByHand::knock(busy.at, None, &[], &hello).await.unwrap().unwrap_err();
    assert_eq!((rejected.reason, rejected.gateways.len()), (RejectReason::Draining, 1));
    let trailers = Some(Trailers::default());
    let answer = ResponsePart { headers: Some(Headers::default()), trailers, ..ResponsePart::default() };
    busy.instance.respond(busy.id, answer).unwrap();
    assert_eq!(busy.call.end().await.unwrap().code(), 0);
    drop((busy.client, busy.instance));
    assert_eq!(busy.gateway.ended(), Some(0));
}

#[tokio::test]
async fn told_to_stop_again_it_ends_at_once() {
    let mut busy = Busy::new().await;
    busy.told_to_stop().await;

    busy.gateway.terminate();

    assert_eq!(busy.gateway.ended(), Some(130));
}

#[test]
fn a_file_with_a_mistake_is_told_with_its_line_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let file = file.to_str().unwrap();

    fs::write(file, "listen = \"127.0.0.1:0\"\n[limits]\nmax_cals = 5\n").unwrap();
    let (code, _, told) = run(&["gateway", "--config", file]);
    assert_eq!(code, Some(1));
    assert!(told.contains(&format!("{file}:3:1: unknown field `max_cals`")), "{told}");
    assert!(told.contains("did you mean max_calls?"), "{told}");

    fs::write(file, "[any_service]\nstrategy = \"HEADER_BASED\"\n").unwrap();
    let (code, _, told) = run(&["gateway", "--config", file, "--check-config"]);
    assert_eq!(code, Some(1));
    assert!(told.contains(file) && told.contains("it needs a routing_key"), "{told}");

    fs::write(file, "descriptor_sets = [\"shop.binpb\"]\n").unwrap();
    let (code, _, told) = run(&["gateway", "--config", file, "--check-config"]);
    assert_eq!(code, Some(1));
    let set = folder.path().join("shop.binpb");
    assert!(told.contains(&format!("cannot read the descriptor set {}", set.display())), "{told}");
}

#[test]
fn the_example_file_passes_the_check() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/gateway.toml");

    let (code, said, told) = run(&["gateway", "--config", example, "--check-config"]);

    assert_eq!(code, Some(0), "{told}");
    assert!(said.contains("can be used"), "{said}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();

    let (code, _, told) = run(&["gateway", "--any-service", "--listen", &at]);

    assert_eq!(code, Some(1));
    assert!(told.contains(&format!("cannot listen at {at}")), "{told}");
}

#[test]
fn prometheus_is_answered_where_it_was_said() {
    // A port that was free a moment ago.
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = metrics.to_string();
    let mut gateway = Process::start(&["gateway", "--any-service", "--listen", "127.0.0.1:0", "--metrics-listen", &at]);
    assert_eq!(address(&gateway.line(), "metrics"), metrics);

    assert!(asked(metrics).contains("grpcrouter_instances"), "{}", asked(metrics));

    assert_eq!(gateway.stop(), Some(0));
}

fn asked(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
