//! How many wrong tries came from one address, or of one principal, lately. Pure: time is told.

use std::{collections::HashMap, hash::Hash, time::Duration};

use grpcrouter_protocol::Time;

/// Failed tries by who tried.
#[derive(Debug)]
pub(super) struct Failures<K> {
    by: HashMap<Option<K>, Tries>,
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self { by: HashMap::new() }
    }
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    since: Time,
    count: u32,
}

/// What to make of one more failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Try {
    /// One of a few.
    Told,
    /// The first of too many.
    FirstTooMany,
    /// It is not worth a line in the log.
    TooMany,
}

impl<K: Eq + Hash> Failures<K> {
    /// One more try failed. Those who are not known are one.
    pub(super) fn one_more(&mut self, from: Option<K>, now: Time) -> Try {
        let mut from = from;
        if self.by.len() >= MOST_ADDRESSES && !self.by.contains_key(&from) {
            self.by.retain(|_, tries| now.since(tries.since) < LATELY);
            if self.by.len() >= MOST_ADDRESSES {
                from = None;
            }
        }
        let tries = self.by.entry(from).or_insert(Tries { since: now, count: 0 });
        if now.since(tries.since) >= LATELY {
            *tries = Tries { since: now, count: 0 };
        }
        tries.count = tries.count.saturating_add(1);
        match tries.count {
            ..=MOST_TRIES => Try::Told,
            count if count == MOST_TRIES + 1 => Try::FirstTooMany,
            _ => Try::TooMany,
        }
    }
}

/// A few backends behind one address that all have an old token, each trying again every few seconds.
const MOST_TRIES: u32 = 30;
const LATELY: Duration = Duration::from_secs(60);

/// Some 200 KiB.
const MOST_ADDRESSES: usize = 4096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::net::IpAddr;

    use super::*;
    use crate::gateway::peer::network;

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn the_thirty_first_try_of_a_minute_is_too_many_and_others_are_not_touched() {
        let mut failures = Failures::default();
        let (one, other) = (Some("192.0.2.1"), Some("192.0.2.2"));

        assert!((0..30).all(|_| failures.one_more(one, at(0)) == Try::Told));
        assert_eq!(failures.one_more(one, at(1)), Try::FirstTooMany);
        assert_eq!(failures.one_more(one, at(59)), Try::TooMany);
        assert_eq!(failures.one_more(other, at(59)), Try::Told);
        assert_eq!(failures.one_more(one, at(60)), Try::Told);
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let mut failures = Failures::default();
        let from = |text: String| text.parse().ok().map(network);
        let tries = (0..100).map(|nth| failures.one_more(from(format!("2001:db8::{nth:x}")), at(0)));

        assert_eq!(tries.filter(|one| *one == Try::Told).count(), 30);
        assert_eq!(failures.one_more(from("2001:db8:0:1::1".to_owned()), at(0)), Try::Told);
    }

    #[test]
    fn ever_new_addresses_take_no_more_memory() {
        let mut failures = Failures::default();
        for nth in 0..20_000u32 {
            failures.one_more(Some(IpAddr::from(nth.to_be_bytes())), at(0));
        }

        assert!(failures.by.len() <= MOST_ADDRESSES + 1);
    }
}
