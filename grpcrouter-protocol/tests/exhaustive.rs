//! Every order of things within tiny bounds, over the very types of the crate: no state is reached that breaks a promise,
//! and from every state a fair network brings all to its end. `STATES` says how many states of each bound are looked at,
//! those nearest to the beginning first (default 4000); `make exhaustive` looks at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail by panic")]
#![allow(dead_code, reason = "what only chance brings about is of use to `simulation`")]

use std::collections::BTreeSet;
use std::num::NonZero;

use tiny::step::{Bounds, Step, Tiny};

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
mod tiny {
    pub(crate) mod step;
}

const NOTHING: Bounds =
    Bounds { calls: 1, bytes: 1, cuts: 0, dials: 0, refusals: 0, expiries: 0, cancels: 0, drains: 0 };

#[test]
fn one_call_one_cut_two_dials() {
    explore(Bounds { cuts: 1, dials: 2, ..NOTHING });
}

#[test]
fn one_call_one_cut_one_dial() {
    explore(Bounds { cuts: 1, dials: 1, ..NOTHING });
}

#[test]
fn two_moves_while_the_old_stream_lives() {
    explore(Bounds { dials: 2, ..NOTHING });
}

#[test]
fn a_refused_move() {
    explore(Bounds { dials: 1, cuts: 1, refusals: 1, ..NOTHING });
}

#[test]
fn a_window_that_runs_out() {
    explore(Bounds { cuts: 1, dials: 1, expiries: 1, ..NOTHING });
}

#[test]
fn a_cancel_around_a_cut() {
    explore(Bounds { cuts: 1, dials: 1, cancels: 1, ..NOTHING });
}

#[test]
fn a_drain_around_a_cut() {
    explore(Bounds { cuts: 1, dials: 1, drains: 1, ..NOTHING });
}

#[test]
fn two_calls_and_a_move() {
    explore(Bounds { calls: 2, dials: 1, ..NOTHING });
}

#[test]
fn a_call_of_two_parts_and_a_move() {
    explore(Bounds { bytes: 2, dials: 1, ..NOTHING });
}

/// Looks at every state that can be reached, each from the shortest way to it.
fn explore(bounds: Bounds) {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let most = std::env::var("STATES").map_or(4_000, |most| most.parse().expect("a number"));
    let mut seen = BTreeSet::from([Tiny::new(bounds).digest()]);
    let mut frontier: Vec<Vec<Step>> = vec![Vec::new()];
    let (mut depth, mut edges) = (0, 0);
    while !frontier.is_empty() && seen.len() < most {
        let found: Vec<(u64, Vec<Step>)> = std::thread::scope(|scope| {
            let shares = frontier.chunks(frontier.len().div_ceil(threads));
            let look_at = |ways: &[Vec<Step>]| ways.iter().flat_map(|way| look(bounds, way)).collect::<Vec<_>>();
            let shares: Vec<_> = shares.map(|ways| scope.spawn(move || look_at(ways))).collect();
            shares.into_iter().flat_map(|share| share.join().expect("every state keeps every promise")).collect()
        });
        depth += 1;
        edges += found.len();
        frontier = found.into_iter().filter(|(digest, _)| seen.insert(*digest)).map(|(_, way)| way).collect();
    }
    let extent = if frontier.is_empty() { "all" } else { "the first" };
    println!("{bounds:?}: {extent} {} states, {edges} steps between them, up to {depth} deep", seen.len());
}

/// Settles one state, and gives back all that come after it.
fn look(bounds: Bounds, way: &[Step]) -> Vec<(u64, Vec<Step>)> {
    let _replay = Replay(bounds, way);
    let walk = || {
        let mut tiny = Tiny::new(bounds);
        way.iter().for_each(|&step| tiny.take(step));
        tiny
    };
    let here = walk();
    let steps = here.steps();
    let mut settled = here;
    settled.world.is_healed = true;
    settled.world.settle();
    steps
        .into_iter()
        .map(|step| {
            let mut next = walk();
            next.take(step);
            (next.digest(), [way, &[step]].concat())
        })
        .collect()
}

/// Says how a state that breaks a promise was reached.
struct Replay<'a>(Bounds, &'a [Step]);

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:?} in {:?}", self.1, self.0);
        }
    }
}
