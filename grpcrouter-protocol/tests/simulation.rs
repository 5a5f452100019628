//! Two real tunnels in a simulated world: seeded schedules, small windows, slow and stalled consumers, against a naive
//! model. `SCHEDULES` says how many (default 2000) and `SEED` from which on (default 1); a failure prints its seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail by panic")]

use sim::world::World;

mod sim {
    pub(crate) mod apps;
    pub(crate) mod invariants;
    pub(crate) mod link;
    pub(crate) mod model;
    pub(crate) mod random;
    pub(crate) mod world;
}

#[test]
fn every_schedule_keeps_every_promise() {
    let first = number("SEED", 1);
    let schedules = number("SCHEDULES", 2_000);
    let mut seen = sim::model::Seen::default();
    for seed in first..first + schedules {
        let _replay = Replay(seed);
        seen.add(&World::new(seed).run());
    }
    println!("{schedules} schedules from seed {first}: {seen:?}");
    if schedules >= 1_000 {
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
            eprintln!(
                "replay: SEED={} SCHEDULES=1 cargo test -p grpcrouter-protocol --test simulation every_schedule",
                self.0
            );
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}
