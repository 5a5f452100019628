//! What the tests of all balancers share: candidates that are letters. And what holds for all of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap is a failed test")]

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::*;

/// A candidate whose state a test sets.
#[derive(Debug)]
pub(super) struct Fake {
    pub(super) name: String,
    weight: u32,
    open: AtomicUsize,
    /// Bits of an f64, in milliseconds.
    latency: AtomicU64,
    looks: AtomicUsize,
}

impl Fake {
    pub(super) fn open(&self, more: usize) {
        self.open.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn takes(&self, millis: f64) {
        self.latency.store(millis.to_bits(), Ordering::Relaxed);
    }
}

impl Candidate for Fake {
    fn name(&self) -> &str {
        &self.name
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    fn open_calls(&self) -> usize {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.open.load(Ordering::Relaxed)
    }

    fn latency(&self) -> Option<f32> {
        let millis = f64::from_bits(self.latency.load(Ordering::Relaxed));
        (millis > 0.0).then_some((millis * 1e6) as f32)
    }
}

pub(super) fn fake(name: &str, weight: u32, open: usize) -> Arc<Fake> {
    let (open, latency, looks) = (AtomicUsize::new(open), AtomicU64::new(0), AtomicUsize::new(0));
    Arc::new(Fake { name: name.to_owned(), weight, open, latency, looks })
}

/// One for each letter, of weight 1.
pub(super) fn letters(letters: &str) -> Vec<Arc<Fake>> {
    letters.chars().map(|letter| fake(&letter.to_string(), 1, 0)).collect()
}

pub(super) fn weighing(set: &[(&str, u32)]) -> Vec<Arc<Fake>> {
    set.iter().map(|(name, weight)| fake(name, *weight, 0)).collect()
}

pub(super) fn picker(balancer: &mut dyn Balancer<Fake>, set: &[Arc<Fake>]) -> Arc<dyn Picker<Fake>> {
    balancer.picker(&set.into())
}

/// Suits whoever it is.
pub(super) const ANY: fn(&Fake) -> bool = |_| true;

/// The names of those that so many calls without a key go to; `-` for nobody.
pub(super) fn picks(picker: &dyn Picker<Fake>, count: usize, suits: &dyn Fn(&Fake) -> bool) -> String {
    let pick = || picker.pick(&RoutingKey::Absent, suits);
    (0..count).map(|_| pick().map_or("-".to_owned(), |one| one.name.clone())).collect()
}

/// How many of so many calls without a key go to each.
pub(super) fn counts(
    picker: &dyn Picker<Fake>,
    calls: usize,
    suits: &dyn Fn(&Fake) -> bool,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        let one = picker.pick(&RoutingKey::Absent, suits);
        *counts.entry(one.map_or("-".to_owned(), |one| one.name.clone())).or_default() += 1;
    }
    counts
}

pub(super) fn numbered(count: usize) -> Vec<Arc<Fake>> {
    (0..count).map(|number| fake(&format!("instance-{number}"), 1, 0)).collect()
}

const ALL: [LoadBalancing; 6] = [
    LoadBalancing::RoundRobin,
    LoadBalancing::WeightedRoundRobin,
    LoadBalancing::LeastRequest,
    LoadBalancing::PeakEwma,
    LoadBalancing::ConsistentHash,
    LoadBalancing::Random,
];

fn keys() -> impl Iterator<Item = RoutingKey> + Clone {
    std::iter::once(RoutingKey::Absent)
        .chain((0..30).map(|number| RoutingKey::Value(format!("key {number}").into_bytes().into())))
}

#[test]
fn every_balancing_picks_only_who_suits_and_finds_the_last_that_does() {
    for balancing in ALL {
        for len in 1..=40 {
            let set = numbered(len);
            let picker = picker(&mut *maker(balancing, 11), &set);
            let only = &set[len / 2];
            for key in keys() {
                let picked = picker.pick(&key, &|one| std::ptr::eq(one, &**only));
                assert!(picked.is_some_and(|one| Arc::ptr_eq(&one, only)), "{balancing:?}, {len}, {key:?}");
                assert!(picker.pick(&key, &|_| false).is_none(), "{balancing:?}, {len}, {key:?}");
            }
        }
    }
}

#[test]
fn no_balancing_picks_anybody_of_nobody() {
    for balancing in ALL {
        let picker = picker(&mut *maker(balancing, 11), &[]);
        assert!(keys().all(|key| picker.pick(&key, &ANY).is_none()), "{balancing:?}");
    }
}

#[test]
fn a_pick_looks_at_no_more_of_ten_thousand_than_of_ten() {
    for balancing in ALL {
        let looks = |len| {
            let set = numbered(len);
            let picker = picker(&mut *maker(balancing, 11), &set);
            set.iter().for_each(|one| one.looks.store(0, Ordering::Relaxed));
            let suited = Cell::new(0);
            let calls = keys().cycle().take(1_000).filter_map(|key| {
                picker.pick(&key, &|_| {
                    suited.set(suited.get() + 1);
                    true
                })
            });
            assert_eq!(calls.count(), 1_000);
            suited.get() + set.iter().map(|one| one.looks.load(Ordering::Relaxed)).sum::<usize>()
        };

        let (ten, many) = (looks(10), looks(10_000));

        assert!(many <= ten + ten / 50, "{balancing:?}: {ten} looks for a thousand calls, {many} among ten thousand");
    }
}

#[test]
fn where_nobody_suits_the_looks_are_bounded() {
    let set = numbered(10_000);
    for balancing in ALL {
        let picker = picker(&mut *maker(balancing, 11), &set);
        for key in keys() {
            let suited = Cell::new(0);
            let no = |_: &Fake| {
                suited.set(suited.get() + 1);
                false
            };
            assert!(picker.pick(&key, &no).is_none());
            assert!(suited.get() <= 3 * MOST_LOOKS, "{balancing:?}: {} looks", suited.get());
        }
    }
}

/// So many picks of one balancing among so many; `tests/pick-gate.sh` says how many and counts the instructions.
#[test]
fn as_many_picks_as_are_asked_for_find_somebody() {
    let number = |name, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let only = std::env::var("BALANCING").ok();
    let (set, keys) = (numbered(number("AMONG", 10)), keys().collect::<Vec<_>>());
    for balancing in ALL.into_iter().filter(|one| only.as_deref().is_none_or(|only| only == one.name())) {
        let picker = picker(&mut *maker(balancing, 11), &set);
        let found = keys.iter().cycle().take(number("PICKS", 100)).filter(|key| picker.pick(key, &|_| true).is_some());
        assert_eq!(found.count(), number("PICKS", 100));
    }
}
