//! The less busy of two drawn by chance, by the calls that each has open, in proportion to its weight.

use std::sync::Arc;

use super::{Balancer, Candidate, Dice, Picker, Ready, two_choices::TwoChoices};

/// Counts calls.
#[derive(Debug)]
pub(super) struct LeastRequest {
    dice: Arc<Dice>,
}

impl LeastRequest {
    pub(super) fn new(seed: u64) -> Self {
        Self { dice: Arc::new(Dice::new(seed)) }
    }
}

impl<T: Candidate> Balancer<T> for LeastRequest {
    fn picker(&mut self, ready: &Ready<T>) -> Arc<dyn Picker<T>> {
        Arc::new(TwoChoices { ready: ready.clone(), dice: self.dice.clone(), cost })
    }
}

fn cost<T: Candidate>(one: &T) -> f64 {
    (one.open_calls() + 1) as f64 / f64::from(one.weight())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ANY, counts, fake, letters, picker, picks};
    use super::*;

    #[test]
    fn of_two_the_less_busy_takes_every_call() {
        let set = [fake("a", 1, 7), fake("b", 1, 2)];

        assert_eq!(picks(&*picker(&mut LeastRequest::new(1), &set), 8, &ANY), "bbbbbbbb");
    }

    #[test]
    fn one_of_twice_the_weight_may_be_twice_as_busy() {
        let set = [fake("a", 2, 6), fake("b", 1, 3)];
        let picker = picker(&mut LeastRequest::new(1), &set);

        // (6 + 1) / 2 against (3 + 1) / 1.
        assert_eq!(picks(&*picker, 4, &ANY), "aaaa");
    }

    #[test]
    fn the_busiest_of_many_is_never_taken_and_those_alike_share() {
        let mut set = letters("abcd").to_vec();
        set.push(fake("e", 1, 9));
        let counts = counts(&*picker(&mut LeastRequest::new(5), &set), 10_000, &ANY);

        assert_eq!(counts.get("e"), None);
        assert!(counts.values().all(|count| (2_300..2_700).contains(count)), "{counts:?}");
    }

    #[test]
    fn calls_that_stay_open_spread_evenly() {
        let set = letters("abcdefghij");
        let picker = picker(&mut LeastRequest::new(3), &set);

        for _ in 0..1_000 {
            let picked = picker.pick(&crate::gateway::strategy::RoutingKey::Absent, &ANY);
            picked.into_iter().for_each(|one| one.open(1));
        }

        let open: Vec<usize> = set.iter().map(|one| one.open_calls()).collect();
        assert!(open.iter().all(|open| (97..=103).contains(open)), "{open:?}");
    }

    #[test]
    fn one_alone_takes_all_and_one_that_does_not_suit_nothing() {
        let set = [fake("a", 1, 50), fake("b", 1, 0)];
        let mut balancer = LeastRequest::new(1);

        assert_eq!(picks(&*picker(&mut balancer, &set[..1]), 3, &ANY), "aaa");
        assert_eq!(picks(&*picker(&mut balancer, &set), 3, &|one| one.name == "a"), "aaa");
        assert_eq!(picks(&*picker(&mut balancer, &[]), 1, &ANY), "-");
    }
}
