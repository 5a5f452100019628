//! The place of calls that wait in no tunnel: for an instance to come, or only for their deadline. Whoever waits is woken
//! and looks for itself; one task rings the deadlines, and lives only while there are any.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use grpcrouter_protocol::Time;
use tokio::{sync::Notify, time::sleep_until};

use super::route::TargetId;
use crate::clock;

/// Everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    lots: Mutex<Lots>,
    /// The first deadline is another one now.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Lots {
    last: u64,
    /// Who waits for an instance of the target, in the order in which they came.
    parked: BTreeMap<(usize, u64), Waker>,
    /// Who waits for something else.
    others: BTreeMap<u64, Waker>,
    deadlines: BTreeMap<(Time, u64), Waker>,
    is_ringing: bool,
    /// Nobody may wait any more.
    closed: bool,
}

/// One who waits; dropped, it does not any more.
#[derive(Debug)]
pub(super) struct Spot {
    parking: Arc<Parking>,
    number: u64,
    target: Option<TargetId>,
    deadline: Option<Time>,
}

impl Parking {
    /// Has `waker` woken at each change among the instances of `target`, and at `deadline`. `None` if `most` wait already.
    pub(super) fn park(
        self: &Arc<Self>,
        target: TargetId,
        deadline: Option<Time>,
        waker: &Waker,
        most: usize,
    ) -> Option<Spot> {
        let lots = self.lock();
        (lots.parked.len() < most).then(|| self.placed(lots, Some(target), deadline, waker))
    }

    /// Has `waker` woken at `deadline` and at the end, for one who waits for something else.
    pub(super) fn ring(self: &Arc<Self>, deadline: Option<Time>, waker: &Waker) -> Spot {
        self.placed(self.lock(), None, deadline, waker)
    }

