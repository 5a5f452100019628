//! Chance without a lock: a counter, hashed. The same seed throws the same dice.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers by chance, for everybody who shares it.
#[derive(Debug)]
pub(in crate::gateway) struct Dice {
    thrown: AtomicU64,
}

impl Dice {
    pub(in crate::gateway) fn new(seed: u64) -> Self {
        Self { thrown: AtomicU64::new(seed) }
    }

    /// Any number.
    pub(in crate::gateway) fn throw(&self) -> u64 {
        mix(self.thrown.fetch_add(GOLDEN, Ordering::Relaxed))
    }
}

/// A number below `sides`, from a `throw` that may be any; 0 if there is none.
pub(super) fn below(throw: u64, sides: u64) -> u64 {
    let scaled = (u128::from(throw) * u128::from(sides)) >> 64;
    u64::try_from(scaled).unwrap_or_default()
}

/// [`below`], for places in a list.
pub(super) fn place(throw: u64, len: usize) -> usize {
    usize::try_from(below(throw, len as u64)).unwrap_or_default()
}

/// The output step of splitmix64: each bit of `n` moves half of the bits.
pub(super) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(GOLDEN);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// 2^64 divided by the golden ratio: its multiples spread over the circle as evenly as can be.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let dice = Dice::new(1_234_567);

        // The published test vector.
        assert_eq!([dice.throw(), dice.throw()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_number_below_is_below_and_each_comes_as_often() {
        let dice = Dice::new(7);
        let mut came = [0; 6];

        (0..60_000).for_each(|_| came.iter_mut().skip(place(dice.throw(), 6)).take(1).for_each(|count| *count += 1));

        assert_eq!(came.iter().sum::<i32>(), 60_000);
        assert!(came.iter().all(|count| (9_700..10_300).contains(count)), "{came:?}");
        assert_eq!([below(u64::MAX, 6), below(0, 6), below(u64::MAX, 0)], [5, 0, 0]);
    }
}
