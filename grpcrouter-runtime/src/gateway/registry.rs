//! Who is here: instances by the service that they answer. Registering thinks, under a lock; a call looks at a snapshot
//! that does not change.

mod changes;
mod ejection;
mod instance;
mod seat;
mod snapshot;
mod split;
mod takeover;
mod target;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::Guard;
use dashmap::DashMap;
use grpcrouter_protocol::{Close, CloseCode, Hello, InstanceId, Update};
use tokio::{runtime::Handle, sync::watch, time::Instant};
use tracing::{info, warn};

pub(super) use self::changes::OnChange;
pub use self::changes::{InstanceChange, InstanceState, InstanceWatch, RegisteredInstance};
pub(super) use self::instance::AWAITED_FOR;
pub(super) use self::seat::Seat;
#[cfg(test)]
pub(super) use self::tests::hello;
use self::{changes::Watchers, instance::Facts, snapshot::Left, takeover::Takeovers, target::Target};
pub(crate) use self::{instance::Instance, snapshot::Snapshot};
use super::{grown::Grown, parking::Parking, route::TargetId};
use crate::{clock, codegen::LoadBalancing};

/// The instances of one gateway.
#[derive(Debug)]
pub(crate) struct Registry {
    /// By [`TargetId`].
    targets: Grown<Arc<Target>>,
    /// Everybody with a tunnel.
    present: DashMap<InstanceId, Tunnels>,
    /// How many tunnels that are, and how many take new calls.
    tunnels: AtomicUsize,
    ready: AtomicUsize,
    /// So that calls look for a version only where one is asked for with effect.
    is_split: AtomicBool,
    watchers: Arc<Watchers>,
    /// Failures in a row that eject an instance; 0: nobody is ejected.
    eject_after: u32,
    /// Two that are ejected at the same time must not be more than half of all.
    ejecting: Mutex<()>,
    /// Calls that wait for a change here.
    pub(super) parking: Arc<Parking>,
}

/// The tunnels of one instance id; the last takes the new calls.
#[derive(Debug, Default)]
struct Tunnels {
    list: Vec<Arc<Instance>>,
    takeovers: Takeovers,
}

impl Tunnels {
    /// Who takes the calls now.
    fn incumbent(&self) -> Option<&Arc<Instance>> {
        self.list.iter().rev().find(|other| !other.facts().displaced)
    }
}

impl Registry {
    /// For these targets and the balancings that their routes ask for, with room for so many more; what else instances
    /// register is kept but not routed to.
    pub(super) fn new(
        targets: impl IntoIterator<Item = (Arc<str>, Vec<LoadBalancing>)>,
        room: usize,
        eject_after: u32,
        callbacks: Vec<OnChange>,
    ) -> Self {
        let parking = Arc::<Parking>::default();
        let targets = targets
            .into_iter()
            .enumerate()
            .map(|(id, (name, balancings))| Target::new(name, TargetId(id), balancings, parking.clone()));
        Self {
            targets: Grown::new(targets.collect(), room),
            present: DashMap::new(),
            tunnels: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            is_split: AtomicBool::new(false),
            watchers: Arc::new(Watchers::new(callbacks)),
            eject_after,
            ejecting: Mutex::new(()),
            parking,
        }
    }

    /// One more target, with whether anybody takes its calls from now on; `None` if there is no room.
    pub(super) fn add(&self, name: &Arc<str>, balancing: LoadBalancing) -> Option<(TargetId, watch::Receiver<bool>)> {
        // Nobody adds beside: the number that it will have is the next.
        let id = TargetId(self.targets.iter().count());
        let target = Target::new(name.clone(), id, vec![balancing], self.parking.clone());
        let serving = target.serving();
        self.targets.push(target).map(|_| (id, serving))
    }

    /// The names of all targets.
    pub(super) fn services(&self) -> Vec<&str> {
        self.targets.iter().map(|target| &*target.name).collect()
    }

    /// The instances of `target` that take calls now.
    pub(super) fn snapshot(&self, target: TargetId) -> Option<Guard<Arc<Snapshot>>> {
        self.targets.get(target.0).map(|target| target.snapshot())
    }

    /// Whether the process that says `hello` may have its instance id. It may, unless processes push each other out of it
    /// again and again: then the one that is here stays, and the error says how long the others are to wait.
    pub(super) fn may_take(&self, hello: &Hello) -> Result<(), Duration> {
        let Some(mut tunnels) = self.present.get_mut(&hello.instance_id) else { return Ok(()) };
        let Some(incumbent) = tunnels.incumbent() else { return Ok(()) };
        if incumbent.incarnation == hello.incarnation {
            // The same process dialled again: it has given up its other tunnel.
            return Ok(());
        }
        // One that goes, or that nobody hears any more, is displaced by a restart, however often.
        let is_well = !incumbent.facts().draining && incumbent.tunnel.is_attached() && incumbent.tunnel.is_answering();
        if is_well { tunnels.takeovers.ask(clock::now()) } else { Ok(()) }
    }

