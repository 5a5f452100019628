//! How often calls may go to a second instance: a budget for each service, so that a fleet that fails is not also asked
//! several times as much. What is kept of a request until it is answered stands beside.

mod kept;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use grpcrouter_protocol::Time;

pub(super) use self::kept::Kept;
use super::{grown::Grown, route::TargetId};

/// How many calls of a service may go to another instance after one gave them back or was lost with them: a share of all
/// its calls, and some each second beside, so that a service with few calls has them too. What is not used is saved for
/// ten seconds. A call beyond that ends UNAVAILABLE, with its outcome.
///
/// Default 20 % and 10 a second: enough for instances that come and go, and no storm when they all fail.
///
/// # Examples
/// ```
/// use grpcrouter_runtime::RetryBudget;
///
/// let most_careful = RetryBudget::none();
/// let half = RetryBudget::default().percent(50).per_second(100);
/// # let _ = (most_careful, half);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    percent: u32,
    per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: PERCENT, per_second: PER_SECOND }
    }
}

impl RetryBudget {
    /// No call goes to a second instance.
    pub const fn none() -> Self {
        Self { percent: 0, per_second: 0 }
    }

    /// Sets the share of a service's calls, in percent. Default 20.
    #[must_use]
    pub const fn percent(mut self, percent: u32) -> Self {
        self.percent = percent;
        self
    }

    /// Sets how many each second come on top. Default 10.
    #[must_use]
    pub const fn per_second(mut self, calls: u32) -> Self {
        self.per_second = calls;
        self
    }
}

/// What of their budget the services of one gateway have left.
#[derive(Debug)]
pub(crate) struct Retries {
    budget: RetryBudget,
    /// By [`TargetId`].
    targets: Grown<Box<Target>>,
}

impl Retries {
    /// For so many targets, with room for so many more.
    pub(super) fn new(budget: RetryBudget, targets: usize, room: usize, now: Time) -> Self {
        let targets = (0..targets).map(|_| Target::new(budget, now)).collect();
        Self { budget, targets: Grown::new(targets, room) }
    }

    /// One more target, which has the next id.
    pub(super) fn add(&self, now: Time) {
        self.targets.push(Target::new(self.budget, now));
    }

    /// One more call.
    pub(super) fn called(&self, target: TargetId) {
        if let Some(target) = self.targets.get(target.0) {
            target.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a call may go to one more instance; if so, that is spent.
    pub(super) fn take(&self, target: TargetId, now: Time) -> bool {
        let Some(target) = self.targets.get(target.0) else { return false };
        let mut left = target.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.earn(self.budget, target.calls.load(Ordering::Relaxed), now);
        left.spend()
    }
}

/// One service. On a cache line of its own: each call counts itself here.
#[derive(Debug)]
#[repr(align(128))]
struct Target {
    calls: AtomicU64,
    left: Mutex<Left>,
}

impl Target {
    fn new(budget: RetryBudget, now: Time) -> Box<Self> {
        Box::new(Self { calls: AtomicU64::new(0), left: Mutex::new(Left::full(budget, now)) })
    }
}

/// What is left, in hundredths of a call.
#[derive(Debug)]
struct Left {
    hundredths: u64,
    /// What it was reckoned from, at most once a [`TICK`].
    calls: u64,
    at: Time,
}

impl Left {
    /// What a service that has had no call saves.
    fn full(budget: RetryBudget, now: Time) -> Self {
        Self { hundredths: earned(budget, 0, SAVED), calls: 0, at: now }
    }

    /// Adds what `calls` in all and the time have earned, up to what [`SAVED`] of the same would have.
    fn earn(&mut self, budget: RetryBudget, calls: u64, now: Time) {
        let passed = now.since(self.at);
        if passed < TICK {
            return;
        }
        let new = calls.saturating_sub(self.calls);
        let at_this_rate = u128::from(new) * SAVED.as_nanos() / passed.as_nanos();
        let most = earned(budget, u64::try_from(at_this_rate).unwrap_or(u64::MAX), SAVED);
        self.hundredths = self.hundredths.saturating_add(earned(budget, new, passed)).min(most);
        (self.calls, self.at) = (calls, now);
    }

    fn spend(&mut self) -> bool {
        let Some(left) = self.hundredths.checked_sub(HUNDREDTHS) else { return false };
        self.hundredths = left;
        true
    }
}

/// In hundredths of a call.
fn earned(budget: RetryBudget, calls: u64, passed: Duration) -> u64 {
    let by_time = u128::from(budget.per_second) * passed.as_millis() / 10;
    let by_time = u64::try_from(by_time).unwrap_or(u64::MAX);
    calls.saturating_mul(u64::from(budget.percent)).saturating_add(by_time)
}

/// One call.
const HUNDREDTHS: u64 = 100;

/// As much as gRPC's clients and others who limit it allow; five calls pay for a sixth.
const PERCENT: u32 = 20;

/// A service with hardly any calls gets each of them through.
const PER_SECOND: u32 = 10;

/// For so long what is not used is saved: the instances of one machine are gone together, and their calls come back
/// together.
const SAVED: Duration = Duration::from_secs(10);

/// Over a shorter time a rate means nothing.
const TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: TargetId = TargetId(0);

    fn at(seconds: u64) -> Time {
        Time::from_nanos(1_000_000_000 * (1000 + seconds))
    }

    /// How many calls may go on at this moment.
    fn taken(retries: &Retries, second: u64) -> usize {
        (0..1_000_000).take_while(|_| retries.take(TARGET, at(second))).count()
    }

    fn calls(retries: &Retries, count: usize) {
        (0..count).for_each(|_| retries.called(TARGET));
    }

    #[test]
    fn a_service_without_calls_has_ten_a_second_and_saves_those_of_ten_seconds() {
        let retries = Retries::new(RetryBudget::default(), 1, 0, at(0));

        assert_eq!(taken(&retries, 0), 100);
        assert_eq!(taken(&retries, 0), 0);
        assert_eq!(taken(&retries, 1), 10);
        assert_eq!(taken(&retries, 4), 30);
        assert_eq!(taken(&retries, 3600), 100);
    }

    #[test]
    fn five_calls_pay_for_one_that_goes_on() {
        let retries = Retries::new(RetryBudget::default().per_second(0), 1, 0, at(0));
        calls(&retries, 1000);

        assert_eq!(taken(&retries, 0), 0);
        assert_eq!(taken(&retries, 1), 200);
        calls(&retries, 4);
        assert_eq!(taken(&retries, 2), 0);
        calls(&retries, 1);
        assert_eq!(taken(&retries, 3), 1);
        assert_eq!(taken(&retries, 4), 0);
    }

    #[test]
    fn what_long_passed_is_not_saved() {
        let retries = Retries::new(RetryBudget::default().per_second(0), 1, 0, at(0));
        calls(&retries, 360_000);

        assert_eq!(taken(&retries, 3600), 200, "a hundred a second, over ten seconds");
    }

    #[test]
    fn no_budget_is_none_and_one_service_does_not_spend_anothers() {
        let none = Retries::new(RetryBudget::none(), 1, 0, at(0));
        calls(&none, 1_000_000);
        assert_eq!((taken(&none, 0), taken(&none, 100)), (0, 0));

        let two = Retries::new(RetryBudget::default(), 1, 1, at(0));
        two.add(at(0));
        assert_eq!(taken(&two, 0), 100);
        assert!(two.take(TargetId(1), at(0)));
        assert!(!two.take(TargetId(2), at(0)), "nobody");
    }
}
