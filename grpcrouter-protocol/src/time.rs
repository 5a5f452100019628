//! Monotonic time as the shell tells it: the core never reads a clock.
//! Arithmetic saturates, so no timeout that a peer names can overflow it.

use std::ops::Add;
use std::time::Duration;

/// A moment, in nanoseconds since an origin that the shell chooses once and keeps for the life of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The moment `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, wait: Duration) -> Time {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_moves_time_forward() {
        assert_eq!(Time::from_nanos(5) + Duration::from_nanos(7), Time::from_nanos(12));
    }

    #[test]
    fn an_endless_wait_ends_at_the_end_of_time() {
        assert_eq!(Time::from_nanos(5) + Duration::MAX, Time::from_nanos(u64::MAX));
    }

    #[test]
    fn since_a_later_moment_nothing_has_passed() {
        assert_eq!(Time::from_nanos(5).since(Time::from_nanos(9)), Duration::ZERO);
        assert_eq!(Time::from_nanos(9).since(Time::from_nanos(5)), Duration::from_nanos(4));
    }
}
