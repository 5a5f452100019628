//! In turn: each gets the same number of calls.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Balancer, Picker};

/// Takes turns; the turn goes on where it was when the set changes, so that nobody is always first.
#[derive(Debug, Default)]
pub(in crate::gateway) struct RoundRobin {
    turn: Arc<AtomicUsize>,
}

impl<T: Debug + Send + Sync + 'static> Balancer<T> for RoundRobin {
    fn picker(&mut self, ready: Vec<Arc<T>>) -> Arc<dyn Picker<T>> {
        Arc::new(Turns { ready, turn: self.turn.clone() })
    }
}

#[derive(Debug)]
struct Turns<T> {
    ready: Vec<Arc<T>>,
    turn: Arc<AtomicUsize>,
}

impl<T: Debug + Send + Sync> Picker<T> for Turns<T> {
    fn pick(&self, suits: &dyn Fn(&T) -> bool) -> Option<Arc<T>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(self.ready.len())?;
        let (before, from) = self.ready.split_at_checked(turn)?;
        from.iter().chain(before).find(|one| suits(one)).cloned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn picker(balancer: &mut RoundRobin, names: &[&'static str]) -> Arc<dyn Picker<&'static str>> {
        balancer.picker(names.iter().copied().map(Arc::new).collect())
    }

    fn picks(picker: &dyn Picker<&'static str>, count: usize, suits: &dyn Fn(&&'static str) -> bool) -> String {
        (0..count).map(|_| picker.pick(suits).map_or("-", |one| *one)).collect()
    }

    #[test]
    fn each_one_has_its_turn() {
        let picker = picker(&mut RoundRobin::default(), &["a", "b", "c"]);

        assert_eq!(picks(&*picker, 7, &|_| true), "abcabca");
    }

    #[test]
    fn one_that_does_not_suit_is_passed_over() {
        let picker = picker(&mut RoundRobin::default(), &["a", "b", "c"]);

        assert_eq!(picks(&*picker, 6, &|one| *one != "b"), "accacc");
    }

    #[test]
    fn nobody_is_picked_where_nobody_suits_or_is() {
        let mut balancer = RoundRobin::default();

        assert_eq!(picks(&*picker(&mut balancer, &["a"]), 1, &|_| false), "-");
        assert_eq!(picks(&*picker(&mut balancer, &[]), 1, &|_| true), "-");
    }

    #[test]
    fn the_turn_goes_on_when_the_set_changes() {
        let mut balancer = RoundRobin::default();
        let before = picker(&mut balancer, &["a", "b"]);
        assert_eq!(picks(&*before, 1, &|_| true), "a");

        let after = picker(&mut balancer, &["a", "b", "c"]);

        assert_eq!(picks(&*after, 3, &|_| true), "bca");
    }
}