    /// Lets `instance` take calls. One of the same id takes no new ones any more; it is returned.
    pub(super) fn insert(&self, instance: &Arc<Instance>) -> Option<Arc<Instance>> {
        let displaced = {
            let mut tunnels = self.present.entry(instance.id.clone()).or_default();
            let displaced = tunnels.incumbent().cloned();
            tunnels.list.push(instance.clone());
            if let Some(displaced) = &displaced {
                self.change(displaced, |facts| facts.displaced = true);
            }
            displaced
        };
        self.tunnels.fetch_add(1, Ordering::Relaxed);
        self.change(instance, |facts| facts.present = true);
        self.answered(instance).for_each(|target| target.insert(instance));
        if let Some(displaced) = &displaced {
            // Where both answer, one snapshot has brought the new and taken the old.
            let alone = self.answered(displaced).filter(|target| !instance.answers(&target.name));
            alone.for_each(|target| target.changed());
            self.watchers.tell(|| InstanceChange::Changed(displaced.shown()));
        }
        self.watchers.tell(|| InstanceChange::Joined(instance.shown()));

        let services = instance.services.join(", ");
        let version = Some(instance.software_version.as_str()).filter(|version| !version.is_empty());
        let principal = instance.principal.as_ref().map(|principal| principal.as_str());
        let peer = instance.facts().peer.clone();
        info!(instance = %instance.id, services, principal, peer, version, "instance joined");
        for service in &instance.services {
            if self.target(service).is_none() {
                warn!(
                    instance = %instance.id,
                    service,
                    "no router for this service here: clients cannot call it; add its router to the gateway's builder"
                );
            }
        }
        displaced
    }

    /// Forgets `instance`, whose tunnel is over.
    pub(super) fn remove(&self, instance: &Arc<Instance>, why: &str) {
        if let Some(mut tunnels) = self.present.get_mut(&instance.id) {
            tunnels.list.retain(|other| !Arc::ptr_eq(other, instance));
        }
        self.present.remove_if(&instance.id, |_, tunnels| tunnels.list.is_empty());
        self.tunnels.fetch_sub(1, Ordering::Relaxed);
        instance.gone.cancel();
        self.change(instance, |facts| facts.present = false);
        let left = Left { id: instance.id.clone(), at: Instant::now(), why: why.to_owned() };
        self.answered(instance).for_each(|target| target.remove(instance, &left));
        self.watchers.tell(|| InstanceChange::Left { instance: instance.shown(), why: why.to_owned() });

        let here = instance.since.elapsed();
        let (calls, peer) = (instance.calls(), instance.facts().peer.clone());
        info!(
            instance = %instance.id,
            services = instance.services.join(", "),
            principal = instance.principal.as_ref().map(|principal| principal.as_str()),
            peer,
            why,
            here = ?Duration::from_millis(u64::try_from(here.as_millis()).unwrap_or(u64::MAX)),
            calls,
            "instance left"
        );
    }

    /// `instance` takes no new call; what runs finishes.
    pub(super) fn drain(&self, instance: &Arc<Instance>) {
        info!(instance = %instance.id, running = instance.tunnel.open_calls(), "instance drains");
        if self.change(instance, |facts| facts.draining = true) {
            self.answered(instance).for_each(Target::changed);
        }
        self.watchers.tell(|| InstanceChange::Changed(instance.shown()));
    }

    /// The tunnel of `instance` has lost its stream, or is on another one, or lost it a moment ago: looks which. Tells how
    /// long it was without, if it was.
    pub(super) fn stream_changed(&self, instance: &Arc<Instance>) -> Option<Duration> {
        let mut was_away = None;
        let changed = self.change(instance, |facts| {
            let before = facts.away;
            was_away = before.map(|since| since.elapsed());
            // Looked at here, under the lock: of several who tell of changes the last one knows best.
            facts.away = (!instance.tunnel.is_attached()).then(|| before.unwrap_or_else(Instant::now));
        });
        // Also if nothing is different: a call that found it away, and waits since, may not have been seen by who told last.
        self.answered(instance).for_each(Target::changed);
        if changed || was_away.is_some() {
            self.watchers.tell(|| InstanceChange::Changed(instance.shown()));
        }
        was_away
    }

    /// `instance` dialled again, from here.
    pub(super) fn dialled_again(&self, instance: &Instance, peer: &str) {
        instance.facts().peer = peer.to_owned();
    }

    /// What `instance` says of itself has changed; an older word than the last one counts for nothing.
    pub(super) fn update(&self, instance: &Arc<Instance>, update: &Update) {
        let (mut is_newer, mut is_other) = (false, false);
        let changed = self.change(instance, |facts| {
            is_newer = update.version > facts.version;
            if is_newer {
                let before = facts.not_serving.clone();
                instance.take(update, facts);
                is_other = facts.not_serving != before;
            }
        });
        if is_newer {
            if instance.set_weight(update.weight) || changed || is_other {
                self.answered(instance).for_each(Target::changed);
            }
            self.watchers.tell(|| InstanceChange::Changed(instance.shown()));
        }
    }

