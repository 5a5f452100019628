//! A stalled reader among a hundred busy calls costs them nothing, and little memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use grpcrouter_tests::{
    by_hand::ByHand,
    raw::{RawClient, frame},
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::{Method1Request, Method2Request};
use tokio::{task::JoinSet, time::timeout};

use super::{KINDS, UNARY};

const BUSY: usize = 100;
const ROUNDS: usize = 20;
const STALLED: usize = 8;

/// What one stalled call may hold in a tunnel, in one direction: its first window.
const WINDOW: usize = 64 * 1024;
/// And what was polled from its source when the window was already used up.
const PART: usize = 16 * 1024;
/// What a client may send before any of it is taken: the window of its stream at the gateway's front.
const FRONT: usize = 256 * 1024;

/// A hundred clients that make their calls one after the other; how many were answered well, and the most bytes that
/// `queued` told meanwhile.
async fn busy(
    client: &RawClient,
    key: &'static str,
    queued: impl Fn() -> usize + Send + Sync + 'static,
) -> (usize, usize) {
    let (most, queued) = (Arc::new(AtomicUsize::new(0)), Arc::new(queued));
    let mut calls = JoinSet::new();
    for number in 0..BUSY {
        let (client, most, queued) = (client.clone(), most.clone(), queued.clone());
        calls.spawn(async move {
            let mut well = 0;
            for round in 0..ROUNDS {
                let message = Method1Request { text: format!("{number} {round}") };
                let headers = [("instanceid", key)];
                let end = client.unary(UNARY.path, &headers, &message);
                well += usize::from(timeout(PATIENCE, end).await.unwrap().unwrap().code() == 0);
                most.fetch_max(queued(), Ordering::Relaxed);
            }
            well
        });
    }
    let mut well = 0;
    while let Some(calls) = calls.join_next().await {
        well += calls.unwrap();
    }
    (well, most.load(Ordering::Relaxed))
}

#[tokio::test]
async fn stalled_readers_of_a_response_leave_the_counts_of_busy_calls_unchanged_and_hold_a_window_each() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let look = {
        let backend = backend.backend.clone();
        move || backend.stats().queued_bytes
    };
    let (alone, quiet) = busy(&client, "a", look.clone()).await;
    let (stalled, stalled_connection) = RawClient::connect(gateway.address).await.unwrap();
    let mut calls = Vec::new();
    for _ in 0..STALLED {
        let mut call = stalled.call(KINDS[1].path, &[]).await.unwrap();
        call.request.send_data(frame(&Method2Request { text: "y".repeat(10_000), count: 10_000 }), true).unwrap();
        calls.push(call);
    }
    eventually("a window is full", {
        let look = look.clone();
        move || look() > WINDOW / 2
    })
    .await;

    let (beside, most) = busy(&client, "a", look).await;

    assert_eq!((alone, beside), (BUSY * ROUNDS, BUSY * ROUNDS));
    // The busy calls need what they needed alone.
    assert!(most <= quiet.max(BUSY * 1024) + STALLED * (WINDOW + PART), "{most}");
    drop((calls, stalled, client));
    stalled_connection.abort();
    connection.abort();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_stalled_instance_leaves_the_counts_of_busy_calls_unchanged_and_the_gateway_holds_a_window_each() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut instance = ByHand::register(gateway.address, "stalled").await.unwrap();
    gateway.instances(2).await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let look = {
        let gateway = gateway.gateway.clone();
        move || gateway.stats().queued_bytes
    };
    let (alone, quiet) = busy(&client, "a", look.clone()).await;
    let (stalled, stalled_connection) = RawClient::connect(gateway.address).await.unwrap();
    let mut calls = Vec::new();
    for _ in 0..STALLED {
        let mut call = stalled.call(KINDS[2].path, &[("instanceid", "stalled")]).await.unwrap();
        // More than a window each; what the client's own window does not take yet waits with the client.
        for _ in 0..40 {
            call.request.send_data(Bytes::from(vec![0; 16 * 1024]), false).unwrap();
        }
        calls.push(call);
    }
    for _ in 0..STALLED {
        timeout(PATIENCE, instance.started()).await.unwrap().unwrap();
    }

    let (beside, most) = busy(&client, "a", look).await;

    assert_eq!((alone, beside), (BUSY * ROUNDS, BUSY * ROUNDS));
    assert!(most <= quiet.max(BUSY * 1024) + STALLED * (WINDOW + PART + FRONT), "{most}");
    drop((calls, stalled, client));
    stalled_connection.abort();
    connection.abort();
    gateway.idle().await;
    instance.die();
    gateway.instances(1).await;
    gateway.stop(vec![backend]).await;
}
