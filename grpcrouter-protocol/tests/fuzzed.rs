//! The properties of the fuzz targets `codec` and `tunnel`, over inputs drawn by chance from a fixed seed, so that they
//! hold on any compiler. `INPUTS` says how many (default 20,000); libFuzzer goes further: `cargo fuzz run tunnel`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test may fail by panic")]

mod fuzzed {
    pub(crate) mod property;
}

use fuzzed::property;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let len = self.next() % (most + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn inputs() -> u64 {
    std::env::var("INPUTS").map_or(20_000, |value| value.parse().expect("a number"))
}

#[test]
fn no_message_makes_anything_panic_or_keep_too_much() {
    for seed in 0..inputs() {
        let input = Random(seed).bytes(200);
        std::panic::catch_unwind(|| property::any_message(&input)).unwrap_or_else(|_| panic!("seed {seed}: {input:?}"));
    }
}

#[test]
fn no_steps_of_two_apps_and_a_hostile_way_make_anything_panic_or_keep_too_much() {
    for seed in 0..inputs() {
        let input = Random(seed).bytes(600);
        std::panic::catch_unwind(|| property::any_steps(&input)).unwrap_or_else(|_| panic!("seed {seed}: {input:?}"));
    }
}
