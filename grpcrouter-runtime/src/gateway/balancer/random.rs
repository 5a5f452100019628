//! By chance: each gets the same share, and nobody can tell which is next.

use std::sync::Arc;

use super::{
    Balancer, Candidate, Picker, Ready,
    chance::{self, Dice},
    first,
};
use crate::gateway::strategy::RoutingKey;

/// Throws dice.
#[derive(Debug)]
pub(super) struct Random {
    dice: Arc<Dice>,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { dice: Arc::new(Dice::new(seed)) }
    }
}

impl<T: Candidate> Balancer<T> for Random {
    fn picker(&mut self, ready: &Ready<T>) -> Arc<dyn Picker<T>> {
        Arc::new(Draws { ready: ready.clone(), dice: self.dice.clone() })
    }
}

#[derive(Debug)]
struct Draws<T> {
    ready: Ready<T>,
    dice: Arc<Dice>,
}

impl<T: Candidate> Picker<T> for Draws<T> {
    fn pick(&self, _: &RoutingKey, suits: &dyn Fn(&T) -> bool) -> Option<Arc<T>> {
        let draw = || chance::place(self.dice.throw(), self.ready.len());
        let drawn = (0..DRAWS).find_map(|_| self.ready.get(draw()).filter(|one| suits(one)));
        drawn.or_else(|| first(&self.ready, draw(), suits)).cloned()
    }
}

/// A few draws keep the chances of those that suit alike; when they all fail, whoever comes next is good enough.
const DRAWS: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a failing test may panic")]
    use super::super::tests::{ANY, counts, letters, picker};
    use super::*;

    #[test]
    fn each_one_is_drawn_about_as_often() {
        let picker = picker(&mut Random::new(1), &letters("abcd"));

        let counts = counts(&*picker, 40_000, &ANY);

        assert!(counts.values().all(|count| (9_700..10_300).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_one_that_suits_is_found_among_sixty_that_do_not() {
        let picker = picker(&mut Random::new(1), &letters(&"x".repeat(60).replacen('x', "a", 1)));

        assert_eq!(counts(&*picker, 100, &|one| one.name == "a")["a"], 100);
        assert!(picker.pick(&RoutingKey::Absent, &|_| false).is_none());
    }

    #[test]
    fn the_chance_goes_on_when_the_set_changes() {
        let mut balancer = Random::new(9);
        let draws = |picker: Arc<dyn Picker<_>>| super::super::tests::picks(&*picker, 20, &ANY);

        let (once, again) =
            (draws(picker(&mut balancer, &letters("ab"))), draws(picker(&mut balancer, &letters("ab"))));

        assert_ne!(once, again);
    }
}
