//! In turn: each gets the same number of calls.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{Balancer, Candidate, MOST_LOOKS, Picker, Ready, first};
use crate::gateway::strategy::RoutingKey;

/// Takes turns; the turn goes on where it was when the set changes, so that nobody is always first.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    turn: Arc<AtomicUsize>,
}

impl<T: Candidate> Balancer<T> for RoundRobin {
    fn picker(&mut self, ready: &Ready<T>) -> Arc<dyn Picker<T>> {
        Arc::new(Turns { ready: ready.clone(), turn: self.turn.clone() })
    }
}

#[derive(Debug)]
pub(super) struct Turns<T> {
    ready: Ready<T>,
    turn: Arc<AtomicUsize>,
}

impl<T: Candidate> Turns<T> {
    pub(super) fn new(ready: &Ready<T>, turn: &Arc<AtomicUsize>) -> Self {
        Self { ready: ready.clone(), turn: turn.clone() }
    }
}

impl<T: Candidate> Picker<T> for Turns<T> {
    fn pick(&self, _: &RoutingKey, suits: &dyn Fn(&T) -> bool) -> Option<Arc<T>> {
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(self.ready.len());
        // Who does not suit loses the turn, so that the next one does not get two calls.
        for _ in 0..self.ready.len().min(MOST_LOOKS) {
            let one = self.ready.get(turn()?)?;
            if suits(one) {
                return Some(one.clone());
            }
        }
        // Other calls took turns at the same time; none of these may have been of one that suits.
        first(&self.ready, turn()?, suits).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ANY, counts, letters, picker, picks};
    use super::*;

    #[test]
    fn each_one_has_its_turn() {
        let picker = picker(&mut RoundRobin::default(), &letters("abc"));

        assert_eq!(picks(&*picker, 7, &ANY), "abcabca");
    }

    #[test]
    fn one_that_does_not_suit_loses_its_turn_and_the_next_one_gets_no_more_for_it() {
        let picker = picker(&mut RoundRobin::default(), &letters("abcd"));

        assert_eq!(picks(&*picker, 6, &|one| one.name != "b"), "acdacd");
        assert_eq!(picks(&*picker, 6, &|one| one.name == "a" || one.name == "d"), "adadad");
    }

    #[test]
    fn nobody_is_picked_where_nobody_suits_or_is() {
        let mut balancer = RoundRobin::default();

        assert_eq!(picks(&*picker(&mut balancer, &letters("a")), 1, &|_| false), "-");
        assert_eq!(picks(&*picker(&mut balancer, &letters("")), 1, &ANY), "-");
    }

    #[test]
    fn the_turn_goes_on_when_the_set_changes() {
        let mut balancer = RoundRobin::default();
        let before = picker(&mut balancer, &letters("ab"));
        assert_eq!(picks(&*before, 1, &ANY), "a");

        let after = picker(&mut balancer, &letters("abc"));

        assert_eq!(picks(&*after, 3, &ANY), "bca");
    }

    #[test]
    fn nobody_is_more_than_one_call_ahead_of_another_whatever_the_numbers() {
        for len in 1..40 {
            for calls in [1, 7, 100, 1001] {
                let set = letters(&"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"[..len]);
                let counts = counts(&*picker(&mut RoundRobin::default(), &set), calls, &ANY);
                let least = if counts.len() < len { 0 } else { counts.values().copied().min().unwrap_or(0) };
                let most = counts.values().copied().max().unwrap_or(0);
                assert!(most - least <= 1, "{calls} calls to {len}: {counts:?}");
            }
        }
    }

    #[test]
    fn calls_at_the_same_time_share_the_turns() {
        let picker = picker(&mut RoundRobin::default(), &letters("abc"));

        let all: String = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| picks(&*picker, 3_000, &ANY))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });

        for name in ['a', 'b', 'c'] {
            assert_eq!(all.matches(name).count(), 4_000, "{name}");
        }
    }
}
