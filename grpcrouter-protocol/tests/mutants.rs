//! The simulation sees faults: each of those listed in `src/mutants.rs` is switched on in turn, in one build, and some
//! schedule must break a promise because of it. `SCHEDULES` says within how many (default 20000), `SEED` from which on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail by panic")]
#![allow(dead_code, reason = "the whole of what happened in the schedules is of use to `simulation` alone")]

use std::num::NonZero;
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use grpcrouter_protocol::{Mutant, choose};
use sim::world::World;

mod sim {
    pub(crate) mod adversary;
    pub(crate) mod apps;
    pub(crate) mod invariants;
    pub(crate) mod life;
    pub(crate) mod link;
    pub(crate) mod model;
    pub(crate) mod random;
    pub(crate) mod road;
    pub(crate) mod shell;
    pub(crate) mod world;
}

#[test]
fn nearly_every_fault_in_the_core_is_seen() {
    // What a fault breaks is expected to.
    panic::set_hook(Box::new(|_| {}));
    let (first, schedules) = (number("SEED", 1), number("SCHEDULES", 20_000));
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seen = (first..first + schedules).find_map(|seed| breaks(mutant, seed).map(|why| (seed, why)));
                    found.lock().unwrap().push((mutant, seen));
                }
            });
        }
    });
    let _ = panic::take_hook();
    let found = found.into_inner().unwrap();
    for mutant in Mutant::ALL {
        match found.iter().find(|(known, _)| known == mutant) {
            Some((_, Some((seed, why)))) => println!("{mutant:?}: seen at seed {seed}: {why}"),
            _ => println!("{mutant:?}: NOT SEEN in {schedules} schedules"),
        }
    }
    let seen = found.iter().filter(|(_, seen)| seen.is_some()).count();
    println!("{seen} of {} faults seen", Mutant::ALL.len());
    assert!(seen * 100 >= Mutant::ALL.len() * 95, "the simulation sees only {seen} of {}", Mutant::ALL.len());
}

/// The first line of what a schedule finds broken, if it does.
fn breaks(mutant: Mutant, seed: u64) -> Option<String> {
    choose(Some(mutant));
    let outcome = panic::catch_unwind(|| World::new(seed).run());
    choose(None);
    let panic = outcome.err()?;
    // It is the fault that is seen: without it the schedule keeps every promise.
    World::new(seed).run();
    let why = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).into()));
    let why = why.unwrap_or_default();
    Some(why.lines().next().unwrap_or_default().chars().take(100).collect())
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}
