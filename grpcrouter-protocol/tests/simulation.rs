//! Two real tunnels in a simulated world: seeded schedules, small windows, slow and stalled consumers, connections that die
//! in every way, processes that restart, thieves; against a naive model. `SCHEDULES` says how many (default 5000) and
//! `SEED` from which on (default 1); a failure prints the line that runs its schedule again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail by panic")]
#![allow(dead_code, reason = "what a tiny world needs is of use to `exhaustive` alone")]

use std::num::NonZero;

use sim::model::Seen;
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
fn every_schedule_keeps_every_promise() {
    let first = number("SEED", 1);
    let schedules = number("SCHEDULES", 5_000);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let share = |thread| {
            move || {
                let mut seen = Seen::default();
                for seed in (first + thread..first + schedules).step_by(threads as usize) {
                    let _replay = Replay(seed);
                    seen.add(&World::new(seed).run());
                }
                seen
            }
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(share(thread))).collect();
        for thread in threads {
            seen.add(&thread.join().expect("every schedule keeps every promise"));
        }
    });
    println!("{schedules} schedules from seed {first}: {seen:?}");
    if schedules >= 2_000 {
        seen.assert_everything_happened();
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..20 {
        let _replay = Replay(seed);
        assert_eq!(World::new(seed).run().trace, World::new(seed).run().trace);
    }
}

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: make sim SCHEDULES=1 SEED={}", self.0);
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}
