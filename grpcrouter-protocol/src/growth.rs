//! How large the windows of calls are: each begins small, and grows while its consumer is quicker than the way there and
//! back, out of a pool that all calls share. So a long way costs no speed, and memory stays bounded.

use std::time::Duration;

use crate::config::Config;
use crate::pool::{WindowLease, WindowPool};
use crate::time::Time;

/// The window sizes of one tunnel's calls.
#[derive(Debug)]
pub(crate) struct Growth {
    first: u64,
    most: u64,
    /// What the windows of open calls have beyond their first size.
    held: u64,
    /// Of this tunnel, its leases too.
    tunnel: WindowPool,
    /// Of all tunnels together.
    shared: WindowPool,
    /// The way there and back, and when it was measured.
    round_trip: Option<(Duration, Time)>,
}

impl Growth {
    pub(crate) fn new(config: &Config, shared: WindowPool) -> Self {
        let first = config.initial_window;
        let (most, tunnel) = (config.max_window.max(first), WindowPool::new(config.window_pool));
        Self { first, most, held: 0, tunnel, shared, round_trip: None }
    }

    /// The size of a new call's window.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// What the windows of this tunnel have beyond their first size, those of calls that are over too.
    pub(crate) fn used(&self) -> u64 {
        self.tunnel.used()
    }

    /// How long the way there and back took.
    pub(crate) fn measured(&mut self, round_trip: Duration, now: Time) {
        self.round_trip = Some((round_trip, now));
    }

    /// True if a window could grow and how long the way takes is not known, or no longer.
    pub(crate) fn wants_measure(&self, window: u64, now: Time) -> bool {
        window < self.most && self.round_trip.is_none_or(|(_, at)| now.since(at) >= MEASURED_FOR)
    }

    /// The next size of a window of which half was consumed in so long.
    pub(crate) fn next(&mut self, window: u64, pace: Duration) -> u64 {
        let Some((round_trip, _)) = self.round_trip else { return window };
        if pace <= round_trip * QUICK {
            let wanted = window.min(self.most.saturating_sub(window));
            return if wanted > 0 && self.take(window - self.first, wanted) { window + wanted } else { window };
        }
        if pace > SLOW.max(round_trip * SLOW_TRIPS) {
            let next = (window / 2).max(self.first);
            self.give_back(window - next);
            return next;
        }
        window
    }

    /// A call with this window is over.
    pub(crate) fn release(&mut self, window: u64) {
        self.give_back(window - self.first);
    }

    /// What the call of this window, which is about to be over, has to keep while its consumer has so much left to take.
    pub(crate) fn lease(&self, window: u64, unconsumed: u64) -> Option<WindowLease> {
        let bytes = window.min(unconsumed).saturating_sub(self.first);
        if bytes == 0 {
            return None;
        }
        Some(WindowLease::new(bytes, [self.tunnel.clone(), self.shared.clone()]))
    }

    /// One rule in the tunnel and among tunnels: nobody holds more than is left for the others.
    fn take(&mut self, call_holds: u64, wanted: u64) -> bool {
        if !self.tunnel.take(call_holds, wanted) {
            return false;
        }
        if !self.shared.take(self.tunnel.used() - wanted, wanted) {
            self.tunnel.give_back(wanted);
            return false;
        }
        self.held += wanted;
        true
    }

    fn give_back(&mut self, bytes: u64) {
        if bytes > 0 {
            self.held -= bytes;
            self.tunnel.give_back(bytes);
            self.shared.give_back(bytes);
        }
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.give_back(self.held);
    }
}

/// A window is too small if half of it goes within so many round trips: then its sender waits for credit.
const QUICK: u32 = 2;

/// A window is larger than it need be if half of it takes longer than this, and than so many round trips: what it has of
/// the pool is of more use elsewhere.
const SLOW: Duration = Duration::from_secs(1);
const SLOW_TRIPS: u32 = 16;

/// A measure is good for so long. Ways change when a peer moves, which is rare; a ping costs a batch each way.
const MEASURED_FOR: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn growth(limit: u64, pool: &WindowPool) -> Growth {
        let config = Config { initial_window: 100, max_window: 800, window_pool: limit, ..Config::default() };
        let mut growth = Growth::new(&config, pool.clone());
        growth.measured(10 * MS, Time::default());
        growth
    }

    #[test]
    fn a_window_doubles_while_half_of_it_goes_within_two_round_trips() {
        let pool = WindowPool::new(10_000);
        let mut growth = growth(10_000, &pool);
        assert_eq!((growth.next(100, 20 * MS), growth.next(200, 20 * MS), growth.next(400, MS)), (200, 400, 800));
        assert_eq!(growth.next(800, MS), 800, "up to the most");
        assert_eq!((growth.used(), pool.used()), (700, 700));
        growth.release(800);
        assert_eq!((growth.used(), pool.used()), (0, 0));
    }

    #[test]
    fn it_stays_where_its_consumer_keeps_up_and_shrinks_where_it_does_not() {
        let pool = WindowPool::new(10_000);
        let mut growth = growth(10_000, &pool);
        assert_eq!(growth.next(100, MS), 200);
        assert_eq!((growth.next(200, 21 * MS), growth.next(200, 1_000 * MS)), (200, 200));
        assert_eq!(growth.next(200, 1_001 * MS), 100);
        assert_eq!(growth.next(100, 5_000 * MS), 100, "never below the first");
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn nothing_grows_before_the_way_is_measured() {
        let mut growth = Growth::new(&Config::default(), WindowPool::new(1 << 30));
        let (first, later) = (growth.first(), Time::default() + Duration::from_secs(9));
        assert_eq!(growth.next(first, Duration::ZERO), first);
        assert!(growth.wants_measure(first, Time::default()));
        growth.measured(MS, Time::default());
        assert!(!growth.wants_measure(first, later) && growth.wants_measure(first, later + Duration::from_secs(1)));
        assert!(!growth.wants_measure(4 << 20, later + Duration::from_secs(9)), "as large as it can be");
    }

    #[test]
    fn nobody_holds_more_than_is_left_for_the_others() {
        let pool = WindowPool::new(1_000);
        let mut greedy = growth(10_000, &pool);
        let windows = [(); 20].map(|()| greedy.next(100, MS));
        assert_eq!((windows.iter().filter(|&&window| window == 200).count(), pool.used()), (5, 500));
        let mut other = growth(10_000, &pool);
        assert_eq!(other.next(100, MS), 200, "half of it is left");
        drop(greedy);
        assert_eq!(pool.used(), 100);
    }

    #[test]
    fn what_its_consumer_has_not_taken_outlives_a_call_and_its_tunnel() {
        let pool = WindowPool::new(10_000);
        let mut growth = growth(10_000, &pool);
        let window = growth.next(100, MS);
        assert_eq!(growth.lease(window, 100), None, "the first window is every call's own");
        let lease = growth.lease(window, 170);
        growth.release(window);
        assert_eq!((growth.used(), pool.used()), (70, 70));
        drop(growth);
        assert_eq!(pool.used(), 70);
        drop(lease);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_tunnel_has_a_limit_of_its_own() {
        let pool = WindowPool::new(1 << 20);
        let mut growth = growth(400, &pool);
        assert_eq!([(); 5].map(|()| growth.next(100, MS)), [200, 200, 200, 200, 100]);
        assert_eq!(growth.used(), 400);
    }
}
