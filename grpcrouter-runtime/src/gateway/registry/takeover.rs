//! Two processes with one instance id push each other out. Now and then that is a restart; again and again it is a
//! mistake, and then the one that is here stays. Pure: time is told.

use std::{collections::VecDeque, time::Duration};

use grpcrouter_protocol::Time;

/// What happened lately to one instance id that several processes want.
#[derive(Debug, Default)]
pub(super) struct Takeovers {
    /// When tunnels that were well were displaced.
    lately: VecDeque<Time>,
    /// Until then no other process gets this id.
    closed_until: Option<Time>,
}

impl Takeovers {
    /// Whether another process may have the id; else how long it is to wait.
    fn may_take(&self, now: Time) -> Result<(), Duration> {
        match self.closed_until {
            Some(until) if until > now => Err(until.since(now)),
            _ => Ok(()),
        }
    }

    /// Another process asks for the id of one that is well. One time too many, and nobody gets it for a while.
    pub(super) fn ask(&mut self, now: Time) -> Result<(), Duration> {
        self.may_take(now)?;
        self.lately.retain(|at| now.since(*at) < LATELY);
        if self.lately.len() >= MOST_TAKEOVERS {
            self.lately.clear();
            self.closed_until = Some(now + REFUSED_FOR);
            return Err(REFUSED_FOR);
        }
        self.lately.push_back(now);
        Ok(())
    }
}

/// So many takeovers in so long may be restarts; one more is a mistake.
const MOST_TAKEOVERS: usize = 3;
const LATELY: Duration = Duration::from_secs(60);

/// Long enough that the calls of the one that stays have peace, short enough to notice that it went.
const REFUSED_FOR: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn the_fourth_takeover_in_a_minute_is_refused_for_a_minute() {
        let mut takeovers = Takeovers::default();
        let asks = [0, 10, 20, 30, 89, 90].map(|secs| takeovers.ask(at(secs)).map_err(|wait| wait.as_secs()));

        assert_eq!(asks, [Ok(()), Ok(()), Ok(()), Err(60), Err(1), Ok(())]);
    }

    #[test]
    fn three_in_every_minute_are_no_mistake() {
        let mut takeovers = Takeovers::default();

        assert!((0..100).all(|nth| takeovers.ask(at(nth * 21)).is_ok()));
    }
}
