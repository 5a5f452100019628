//! Passive health: an instance that does nothing but fail while others do not is left out for a while and let back in
//! step by step. Pure: calls are counted, time is told.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use grpcrouter_protocol::Time;
use tonic::Code;

use crate::{gateway::balancer::Dice, status::Reason};

/// What the end of one call says of its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works.
    Well,
    /// It failed by itself.
    Failed,
    /// Nothing: the client, its deadline or the gateway ended the call.
    Nothing,
}

/// Counted as failures are UNAVAILABLE, INTERNAL and UNKNOWN as the service's own answer (a dead dependency, a bug, a
/// panic), and a broken protocol. Any other answer shows that somebody is there and thinks: it ends a row of failures.
/// Deadlines and cancels say as much of the client as of the instance; one that is lost is gone anyway.
pub(super) fn verdict(code: Code, reason: Option<Reason>) -> Verdict {
    match (code, reason) {
        (Code::Unavailable | Code::Internal | Code::Unknown, None) | (_, Some(Reason::Violation)) => Verdict::Failed,
        (_, None) => Verdict::Well,
        (_, Some(_)) => Verdict::Nothing,
    }
}

/// The failures of one instance in a row, and how it is let in again after an ejection.
#[derive(Debug)]
pub(super) struct Streak {
    failures: AtomicU32,
    /// When it came back, in nanoseconds; 0: it needs no care.
    back_since: AtomicU64,
    dice: Dice,
}

impl Default for Streak {
    fn default() -> Self {
        Self { failures: AtomicU32::new(0), back_since: AtomicU64::new(0), dice: Dice::new(0) }
    }
}

impl Streak {
    /// A call ended. Tells how many have failed in a row, when one more has.
    pub(super) fn ended(&self, verdict: Verdict) -> Option<u32> {
        match verdict {
            Verdict::Nothing => None,
            Verdict::Failed => Some(self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)),
            Verdict::Well => {
                // Calls that go well write nothing.
                if self.failures() != 0 {
                    self.failures.store(0, Ordering::Relaxed);
                }
                None
            }
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// It is back: from now on it is let in more and more.
    pub(super) fn come_back(&self, now: Time) {
        self.failures.store(0, Ordering::Relaxed);
        self.back_since.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    /// Whether a call may go there: always, but for the first while after an ejection.
    pub(super) fn is_let_in(&self, now: impl Fn() -> Time) -> bool {
        let since = self.back_since.load(Ordering::Relaxed);
        if since == 0 {
            return true;
        }
        let back = now().since(Time::from_nanos(since));
        if back >= SLOW_START {
            self.back_since.store(0, Ordering::Relaxed);
            return true;
        }
        let share = back.as_secs_f64() / SLOW_START.as_secs_f64();
        let chance = self.dice.throw() as f64 / u64::MAX as f64;
        chance < share.max(FIRST_SHARE)
    }
}

/// Whether one is ejected, and for how long the next time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ejection {
    is_on: bool,
    /// Ejections one soon after the other.
    times: u32,
    /// When the last one ended.
    ended: Option<Time>,
}

impl Ejection {
    pub(super) fn is_on(self) -> bool {
        self.is_on
    }

    /// Ejects it; tells for how long. One that comes back and fails again stays away twice as long.
    pub(super) fn begin(&mut self, now: Time) -> Duration {
        let is_soon = self.ended.is_some_and(|ended| now.since(ended) < FORGIVEN);
        self.times = if is_soon { self.times.saturating_add(1) } else { 1 };
        self.is_on = true;
        let doubled = FIRST_EJECTION.saturating_mul(1 << (self.times - 1).min(10));
        doubled.min(LONGEST_EJECTION)
    }

    pub(super) fn end(&mut self, now: Time) {
        self.is_on = false;
        self.ended = Some(now);
    }
}

/// What the others of a service say about ejecting one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// Those that take calls now.
    pub(super) working: usize,
    /// Of these, how many fail as well.
    pub(super) failing: usize,
    /// Those that are ejected.
    pub(super) ejected: usize,
}