    /// One more call failed at `instance`, so many in a row now: enough of them eject it, if it fails by itself.
    pub(super) fn failed(&self, instance: &Arc<Instance>, in_a_row: u32) {
        if in_a_row.checked_rem(self.eject_after) != Some(0) {
            return;
        }
        // Calls may end where no runtime is; the next failures will not.
        let Ok(runtime) = Handle::try_current() else { return };
        let time = {
            let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
            let many = self.eject_after.div_ceil(2);
            if !self.answered(instance).all(|target| target.others(instance, many).can_spare_one()) {
                return;
            }
            let mut facts = instance.facts();
            if facts.ejection.is_on() || !facts.is_ready() {
                return;
            }
            facts.ejection.begin(clock::now())
        };
        warn!(instance = %instance.id, failures = in_a_row, seconds = time.as_secs(), "instance ejected: its calls keep failing");
        let (instance, watchers) = (instance.clone(), self.watchers.clone());
        let targets: Vec<_> = self.answered(&instance).cloned().collect();
        let tell = move |instance: &Instance| {
            targets.iter().for_each(Target::changed);
            watchers.tell(|| InstanceChange::Changed(instance.shown()));
        };
        tell(&instance);
        runtime.spawn(async move {
            let gone = instance.gone.cancelled();
            if tokio::time::timeout(time, gone).await.is_err() {
                let now = clock::now();
                instance.streak.come_back(now);
                instance.facts().ejection.end(now);
                info!(instance = %instance.id, "instance let in again");
                tell(&instance);
            }
        });
    }

    /// Balances the calls of `service` like this from now on; `false` if there is no such target.
    pub(super) fn balance(&self, service: &str, balancing: LoadBalancing) -> bool {
        let target = self.target(service);
        target.inspect(|target| target.balance(balancing)).is_some()
    }

    /// How the calls of `service` are split; `None` if there is no such target.
    pub(super) fn shares(&self, service: &str) -> Option<Vec<(String, u32)>> {
        self.target(service).map(|target| target.shares())
    }

    /// Splits the calls of `service` between versions from now on; `false` if there is no such target.
    pub(super) fn split(&self, service: &str, shares: &[(String, u32)]) -> bool {
        let target = self.target(service);
        let known = target.inspect(|target| target.split(shares)).is_some();
        self.is_split.store(self.targets.iter().any(|target| !target.shares().is_empty()), Ordering::Relaxed);
        known
    }

    /// Whether the calls of any target are split.
    pub(super) fn is_split(&self) -> bool {
        self.is_split.load(Ordering::Relaxed)
    }

    /// Whether anybody takes the calls of each target, now and from now on.
    pub(super) fn serving(&self) -> impl Iterator<Item = (&str, watch::Receiver<bool>)> {
        self.targets.iter().map(|target| (&*target.name, target.serving()))
    }

    /// Everybody with a tunnel, in the order in which they came.
    pub(super) fn instances(&self) -> Vec<RegisteredInstance> {
        let mut instances = self.tunnels();
        instances.sort_unstable_by_key(|instance| instance.number);
        instances.iter().map(|instance| instance.shown()).collect()
    }

    pub(super) fn watch(&self) -> InstanceWatch {
        self.watchers.watch()
    }

    /// Ends every tunnel, and with it every call in one.
    pub(super) fn close_all(&self, code: CloseCode, reason: &str) {
        for instance in self.tunnels() {
            instance.tunnel.close(Close { code, reason: reason.to_owned(), retry_after: Duration::ZERO });
        }
    }

    /// Tells everybody that this gateway stops, and of the others.
    pub(super) fn drain_all(&self, gateways: &[String]) {
        for instance in self.tunnels() {
            instance.tunnel.drain_to(gateways.to_vec());
        }
    }

    /// Tells everybody which other gateways there are now.
    pub(super) fn tell_peers(&self, gateways: &[String]) {
        for instance in self.tunnels() {
            instance.tunnel.peers_changed(gateways.to_vec());
        }
    }

    /// Everybody with a tunnel.
    pub(super) fn tunnels(&self) -> Vec<Arc<Instance>> {
        self.present.iter().flat_map(|tunnels| tunnels.list.clone()).collect()
    }

    pub(super) fn tunnel_count(&self) -> usize {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// How many instances take new calls.
    pub(super) fn ready_instances(&self) -> usize {
        self.ready.load(Ordering::Relaxed)
    }

    /// Changes `instance` and says whether that changed if it takes new calls.
    fn change(&self, instance: &Instance, change: impl FnOnce(&mut Facts)) -> bool {
        let mut facts = instance.facts();
        let before = facts.is_ready();
        change(&mut facts);
        match (before, facts.is_ready()) {
            (false, true) => self.ready.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.ready.fetch_sub(1, Ordering::Relaxed),
            _ => return false,
        };
        true
    }

    /// The targets that `instance` answers.
    fn answered(&self, instance: &Instance) -> impl Iterator<Item = &Arc<Target>> {
        self.targets.iter().filter(|target| instance.answers(&target.name))
    }

    fn target(&self, service: &str) -> Option<&Arc<Target>> {
        self.targets.iter().find(|target| *target.name == *service)
    }
}

#[cfg(test)]
mod tests;
