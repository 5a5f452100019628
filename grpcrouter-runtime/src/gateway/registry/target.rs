//! One service as instances register it: who answers it, and the snapshot that calls look at. A change is seen at once;
//! among thousands of instances several changes share one snapshot, so that a storm of them costs a part of one core.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{
    Instance,
    ejection::Others,
    snapshot::{Balancers, Left, Snapshot},
    split::Split,
};
use crate::{
    codegen::LoadBalancing,
    gateway::{parking::Parking, route::TargetId},
};

/// One service, its instances and their snapshot.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: Arc<str>,
    id: TargetId,
    published: ArcSwap<Snapshot>,
    /// Whether anybody in it takes calls.
    serving: watch::Sender<bool>,
    state: Mutex<State>,
    /// Told of each new snapshot.
    parking: Arc<Parking>,
}

#[derive(Debug)]
struct State {
    /// Everybody with a tunnel who answers this service, by [`Instance::number`].
    members: BTreeMap<u64, Arc<Instance>>,
    balancers: Balancers,
    split: Option<Split>,
    left: Option<Left>,
    published_at: Instant,
    /// When a task will publish.
    due: Option<Instant>,
    /// How often it was published.
    editions: u64,
}

impl Target {
    pub(super) fn new(
        name: Arc<str>,
        id: TargetId,
        balancings: Vec<LoadBalancing>,
        parking: Arc<Parking>,
    ) -> Arc<Self> {
        let state = State {
            members: BTreeMap::new(),
            balancers: Balancers::new(balancings, rand::random()),
            split: None,
            left: None,
            published_at: Instant::now(),
            due: None,
            editions: 0,
        };
        let serving = watch::Sender::new(false);
        Arc::new(Self { name, id, published: ArcSwap::default(), serving, state: Mutex::new(state), parking })
    }

    /// Whether anybody takes calls, now and from now on.
    pub(super) fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }

    /// What calls look at.
    pub(super) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.published.load()
    }

    pub(super) fn insert(self: &Arc<Self>, instance: &Arc<Instance>) {
        self.change(|state| {
            state.members.insert(instance.number, instance.clone());
        });
    }

    pub(super) fn remove(self: &Arc<Self>, instance: &Instance, left: &Left) {
        self.change(|state| {
            state.members.remove(&instance.number);
            state.left = Some(left.clone());
        });
    }

    /// Balances like this from now on, whatever the routes ask for.
    pub(super) fn balance(self: &Arc<Self>, balancing: LoadBalancing) {
        self.change(|state| {
            state.balancers.set(balancing);
            if let Some(split) = &mut state.split {
                split.balance(balancing);
            }
        });
    }

    /// How calls are split.
    pub(super) fn shares(&self) -> Vec<(String, u32)> {
        self.lock().split.as_ref().map(|split| split.shares().to_vec()).unwrap_or_default()
    }

    /// Splits calls between versions from now on; with no shares they are not split.
    pub(super) fn split(self: &Arc<Self>, shares: &[(String, u32)]) {
        self.change(|state| state.split = (!shares.is_empty()).then(|| Split::new(shares, &mut state.balancers)));
    }

    /// Something changed in an instance.
    pub(super) fn changed(self: &Arc<Self>) {
        self.change(|_| ());
    }

    /// What those beside `instance` say about its ejection; `many` failures in a row are worth a look.
    pub(super) fn others(&self, instance: &Instance, many: u32) -> Others {
        let mut others = Others::default();
        for other in self.lock().members.values().filter(|other| !std::ptr::eq(&***other, instance)) {
            let facts = other.facts();
            if facts.is_ready_for(&self.name) {
                others.ejected += usize::from(facts.ejection.is_on());
                others.working += usize::from(!facts.ejection.is_on());
                others.failing += usize::from(!facts.ejection.is_on() && other.streak.failures() >= many);
            }
        }
        others
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if state.due.is_some_and(|due| due + LATEST > Instant::now()) {
            return;
        }
        let wait = state.pause().saturating_sub(state.published_at.elapsed());
        match Handle::try_current() {
            Ok(runtime) if wait >= WORTH_A_WAIT => {
                state.due = Some(Instant::now() + wait);
                let target = self.clone();
                runtime.spawn(async move {
                    tokio::time::sleep(wait).await;
                    target.publish(target.lock());
                });
            }
            _ => self.publish(state),
        }
    }

    fn publish(&self, mut state: MutexGuard<'_, State>) {
        let (mut ready, mut away) = (Vec::with_capacity(state.members.len()), Vec::new());
        for one in state.members.values() {
            let facts = one.facts();
            if facts.is_ready_for(&self.name) {
                ready.push(one.clone());
            } else if facts.is_away_from(&self.name) {
                away.push(one.clone());
            }
        }
        let (left, resting) = (state.left.clone(), state.members.len() - ready.len() - away.len());
        let State { balancers, split, .. } = &mut *state;
        let snapshot = Snapshot::new(ready, balancers, left).split(split.as_mut()).beside(resting, away);
        let serves = snapshot.serves();
        self.published.store(Arc::new(snapshot));
        state.published_at = Instant::now();
        state.due = None;
        state.editions += 1;
        // Before another change can be told.
        self.serving.send_if_modified(|serving| std::mem::replace(serving, serves) != serves);
        drop(state);
        self.parking.changed(self.id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn editions(&self) -> u64 {
        self.lock().editions
    }
}

impl State {
    /// The time between two snapshots: in proportion to what one costs.
    fn pause(&self) -> Duration {
        PAUSE_PER_MEMBER.saturating_mul(u32::try_from(self.members.len()).unwrap_or(u32::MAX))
    }
}

/// A snapshot costs about 0.5 µs for each instance, so a storm of changes costs a quarter of one core; among 10,000 a
/// change is seen after 20 ms.
const PAUSE_PER_MEMBER: Duration = Duration::from_micros(2);

/// Waits shorter than a timer is exact are not waited for: with fewer than 500 instances every change is seen at once.
const WORTH_A_WAIT: Duration = Duration::from_millis(1);

/// A task that has not published by then never will: its runtime has ended.
const LATEST: Duration = Duration::from_secs(1);