impl Others {
    /// Never more than half of all, and only one that fails by itself: where most others fail too, the reason is not in
    /// the instance.
    pub(super) fn can_spare_one(self) -> bool {
        let (all, out) = (self.working + self.ejected + 1, self.ejected + 1);
        out * 2 <= all && self.failing * 2 < self.working.max(1)
    }
}

/// How long the first ejection lasts: long enough for a restart, short enough to be no outage.
const FIRST_EJECTION: Duration = Duration::from_secs(10);

/// However often it failed: one that is repaired must be found out within minutes.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// One that did well for so long begins anew with [`FIRST_EJECTION`].
const FORGIVEN: Duration = Duration::from_secs(300);

/// How long it takes until one that comes back has its whole share: caches and connections want to be warm.
const SLOW_START: Duration = Duration::from_secs(10);

/// Its share at first: enough to find out quickly whether it works.
const FIRST_SHARE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn the_services_own_failures_count_and_nothing_that_others_did() {
        for code in [Code::Unavailable, Code::Internal, Code::Unknown] {
            assert_eq!(verdict(code, None), Verdict::Failed, "{code:?}");
        }
        for code in [Code::Ok, Code::NotFound, Code::ResourceExhausted, Code::Unimplemented, Code::DataLoss] {
            assert_eq!(verdict(code, None), Verdict::Well, "{code:?}");
        }
        assert_eq!(verdict(Code::Internal, Some(Reason::Violation)), Verdict::Failed);
        for (code, reason) in [
            (Code::DeadlineExceeded, Reason::Deadline),
            (Code::Cancelled, Reason::Cancelled),
            (Code::Unavailable, Reason::InstanceLost),
            (Code::Unavailable, Reason::Refused),
        ] {
            assert_eq!(verdict(code, Some(reason)), Verdict::Nothing, "{reason:?}");
        }
    }

    #[test]
    fn failures_are_counted_in_a_row() {
        let streak = Streak::default();
        let ended = |verdict| streak.ended(verdict);

        assert_eq!([ended(Verdict::Failed), ended(Verdict::Nothing), ended(Verdict::Failed)], [Some(1), None, Some(2)]);
        assert_eq!([ended(Verdict::Well), ended(Verdict::Failed)], [None, Some(1)]);
    }

    #[test]
    fn each_ejection_soon_after_the_last_is_twice_as_long_up_to_five_minutes() {
        let mut ejection = Ejection::default();
        let mut now = 0;
        let mut times = Vec::new();
        for _ in 0..7 {
            let time = ejection.begin(at(now)).as_secs();
            assert!(ejection.is_on());
            now += time;
            ejection.end(at(now));
            assert!(!ejection.is_on());
            times.push(time);
            now += 5;
        }
        assert_eq!(times, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(ejection.begin(at(now + 301)).as_secs(), 10);
    }

    #[test]
    fn half_of_all_may_be_ejected_and_not_one_more() {
        let ejectable = |all: usize| {
            let others = |ejected| Others { working: all - 1 - ejected, failing: 0, ejected };
            (0..all).take_while(|ejected| others(*ejected).can_spare_one()).count()
        };

        assert_eq!([1, 2, 3, 4, 5, 10].map(ejectable), [0, 1, 1, 2, 2, 5]);
    }

    #[test]
    fn nobody_is_ejected_while_most_others_fail_too() {
        let failing = |failing| Others { working: 4, failing, ejected: 0 }.can_spare_one();

        assert_eq!([0, 1, 2, 4].map(failing), [true, true, false, false]);
    }

    #[test]
    fn one_that_comes_back_is_let_in_more_and_more() {
        let streak = Streak::default();
        let share = |secs| (0..10_000).filter(|_| streak.is_let_in(|| at(secs))).count();
        assert_eq!(share(1), 10_000);

        streak.come_back(at(100));

        let shares = [100, 102, 105, 109].map(share);
        for (share, due) in shares.into_iter().zip([1_000, 2_000, 5_000, 9_000]) {
            assert!(share.abs_diff(due) < 200, "{shares:?}");
        }
        assert_eq!(share(110), 10_000);
    }
}
