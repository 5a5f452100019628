//! How long to wait before the next try: exponential with full jitter, so that a thousand instances that lost the
//! same gateway do not come back in step.

use std::time::Duration;

use rand::Rng as _;

/// The waits of one row of tries: each is drawn from zero up to a ceiling, and the ceiling doubles from 0.1 s to 5 s.
///
/// The first wait is drawn as well: what many lost at once, many would dial at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { ceiling: FIRST_CEILING, tries: 0 }
    }

    /// The wait before the next try.
    pub(crate) fn next_wait(&mut self) -> Duration {
        self.step(rand::rng().random_range(0.0..1.0))
    }

    /// No wait before the first try of a row, for what was lost rather than refused; a ceiling's wait before the others.
    pub(crate) fn at_once(&mut self) -> Duration {
        if self.tries > 0 {
            return self.next_wait();
        }
        self.tries = 1;
        Duration::ZERO
    }

    /// A try succeeded and was of use, but not for long: the row begins small again, with a wait.
    pub(crate) fn restart(&mut self) {
        *self = Self { tries: 1, ..Self::new() };
    }

    /// How many tries went before, since the last success.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// A try succeeded: the next row begins small again.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    fn step(&mut self, fraction: f64) -> Duration {
        let wait = self.ceiling.mul_f64(fraction);
        self.ceiling = (self.ceiling * 2).min(LAST_CEILING);
        self.tries = self.tries.saturating_add(1);
        wait
    }
}

/// Short enough that a blip of the network is not noticed by a client with a deadline of a second.
const FIRST_CEILING: Duration = Duration::from_millis(100);

/// Long enough that a gateway that is down costs nothing, short enough that nobody waits long once it is back.
const LAST_CEILING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_five_seconds() {
        let mut backoff = Backoff::new();

        let waits: Vec<u128> = (0..8).map(|_| backoff.step(1.0).as_millis()).collect();

        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.tries(), 8);
    }

    #[test]
    fn jitter_is_full_and_starts_with_the_first_wait() {
        let mut backoff = Backoff::new();

        assert_eq!(backoff.step(0.0), Duration::ZERO);
        assert_eq!(backoff.step(0.5), Duration::from_millis(100));
    }

    #[test]
    fn what_was_lost_is_tried_at_once_and_what_is_lost_again_and_again_is_not() {
        let mut backoff = Backoff::new();

        assert_eq!(backoff.at_once(), Duration::ZERO);
        assert_eq!((backoff.tries(), backoff.ceiling), (1, FIRST_CEILING));
        backoff.at_once();
        assert_eq!((backoff.tries(), backoff.ceiling), (2, FIRST_CEILING * 2));
        backoff.restart();
        assert!(backoff.at_once() <= FIRST_CEILING);
        assert_eq!((backoff.tries(), backoff.ceiling), (2, FIRST_CEILING * 2));
    }

    #[test]
    fn a_success_starts_the_row_again() {
        let mut backoff = Backoff::new();
        for _ in 0..5 {
            backoff.next_wait();
        }

        backoff.reset();

        assert_eq!(backoff.tries(), 0);
        assert!(backoff.next_wait() < FIRST_CEILING);
    }
}