    /// Something changed among the instances of `target`.
    pub(super) fn changed(&self, target: TargetId) {
        let wakers: Vec<Waker> = {
            let lots = self.lock();
            lots.parked.range((target.0, 0)..=(target.0, u64::MAX)).map(|(_, waker)| waker.clone()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nobody is worth waiting for any more.
    pub(super) fn wake_all(&self) {
        let wakers: Vec<Waker> = self.lock().parked.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The gateway ends: wakes everybody, and whoever looks finds it closed.
    pub(super) fn close(&self) {
        let wakers: Vec<Waker> = {
            let mut lots = self.lock();
            lots.closed = true;
            lots.parked.values().chain(lots.others.values()).cloned().collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The gateway is served again.
    pub(super) fn open(&self) {
        self.lock().closed = false;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many wait for an instance.
    pub(super) fn len(&self) -> usize {
        self.lock().parked.len()
    }

    fn placed(
        self: &Arc<Self>,
        mut lots: MutexGuard<'_, Lots>,
        target: Option<TargetId>,
        deadline: Option<Time>,
        waker: &Waker,
    ) -> Spot {
        lots.last += 1;
        let number = lots.last;
        match target {
            Some(target) => lots.parked.insert((target.0, number), waker.clone()),
            None => lots.others.insert(number, waker.clone()),
        };
        if let Some(at) = deadline {
            lots.deadlines.insert((at, number), waker.clone());
            if !mem::replace(&mut lots.is_ringing, true) {
                tokio::spawn(ring_deadlines(self.clone()));
            } else if lots.deadlines.keys().next() == Some(&(at, number)) {
                self.earlier.notify_one();
            }
        }
        Spot { parking: self.clone(), number, target, deadline }
    }

    /// Wakes those whose time is over, and tells whose is next; `None` if there is nobody, and then it rings no more.
    fn ring_due(&self) -> Option<Time> {
        let (due, next) = {
            let mut lots = self.lock();
            let later = lots.deadlines.split_off(&(clock::now(), u64::MAX));
            let due = mem::replace(&mut lots.deadlines, later);
            let next = lots.deadlines.keys().next().map(|(at, _)| *at);
            lots.is_ringing = next.is_some();
            (due, next)
        };
        due.into_values().for_each(Waker::wake);
        next
    }

    fn lock(&self) -> MutexGuard<'_, Lots> {
        self.lots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        let mut lots = self.parking.lock();
        let waker = match self.target {
            Some(target) => lots.parked.remove(&(target.0, self.number)),
            None => lots.others.remove(&self.number),
        };
        let deadline = self.deadline.map(|at| (at, self.number));
        let was_next = deadline.is_some() && lots.deadlines.keys().next() == deadline.as_ref();
        let ringing = deadline.and_then(|deadline| lots.deadlines.remove(&deadline));
        drop(lots);
        // A waker may be the last that knows its call, and dropping a call is nothing to do under a lock.
        drop((waker, ringing));
        if was_next {
            self.parking.earlier.notify_one();
        }
    }
}

async fn ring_deadlines(parking: Arc<Parking>) {
    while let Some(next) = parking.ring_due() {
        tokio::select! {
            () = sleep_until(clock::instant(next)) => {}
            () = parking.earlier.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
        time::Duration,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    const ORDERS: TargetId = TargetId(0);
    const STOCK: TargetId = TargetId(1);

    fn after(milliseconds: u64) -> Option<Time> {
        Some(Time::from_nanos(clock::now().as_nanos() + milliseconds * 1_000_000))
    }

    #[tokio::test]
    async fn a_change_wakes_those_who_wait_for_that_target() {
        let (parking, orders, stock) = (Arc::new(Parking::default()), Arc::<Woken>::default(), Arc::<Woken>::default());
        let spot = parking.park(ORDERS, None, &orders.clone().into(), 2).unwrap();
        let _other = parking.park(STOCK, None, &stock.clone().into(), 2).unwrap();

        parking.changed(ORDERS);
        parking.changed(ORDERS);
        assert_eq!((orders.times(), stock.times()), (2, 0));

        drop(spot);
        parking.changed(ORDERS);
        parking.wake_all();
        assert_eq!((orders.times(), stock.times(), parking.len()), (2, 1, 1));
    }

    #[tokio::test]
    async fn its_end_wakes_everybody_and_is_seen_by_those_who_come() {
        let (parking, orders, other) = (Arc::new(Parking::default()), Arc::<Woken>::default(), Arc::<Woken>::default());
        let _parked = parking.park(ORDERS, None, &orders.clone().into(), 2).unwrap();
        let _other = parking.ring(None, &other.clone().into());

        parking.close();

        assert_eq!((orders.times(), other.times(), parking.is_closed()), (1, 1, true));
        parking.open();
        assert!(!parking.is_closed());
    }

    #[tokio::test]
    async fn no_more_than_the_most_are_let_in_until_one_leaves() {
        let (parking, waker) = (Arc::new(Parking::default()), Waker::noop());
        let spot = parking.park(ORDERS, None, waker, 1);
        assert!(parking.park(STOCK, None, waker, 1).is_none());

        drop(spot);

        assert!(parking.park(STOCK, None, waker, 1).is_some());
        assert!(parking.park(STOCK, None, waker, 0).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_ring_in_their_order_and_once() {
        let parking = Arc::new(Parking::default());
        let [late, early, gone, none] = std::array::from_fn(|_| Arc::<Woken>::default());
        let _late = parking.ring(after(200), &late.clone().into());
        let _early = parking.park(ORDERS, after(100), &early.clone().into(), 9);
        let gone_spot = parking.ring(after(50), &gone.clone().into());
        let _none = parking.ring(None, &none.clone().into());
        drop(gone_spot);

        let began = tokio::time::Instant::now();
        for (at, late_times, early_times) in [(99, 0, 0), (101, 0, 1), (199, 0, 1), (201, 1, 1), (900, 1, 1)] {
            tokio::time::sleep_until(began + Duration::from_millis(at)).await; // waits because time is under test, and paused
            assert_eq!((late.times(), early.times()), (late_times, early_times), "after {at} ms");
        }
        assert_eq!((gone.times(), none.times()), (0, 0));
    }
}
