//! In turn, by weight: twice the weight, twice the calls, and the calls of one spread evenly among those of the others.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Balancer, Candidate, Picker, Ready,
    chance::{GOLDEN, below, mix, place},
    first,
};
use crate::gateway::strategy::RoutingKey;

/// Lays the weights side by side and steps over them with the golden ratio: wherever it begins, each stretch is met as
/// often as it is long, early and evenly. No state but the number of the turn.
#[derive(Debug)]
pub(super) struct Weighted {
    turn: Arc<AtomicU64>,
}

impl Weighted {
    pub(super) fn new(seed: u64) -> Self {
        Self { turn: Arc::new(AtomicU64::new(seed)) }
    }
}

impl<T: Candidate> Balancer<T> for Weighted {
    fn picker(&mut self, ready: &Ready<T>) -> Arc<dyn Picker<T>> {
        let ends = ready.iter().scan(0, |end, one| {
            *end += u64::from(one.weight());
            Some(*end)
        });
        Arc::new(Stretches { ends: ends.collect(), ready: ready.clone(), turn: self.turn.clone() })
    }
}

#[derive(Debug)]
struct Stretches<T> {
    ready: Ready<T>,
    /// Where the stretch of each one ends; they begin at 0.
    ends: Box<[u64]>,
    turn: Arc<AtomicU64>,
}

impl<T: Candidate> Stretches<T> {
    fn next(&self) -> Option<&Arc<T>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let at = below(turn.wrapping_mul(GOLDEN), *self.ends.last()?);
        self.ready.get(self.ends.partition_point(|end| *end <= at))
    }
}

impl<T: Candidate> Picker<T> for Stretches<T> {
    fn pick(&self, _: &RoutingKey, suits: &dyn Fn(&T) -> bool) -> Option<Arc<T>> {
        let turns = (0..TURNS).find_map(|_| self.next().filter(|one| suits(one)));
        let anywhere = || place(mix(self.turn.load(Ordering::Relaxed)), self.ready.len());
        turns.or_else(|| first(&self.ready, anywhere(), suits)).cloned()
    }
}

/// As many turns keep the shares of those that suit; when one heavy instance has them all and does not suit, whoever
/// comes next is good enough.
const TURNS: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a failing test may panic")]
    use super::super::tests::{ANY, counts, letters, picker, picks, weighing};
    use super::*;

    #[test]
    fn twice_the_weight_is_twice_the_calls_and_they_are_spread() {
        let picker = picker(&mut Weighted::new(0), &weighing(&[("a", 2), ("b", 1), ("c", 1)]));

        assert_eq!(picks(&*picker, 16, &ANY), "abacaabacbacaaba");
    }

    #[test]
    fn shares_are_within_one_percent_of_the_weights() {
        for (seed, weights) in [
            (0, vec![1, 1]),
            (1, vec![90, 10]),
            (2, vec![1, 2, 3, 4]),
            (3, vec![1000, 500, 250, 250]),
            (4, vec![7; 10]),
            (5, (1..=20).collect()),
        ] {
            let names: Vec<String> = (0..weights.len()).map(|n| format!("n{n}")).collect();
            let set: Vec<_> = names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
            let counts = counts(&*picker(&mut Weighted::new(seed), &weighing(&set)), 100_000, &ANY);

            let total: u32 = weights.iter().sum();
            for (name, weight) in set {
                let due = 100_000.0 * f64::from(weight) / f64::from(total);
                let got = counts[name] as f64;
                assert!((got - due).abs() <= due / 100.0, "{name} of {weights:?}: {got} calls, due are {due}");
            }
        }
    }

    #[test]
    fn the_shares_hold_among_those_that_suit() {
        let picker = picker(&mut Weighted::new(3), &weighing(&[("a", 60), ("b", 30), ("c", 10)]));

        let counts = counts(&*picker, 40_000, &|one| one.name != "a");

        assert!((29_400..30_600).contains(&counts["b"]), "{counts:?}");
    }

    #[test]
    fn the_one_that_suits_is_found_behind_the_heaviest() {
        let picker = picker(&mut Weighted::new(0), &weighing(&[("a", 1000), ("b", 1)]));

        assert_eq!(counts(&*picker, 50, &|one| one.name == "b")["b"], 50);
        assert_eq!(picks(&*super::super::tests::picker(&mut Weighted::new(0), &letters("")), 1, &ANY), "-");
    }
}
