//! A tunnel that moves to another connection while the one that it has still lives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use grpcrouter_protocol::{RejectReason, Time};
use grpcrouter_tests::world::{PATIENCE, TestBackend, eventually};
use myservice::proto::{Method1Request, StreamRequest};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    played::{Played, TUNNEL},
    world::{Road, text},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_moves_under_load_and_no_call_notices() {
    const MOVES: u64 = 20;
    let road = Road::start().await;
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for caller in 0..4 {
        let (mut client, over) = (road.client().await, over.clone());
        callers.push(tokio::spawn(async move {
            let mut calls = 0;
            while !over.load(Ordering::Relaxed) {
                let sent = text(caller, 30_000);
                let answer = client.method1(Method1Request { text: sent.clone() }).await.unwrap().into_inner();
                assert!(answer.text == sent);
                calls += 1;
            }
            calls
        }));
    }
    let mut client = road.client().await;
    let (sender, messages) = mpsc::channel(1);
    let call = client.stream_method(ReceiverStream::new(messages));
    let mut answers = timeout(PATIENCE, call).await.unwrap().unwrap().into_inner();

    for round in 0..MOVES {
        road.backend.backend.reconnect();
        road.is_back(2 + round).await;
        sender.send(StreamRequest { text: round.to_string() }).await.unwrap();
        let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().expect("an answer");
        assert_eq!(answer.text, round.to_string());
    }

    over.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        calls += timeout(PATIENCE, caller).await.unwrap().unwrap();
    }
    assert_eq!(road.backend.probe.times("method1 begins"), calls);
    assert_eq!(road.relay.taken(), 1 + MOVES);
    drop((sender, answers, client));
    eventually("one tunnel", || road.backend.backend.stats().tunnels == 1).await;
    road.end().await;
}

#[tokio::test]
async fn a_connection_that_is_said_to_end_soon_is_left_for_another_before_it_does() {
    let gateway = Played::start().await;
    let backend = TestBackend::dial(&gateway.uri(), "a");
    let mut first = gateway.visited().await;
    assert_eq!(first.hello.resume, None);
    first.accept("one", Vec::new());
    eventually("a tunnel", || backend.backend.stats().tunnels == 1).await;

    first.go_away();

    let mut second = gateway.visited().await;
    let resume = second.resume();
    assert_eq!((resume.tunnel_id, &resume.token[..], resume.epoch.get()), (TUNNEL, &b"one"[..], 1));
    // Until there is an answer it has both.
    assert!(!first.is_over());
    second.give("two");
    first.over().await;

    second.go_away();
    let mut third = gateway.visited().await;
    assert_eq!((&third.resume().token[..], third.resume().epoch.get()), (&b"two"[..], 2));
    third.give("three");
    second.over().await;
    assert_eq!(backend.backend.stats().tunnels, 1);
    backend.kill().await;
}

#[tokio::test]
async fn a_tunnel_that_may_not_move_asks_again_and_again() {
    let gateway = Played::start().await;
    let backend = TestBackend::dial(&gateway.uri(), "a");
    let mut first = gateway.visited().await;
    first.accept("one", Vec::new());
    eventually("a tunnel", || backend.backend.stats().tunnels == 1).await;

    backend.backend.reconnect();
    for reason in [RejectReason::ResourceExhausted, RejectReason::Unknown] {
        let mut asked = gateway.visited().await;
        asked.reject(reason, Vec::new());
        asked.over().await;
        assert!(!first.is_over());
    }

    let mut moved = gateway.visited().await;
    assert_eq!(moved.resume().epoch.get(), 3);
    moved.give("two");
    first.over().await;
    assert_eq!(backend.backend.stats().tunnels, 1);
    backend.kill().await;
}

#[tokio::test]
async fn a_tunnel_that_may_not_move_goes_on_where_it_is() {
    let (gateway, other) = (Played::start().await, Played::start().await);
    let backend = TestBackend::dial(&gateway.uri(), "a");
    let mut first = gateway.visited().await;
    let mut tunnel = first.accept("one", Vec::new());
    eventually("a tunnel", || backend.backend.stats().tunnels == 1).await;
    backend.backend.reconnect();
    let mut asked = gateway.visited().await;

    // It is told now, while it does not read, and reads it when it has its answer.
    tunnel.peers_changed(vec![other.uri()], Time::default());
    first.transmit(&mut tunnel);
    asked.reject_for(RejectReason::ResourceExhausted, Vec::new(), Duration::from_secs(300));

    other.visited().await;
    assert!(!first.is_over());
    backend.kill().await;
}
