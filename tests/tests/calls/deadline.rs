//! A deadline ends a call on time, on both sides, wherever the call stands.
//!
//! "On time" is judged by order, which a busy machine does not change: a call that begins 50 ms after another's deadline
//! is answered after that one has ended. With `DEADLINES_BY_THE_CLOCK` set, the clock is asked too.

use std::time::Duration;

use futures_util::FutureExt as _;
use grpcrouter_tests::{
    deadlines::{grpc_timeout, long_enough},
    probe::{Probe, say},
    raw::RawClient,
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::{Method1Request, Method2Request};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tonic::Code;

use super::{KINDS, Kind, UNARY};

const LATE: Duration = Duration::from_millis(50);
const WAVES: usize = 2;
const WAVE: usize = 20;

/// One call whose deadline passes while `kind`'s handler waits, one of those that make `begun` handlers run; how late its
/// end came.
async fn one(kind: Kind, client: RawClient, probe: Probe, wait: Duration, begun: usize) -> Duration {
    let millis = format!("{}m", wait.as_millis());
    let mut call = client.call(kind.path, &[("grpc-timeout", &millis)]).await.unwrap();
    call.request.send_data(kind.endless(), !kind.uploads).unwrap();
    let mut end = Box::pin(async move {
        let end = call.end().await.unwrap();
        (end, Instant::now())
    });
    let begins = kind.begins();
    // The time runs from when the gateway has the call: at the latest from when its handler runs.
    let early = tokio::select! {
        biased;
        ended = &mut end => Some(ended),
        () = probe.saw(&begins, begun) => None,
    };
    let due = Instant::now() + wait;
    let early = match early {
        None => tokio::select! {
            biased;
            ended = &mut end => Some(ended),
            () = sleep_until(due + LATE) => None, // waits because this is the time that is tested
        },
        early => early,
    };
    let (end, at) = match early {
        Some(ended) => ended,
        None => {
            let echo = Method1Request { text: "echo".to_owned() };
            let echo = timeout(PATIENCE, client.unary(UNARY.path, &[], &echo)).await.unwrap().unwrap();
            assert_eq!(echo.code(), 0);
            end.now_or_never().expect("a call that began 50 ms after the deadline was answered before the deadline was")
        }
    };
    assert_eq!(end.code(), Code::DeadlineExceeded as i32, "{}", end.message());
    assert_eq!(end.reason().0, "DEADLINE");
    at.saturating_duration_since(due)
}

async fn deadlines_of(kind: Kind) {
    let seed: u64 = rand::random();
    let mut dice = StdRng::seed_from_u64(seed);
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let mut most = Duration::ZERO;
    for wave in 1..=WAVES {
        let mut running = JoinSet::new();
        // The echoes of the first kind begin handlers of the same name, so what began is counted anew.
        let begun = backend.probe.times(&kind.begins()) + WAVE;
        for _ in 0..WAVE {
            let wait = Duration::from_millis(dice.random_range(50..400));
            running.spawn(one(kind, client.clone(), backend.probe.clone(), wait, begun));
        }
        while let Some(late) = running.join_next().await {
            most = most.max(late.unwrap());
        }
        let probe = &backend.probe;
        eventually("every handler has ended", || {
            let done = probe.times(&format!("{} done", kind.name));
            probe.times(&kind.begins()) == probe.times(&kind.dropped()) + done
        })
        .await;
        println!("{} wave {wave}: the latest was answered {most:?} late (seed {seed})", kind.name);
    }

    let log = backend.probe.log();
    assert!(!log.iter().any(|line| line.contains("clean end") || line.contains("error")), "{log:?}");
    if std::env::var_os("DEADLINES_BY_THE_CLOCK").is_some() {
        assert!(most <= LATE, "{most:?}");
    }
    drop(client);
    connection.abort();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn the_deadline_of_a_unary_call_ends_it_in_time() {
    deadlines_of(KINDS[0]).await;
}

#[tokio::test]
async fn the_deadline_of_a_server_stream_ends_it_in_time() {
    deadlines_of(KINDS[1]).await;
}

#[tokio::test]
async fn the_deadline_of_an_upload_ends_it_in_time_and_never_as_a_clean_end() {
    deadlines_of(KINDS[2]).await;
}

#[tokio::test]
async fn the_deadline_of_a_stream_both_ways_ends_it_in_time_and_never_as_a_clean_end() {
    deadlines_of(KINDS[3]).await;
}

#[tokio::test]
async fn a_deadline_is_never_early_and_takes_nothing_of_an_answer_that_comes_in_time() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();

    long_enough(async |deadline| {
        let (began, timeout) = (Instant::now(), grpc_timeout(deadline));
        let slow = Method2Request { text: say::SLOW.to_owned(), count: 1_000 };
        let end = client.unary(KINDS[1].path, &[("grpc-timeout", &timeout)], &slow).await.unwrap();
        assert!(began.elapsed() >= deadline);
        assert_eq!(end.code(), Code::DeadlineExceeded as i32);
        // What came before the deadline is there, whole.
        (!end.body.is_empty()).then_some(())
    })
    .await;

    drop(client);
    connection.abort();
    gateway.stop(vec![backend]).await;
}
