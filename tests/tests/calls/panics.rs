//! A handler that panics ends its own call and hurts nobody else.

use grpcrouter_tests::{
    probe::say,
    raw::{RawClient, frame},
    world::{PATIENCE, TestBackend, TestGateway},
};
use myservice::proto::{Method1Request, Method2Request, StreamRequest};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use super::{KINDS, UNARY};

const NEIGHBOURS: u32 = 100;

#[tokio::test]
async fn a_handler_that_panics_is_an_unknown_status_in_each_kind_and_a_hundred_neighbours_feel_nothing() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    // On the same tunnel and the same connection: streams that are open throughout.
    let mut neighbours = JoinSet::new();
    let (go, _) = tokio::sync::watch::channel(false);
    for number in 0..NEIGHBOURS {
        let mut call = client.call(KINDS[3].path, &[]).await.unwrap();
        let mut wait = go.subscribe();
        neighbours.spawn(async move {
            let message = |round: u32| frame(&StreamRequest { text: format!("{number} {round}") });
            call.request.send_data(message(0), false).unwrap();
            wait.wait_for(|go| *go).await.unwrap();
            call.request.send_data(message(1), true).unwrap();
            let end = call.end().await.unwrap();
            (end.code(), end.body.len())
        });
    }
    backend.probe.saw("stream begins", NEIGHBOURS as usize).await;

    for round in 0..5 {
        for kind in KINDS {
            let mut call = client.call(kind.path, &[]).await.unwrap();
            let message = frame(&Method2Request { text: say::PANIC.to_owned(), count: 2 });
            // Of an upload more is to come, and never does.
            call.request.send_data(message, !kind.uploads).unwrap();
            let end = timeout(PATIENCE, call.end()).await.unwrap().unwrap();
            assert_eq!(end.code(), Code::Unknown as i32, "{round} {}: {}", kind.name, end.message());
            assert_eq!(end.reason(), ("HANDLER_PANICKED".to_owned(), "MAYBE_EXECUTED".to_owned()));
        }
        let end = client.unary(UNARY.path, &[], &Method1Request { text: "fine".to_owned() }).await.unwrap();
        assert_eq!(end.code(), 0);
    }

    assert_eq!(neighbours.len(), NEIGHBOURS as usize);
    go.send_replace(true);
    while let Some(neighbour) = timeout(PATIENCE, neighbours.join_next()).await.unwrap() {
        let (code, length) = neighbour.unwrap();
        assert_eq!(code, 0);
        assert!(length > 10);
    }
    assert_eq!(gateway.gateway.stats().tunnels, 1);
    drop(client);
    connection.abort();
    gateway.stop(vec![backend]).await;
}
