//! Real clients, gateways and backends in one process, under seeded schedules of faults, in a time that is made here.
//! `SCHEDULES` says how many, `SEED` which is the first, `LOG=1` shows the log; a schedule that fails prints the line that
//! runs it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

#[path = "full_stack/clock.rs"]
mod clock;
#[path = "full_stack/plan.rs"]
mod plan;
#[path = "full_stack/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use plan::Plan;

#[test]
fn every_call_ends_once_and_right_whatever_the_network_does() {
    let first = from_environment("SEED", FIRST_SEED);
    let schedules = from_environment("SCHEDULES", SCHEDULES);
    if std::env::var_os("LOG").is_some() {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .init();
    }
    world::warm_up();
    let next = AtomicU64::new(first);
    let (failures, sums) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::<&str, u64>::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(schedules) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + schedules || failures.lock().unwrap().len() >= ENOUGH {
                        return;
                    }
                    let plan = Plan::new(seed);
                    let seen = world::run(&plan);
                    if !seen.broken.is_empty() {
                        failures.lock().unwrap().push(told(&plan, &seen.broken));
                    }
                    let mut sums = sums.lock().unwrap();
                    for (what, count) in seen.counts {
                        *sums.entry(what).or_default() += count;
                    }
                }
            });
        }
    });
    let sums: Vec<String> = sums.into_inner().unwrap().iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!("full stack: {schedules} schedules from seed {first}: {}", sums.join(", "));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What went wrong, and how to see it again.
fn told(plan: &Plan, broken: &[String]) -> String {
    let seed = plan.seed;
    let again = format!("SEED={seed} SCHEDULES=1 cargo test -p grpcrouter-chaos --test full_stack -- --nocapture");
    format!("{plan}\n  {}\n  again: {again}", broken.join("\n  "))
}

fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")),
        Err(_) => default,
    }
}

/// `make test` runs these; CI runs 2,000.
const SCHEDULES: u64 = 60;

const FIRST_SEED: u64 = 1;

/// Worlds at once: they wait for the network of this machine half of the time.
const AT_ONCE: u64 = 4;

/// So many failures tell the story.
const ENOUGH: usize = 5;
