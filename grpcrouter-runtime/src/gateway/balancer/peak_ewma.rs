//! The quicker of two drawn by chance: by how long each took to answer lately, and by what it has to do now. A peak
//! counts at once, and is forgotten slowly.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use grpcrouter_protocol::Time;

use super::{Balancer, Candidate, Dice, Picker, Ready, two_choices::TwoChoices};

/// Measures.
#[derive(Debug)]
pub(super) struct PeakEwma {
    dice: Arc<Dice>,
}

impl PeakEwma {
    pub(super) fn new(seed: u64) -> Self {
        Self { dice: Arc::new(Dice::new(seed)) }
    }
}

impl<T: Candidate> Balancer<T> for PeakEwma {
    fn picker(&mut self, ready: &Ready<T>) -> Arc<dyn Picker<T>> {
        Arc::new(TwoChoices { ready: ready.clone(), dice: self.dice.clone(), cost })
    }
}

/// How long one more call is likely to take.
fn cost<T: Candidate>(one: &T) -> f64 {
    let open = one.open_calls();
    match one.latency() {
        Some(latency) => f64::from(latency) * (open + 1) as f64 / f64::from(one.weight()),
        // A newcomer is tried with one call, and with no more before it has answered that.
        None => UNMEASURED * open as f64,
    }
}

/// Nanoseconds: longer than any answer takes.
const UNMEASURED: f64 = 1e15;

/// How long one instance takes to answer: a moving average that a peak lifts at once. One atomic, so that any number of
/// calls may end at a time.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Latency {
    /// The average in nanoseconds as f32 in the high half, the millisecond of the last answer in the low one; 0 before
    /// the first.
    packed: AtomicU64,
}

impl Latency {
    /// One call was answered after `took`.
    pub(in crate::gateway) fn answered(&self, took: Duration, now: Time) {
        let took = took.as_nanos() as f32;
        let measured = |packed| {
            let average = match unpack(packed) {
                None => took,
                Some((average, at)) => {
                    let left = faded(at, now);
                    if took > average * left { took } else { average * left + took * (1.0 - left) }
                }
            };
            Some(pack(average.max(1.0), now))
        };
        // Never refused, so nothing to look at.
        let _ = self.packed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, measured);
    }

    /// One call ended after `took` without an answer, which would have taken at least as long.
    pub(in crate::gateway) fn waited(&self, took: Duration, now: Time) {
        if self.now(now).is_none_or(|average| took.as_nanos() as f32 > average) {
            self.answered(took, now);
        }
    }

    /// Nanoseconds; less and less while nobody is answered, so that one that was slow is tried again.
    pub(in crate::gateway) fn now(&self, now: Time) -> Option<f32> {
        let (average, at) = unpack(self.packed.load(Ordering::Relaxed))?;
        Some(average * faded(at, now))
    }
}

/// What is left of an average that was made in the millisecond `at`.
fn faded(at: u32, now: Time) -> f32 {
    let passed = millis(now).wrapping_sub(at);
    (-(passed as f32) / HALF_LIFE.as_millis() as f32).exp2()
}

fn pack(average: f32, now: Time) -> u64 {
    u64::from(average.to_bits()) << 32 | u64::from(millis(now))
}

fn unpack(packed: u64) -> Option<(f32, u32)> {
    let average = f32::from_bits((packed >> 32) as u32);
    (average > 0.0).then_some((average, packed as u32))
}

/// Wraps after seven weeks: one that was not called for so long is as good as new.
fn millis(now: Time) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

/// Until a peak counts half: as long as it takes to believe that it was one.
const HALF_LIFE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::tests::{ANY, counts, fake, picker, picks};
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// In whole milliseconds.
    fn now(latency: &Latency, millis: u64) -> Option<u64> {
        latency.now(at(millis)).map(|nanos| (nanos / 1e6).round() as u64)
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_by_half_in_five_seconds() {
        let latency = Latency::default();
        assert_eq!(now(&latency, 0), None);

        latency.answered(ms(10), at(1_000));
        latency.answered(ms(800), at(1_000));
        assert_eq!(now(&latency, 1_000), Some(800));
        assert_eq!(now(&latency, 6_000), Some(400));

        // (800 / 2) / 2, and the other half is what was measured last.
        latency.answered(ms(20), at(6_000));
        assert_eq!(now(&latency, 6_000), Some(410));
    }

    #[test]
    fn a_call_that_was_given_up_lifts_it_and_never_brings_it_down() {
        let latency = Latency::default();
        latency.answered(ms(100), at(1_000));

        latency.waited(ms(1), at(1_000));
        assert_eq!(now(&latency, 1_000), Some(100));
        latency.waited(ms(700), at(1_000));
        assert_eq!(now(&latency, 1_000), Some(700));
    }

    #[test]
    fn many_quick_answers_bring_it_down() {
        let latency = Latency::default();
        latency.answered(ms(1_000), at(0));

        (1..=400).for_each(|step| latency.answered(ms(10), at(step * 100)));

        assert!(now(&latency, 40_000) <= Some(15), "{:?}", now(&latency, 40_000));
    }

    #[test]
    fn of_two_the_quicker_takes_the_calls_until_it_is_too_busy() {
        let [a, b] = [fake("a", 1, 0), fake("b", 1, 0)];
        a.takes(100.0);
        b.takes(10.0);
        let picker = picker(&mut PeakEwma::new(1), &[a, b.clone()]);

        assert_eq!(picks(&*picker, 4, &ANY), "bbbb");
        b.open(20);
        assert_eq!(picks(&*picker, 4, &ANY), "aaaa");
    }

    #[test]
    fn a_newcomer_is_tried_with_one_call_first() {
        let [old, new] = [fake("o", 1, 3), fake("n", 1, 0)];
        old.takes(10.0);
        let picker = picker(&mut PeakEwma::new(1), &[old, new.clone()]);

        assert_eq!(picks(&*picker, 1, &ANY), "n");
        new.open(1);
        assert_eq!(picks(&*picker, 9, &ANY), "ooooooooo");
        new.takes(5.0);
        assert_eq!(picks(&*picker, 1, &ANY), "n");
    }

    #[test]
    fn the_slowest_of_many_is_never_taken() {
        let set = ["a", "b", "c", "z"].map(|name| fake(name, 1, 0));
        for one in &set {
            one.takes(if one.name == "z" { 90.0 } else { 10.0 });
        }

        let counts = counts(&*picker(&mut PeakEwma::new(2), &set), 3_000, &ANY);

        assert_eq!(counts.get("z"), None);
        assert!(counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
