//! A cancel reaches the handler from wherever the call stands, and is never the end of an upload.

use grpcrouter_tests::{
    raw::{RawCall, RawClient},
    world::{PATIENCE, TestBackend, TestGateway},
};
use h2::{Reason, RecvStream};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{task::JoinHandle, time::timeout};

use super::{KINDS, Kind};

const CANCELS: usize = 1_000;
/// Calls at once: few enough that no guard against resets takes them for an attack.
const WAVE: usize = 50;
/// Of those, on one connection.
const SHARE: usize = 10;

/// One call whose handler runs.
struct Running {
    call: RawCall,
    answer: Option<RecvStream>,
}

/// Cancels one call after a random number of messages and answers, perhaps inside a message.
async fn cancel(kind: Kind, mut running: Running, dice: &mut StdRng) {
    if kind.answers && dice.random_bool(0.7) {
        // Both kinds with a stream of answers give one at once.
        let response = timeout(PATIENCE, &mut running.call.response).await.unwrap().unwrap();
        let mut body = response.into_body();
        if dice.random_bool(0.5) {
            timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        }
        running.answer = Some(body);
    }
    if kind.uploads {
        for _ in 0..dice.random_range(0..4) {
            running.call.request.send_data(kind.endless(), false).unwrap();
            yields(dice).await;
        }
        if dice.random_bool(0.5) {
            let message = kind.endless();
            let cut = dice.random_range(1..message.len());
            running.call.request.send_data(message.slice(..cut), false).unwrap();
        }
    }
    yields(dice).await;
    if dice.random_bool(0.5) {
        running.call.request.send_reset(Reason::CANCEL);
    }
    // Else by dropping all there is of the call.
}

async fn yields(dice: &mut StdRng) {
    for _ in 0..dice.random_range(0..20) {
        tokio::task::yield_now().await;
    }
}

/// Begins a call that its handler would work on for ever.
async fn begin(kind: Kind, client: &RawClient) -> Running {
    let mut call = client.call(kind.path, &[]).await.unwrap();
    call.request.send_data(kind.endless(), !kind.uploads).unwrap();
    Running { call, answer: None }
}

/// Begins a call and cancels it before its handler can have all that it needs.
async fn too_early(kind: Kind, client: &RawClient, dice: &mut StdRng) {
    let mut call = client.call(kind.path, &[]).await.unwrap();
    if dice.random_bool(0.5) {
        let message = kind.endless();
        call.request.send_data(message.slice(..dice.random_range(1..message.len())), false).unwrap();
    }
    yields(dice).await;
}

async fn a_thousand_cancels(kind: Kind) {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("again with SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut early = 0;
    for wave in 0..CANCELS / WAVE {
        let mut clients: Vec<(RawClient, JoinHandle<()>)> = Vec::new();
        let mut running = Vec::new();
        let begun = backend.probe.times(&kind.begins());
        for index in 0..WAVE {
            if index % SHARE == 0 {
                clients.push(RawClient::connect(gateway.address).await.unwrap());
            }
            running.push(begin(kind, &clients[index / SHARE].0).await);
        }
        backend.probe.saw(&kind.begins(), begun + WAVE).await;
        // From here on one connection in ten dies with all its calls; the others cancel one by one.
        let dies = dice.random_bool(0.5).then(|| dice.random_range(0..clients.len()));
        for (index, call) in running.into_iter().enumerate() {
            if dies == Some(index / SHARE) {
                if index % SHARE == SHARE / 2 {
                    clients[index / SHARE].1.abort();
                }
                continue;
            }
            cancel(kind, call, &mut dice).await;
        }
        for (index, (client, _)) in clients.iter().enumerate() {
            if dies != Some(index) {
                too_early(kind, client, &mut dice).await;
                early += 1;
            }
        }
        // A handler of an upload may have begun with its head alone: it is dropped as well.
        gateway.idle().await;
        drop(clients);
        assert!(backend.probe.times(&kind.dropped()) >= wave * WAVE);
    }

    // Every handler that began was dropped; none was done, and none saw an end or an error in its stream.
    backend.probe.saw(&kind.dropped(), backend.probe.times(&kind.begins())).await;
    let log = backend.probe.log();
    let begun = backend.probe.times(&kind.begins());
    assert!((CANCELS..=CANCELS + early).contains(&begun), "{begun}");
    let others = ["clean end", "error", "done"];
    let wrong: Vec<_> = log.iter().filter(|line| others.iter().any(|other| line.contains(other))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    gateway.stop(vec![backend]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cancelled_unary_calls_drop_their_handlers() {
    a_thousand_cancels(KINDS[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cancelled_server_streams_drop_their_handlers() {
    a_thousand_cancels(KINDS[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cancelled_uploads_drop_their_handlers_and_none_is_a_clean_end() {
    a_thousand_cancels(KINDS[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cancelled_streams_both_ways_drop_their_handlers_and_none_is_a_clean_end() {
    a_thousand_cancels(KINDS[3]).await;
}
