//! Whether one has more calls than its share, without a count that every call would have to touch: each pick looks at a
//! few of them in turn, so the sum is late by a fraction of a call for each.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::super::Candidate;

/// The calls that a set has open in all, as far as they were looked at.
#[derive(Debug)]
pub(super) struct Load {
    /// What each had when it was looked at last.
    seen: Box<[AtomicU64]>,
    sum: AtomicU64,
    turn: AtomicUsize,
    weights: u64,
}

impl Load {
    pub(super) fn new<T: Candidate>(ready: &[Arc<T>]) -> Self {
        let open: Vec<u64> = ready.iter().map(|one| one.open_calls() as u64).collect();
        Self {
            sum: AtomicU64::new(open.iter().sum()),
            seen: open.into_iter().map(AtomicU64::new).collect(),
            turn: AtomicUsize::new(0),
            weights: ready.iter().map(|one| u64::from(one.weight())).sum(),
        }
    }

    /// Looks at the next few.
    pub(super) fn look_on<T: Candidate>(&self, ready: &[Arc<T>]) {
        let turn = self.turn.fetch_add(LOOKS, Ordering::Relaxed);
        for turn in turn..turn.saturating_add(LOOKS.min(ready.len())) {
            let number = turn.checked_rem(ready.len()).unwrap_or_default();
            let (Some(one), Some(seen)) = (ready.get(number), self.seen.get(number)) else { return };
            let now = one.open_calls() as u64;
            let before = seen.swap(now, Ordering::Relaxed);
            // Whoever swaps takes exactly what was there before: the sum is that of what was seen.
            self.sum.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Whether one more call there leaves it within its share and a quarter.
    pub(super) fn has_room<T: Candidate>(&self, one: &T) -> bool {
        let open = one.open_calls() as u64;
        // The share of all calls with this one, times 5/4, rounded up.
        let all = self.sum.load(Ordering::Relaxed).saturating_add(1);
        let share = all.saturating_mul(u64::from(one.weight()) * 5).div_ceil((self.weights * 4).max(1));
        open < FEW || open < share
    }
}

/// So few are never too many: with next to no calls at all a key would be sent away from its own for nothing.
const FEW: u64 = 8;

/// With so many looks for each pick the sum is late by a quarter of a call for each instance.
const LOOKS: usize = 4;
