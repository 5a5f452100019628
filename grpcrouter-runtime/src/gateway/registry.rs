//! Who is here: instances by the service that they answer. Registering thinks, under a lock; a call looks at a snapshot
//! that does not change.

mod instance;
mod snapshot;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use dashmap::DashMap;
use grpcrouter_protocol::{Close, CloseCode, Health, InstanceId, Update};
use tokio::time::Instant;
use tracing::{info, warn};

#[cfg(test)]
pub(super) use self::instance::tests::hello;
use self::{instance::Facts, snapshot::Left};
pub(crate) use self::{instance::Instance, snapshot::Snapshot};
use super::{
    balancer::{Balancer, RoundRobin},
    route::TargetId,
};

/// The instances of one gateway.
#[derive(Debug)]
pub(crate) struct Registry {
    /// By [`TargetId`].
    snapshots: Vec<ArcSwap<Snapshot>>,
    /// Everybody with a tunnel. Of several tunnels of one id the last takes the new calls.
    present: DashMap<InstanceId, Vec<Arc<Instance>>>,
    /// By [`TargetId`]. Locked before `present` is looked at, never the other way round.
    targets: Vec<Mutex<Target>>,
}

/// What a service keeps from one snapshot to the next.
#[derive(Debug)]
struct Target {
    name: &'static str,
    balancers: snapshot::Balancers,
    left: Option<Left>,
}

impl Registry {
    /// For these targets; what else instances register is kept but not routed to.
    pub(super) fn new(targets: &[&'static str]) -> Self {
        let target = |name: &&'static str| {
            Mutex::new(Target { name, balancers: snapshot::Balancers::new(new_balancer), left: None })
        };
        Self {
            snapshots: targets.iter().map(|_| ArcSwap::default()).collect(),
            present: DashMap::new(),
            targets: targets.iter().map(target).collect(),
        }
    }

    /// The instances of `target` that take calls now.
    pub(super) fn snapshot(&self, target: TargetId) -> Option<Guard<Arc<Snapshot>>> {
        self.snapshots.get(target.0).map(ArcSwap::load)
    }

    /// Lets `instance` take calls. One of the same id takes no new ones any more; it is returned.
    pub(super) fn insert(&self, instance: &Arc<Instance>) -> Option<Arc<Instance>> {
        let displaced = {
            let mut tunnels = self.present.entry(instance.id.clone()).or_default();
            let displaced = tunnels.iter().rev().find(|other| !other.facts().displaced).cloned();
            if let Some(displaced) = &displaced {
                displaced.change(|facts| facts.displaced = true);
            }
            tunnels.push(instance.clone());
            displaced
        };
        self.publish(instance);
        if let Some(displaced) = &displaced {
            self.publish(displaced);
        }

        let services = instance.services.join(", ");
        info!(instance = %instance.id, services, peer = %instance.peer, version = instance.software_version, "instance joined");
        for service in &instance.services {
            if !self.targets.iter().any(|target| lock(target).name == service) {
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
            tunnels.retain(|other| !Arc::ptr_eq(other, instance));
        }
        self.present.remove_if(&instance.id, |_, tunnels| tunnels.is_empty());
        let left = Left { id: instance.id.clone(), at: Instant::now(), why: why.to_owned() };
        for target in &self.targets {
            let mut target = lock(target);
            if instance.answers(target.name) {
                target.left = Some(left.clone());
            }
        }
        self.publish(instance);

        let here = instance.since.elapsed();
        let calls = instance.calls();
        info!(
            instance = %instance.id,
            services = instance.services.join(", "),
            peer = %instance.peer,
            why,
            here = ?Duration::from_millis(u64::try_from(here.as_millis()).unwrap_or(u64::MAX)),
            calls,
            "instance left"
        );
    }

    /// `instance` takes no new call; what runs finishes.
    pub(super) fn drain(&self, instance: &Arc<Instance>) {
        info!(instance = %instance.id, running = instance.tunnel.open_calls(), "instance drains");
        self.change(instance, |facts| facts.draining = true);
    }

    /// What `instance` says of itself has changed; an older word than the last one counts for nothing.
    pub(super) fn update(&self, instance: &Arc<Instance>, update: &Update) {
        self.change(instance, |facts| {
            if update.version > facts.version {
                facts.version = update.version;
                facts.serving = update.health != Health::NotServing;
            }
        });
    }

    /// Ends every tunnel, and with it every call in one.
    pub(super) fn close_all(&self, code: CloseCode, reason: &str) {
        for instance in self.tunnels() {
            instance.tunnel.close(Close { code, reason: reason.to_owned(), retry_after: Duration::ZERO });
        }
    }

    /// Everybody with a tunnel.
    pub(super) fn tunnels(&self) -> Vec<Arc<Instance>> {
        self.present.iter().flat_map(|tunnels| tunnels.clone()).collect()
    }

    /// How many instances take new calls.
    pub(super) fn ready_instances(&self) -> usize {
        let ready = |tunnels: &[Arc<Instance>]| tunnels.iter().filter(|instance| instance.facts().is_ready()).count();
        self.present.iter().map(|tunnels| ready(&tunnels)).sum()
    }

    fn change(&self, instance: &Arc<Instance>, change: impl FnOnce(&mut Facts)) {
        if instance.change(change) {
            self.publish(instance);
        }
    }

    /// Makes the snapshots anew of each target that `changed` answers. Whoever publishes last sees every change.
    fn publish(&self, changed: &Instance) {
        for (target, published) in self.targets.iter().zip(&self.snapshots) {
            let mut target = lock(target);
            if !changed.answers(target.name) {
                continue;
            }
            let mut ready = self.tunnels();
            ready.retain(|one| one.answers(target.name) && one.facts().is_ready());
            // In the order in which they came, so that turns go on where they were.
            ready.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
            let left = target.left.clone();
            published.store(Arc::new(Snapshot::new(ready, &mut target.balancers, left)));
        }
    }
}

fn lock(target: &Mutex<Target>) -> MutexGuard<'_, Target> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one balancing that is served yet.
fn new_balancer() -> Box<dyn Balancer<Instance>> {
    Box::new(RoundRobin::default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::collections::BTreeMap;

    use super::{
        instance::tests::{instance, keyed},
        *,
    };
    use crate::gateway::strategy::RoutingKey;

    const ORDERS: TargetId = TargetId(0);

    fn registry() -> Registry {
        Registry::new(&["shop.Orders", "shop.Stock"])
    }

    fn key(value: &'static str) -> RoutingKey {
        RoutingKey::Value(value.into())
    }

    /// Who answers four calls with this key.
    fn answers(registry: &Registry, key: &RoutingKey) -> Vec<String> {
        let snapshot = registry.snapshot(ORDERS).unwrap();
        (0..4).filter_map(|_| snapshot.pick(key, &|_| true)).map(|instance| instance.id.to_string()).collect()
    }

    #[test]
    fn calls_go_in_turn_to_the_instances_of_their_service() {
        let registry = registry();
        for (id, service) in [("a", "shop.Orders"), ("b", "shop.Orders"), ("c", "shop.Stock")] {
            registry.insert(&instance(id, service));
        }

        assert_eq!(answers(&registry, &RoutingKey::Absent), ["a", "b", "a", "b"]);
        assert_eq!(registry.ready_instances(), 3);
    }

    #[test]
    fn a_key_names_an_instance_or_one_that_declared_it() {
        let registry = registry();
        registry.insert(&instance("a", "shop.Orders"));
        registry.insert(&keyed("b", "shop.Orders", &["eu", "us"]));
        registry.insert(&keyed("c", "shop.Orders", &["eu"]));

        assert_eq!(answers(&registry, &key("a")), ["a"; 4]);
        assert_eq!(answers(&registry, &key("us")), ["b"; 4]);
        assert_eq!(answers(&registry, &key("eu")), ["b", "c", "b", "c"]);
        assert_eq!(answers(&registry, &key("nobody")), [""; 0]);
    }

    #[test]
    fn one_that_drains_or_is_not_serving_takes_no_calls() {
        let registry = registry();
        let [a, b] = ["a", "b"].map(|id| instance(id, "shop.Orders"));
        registry.insert(&a);
        registry.insert(&b);

        registry.drain(&a);
        assert_eq!(answers(&registry, &RoutingKey::Absent), ["b"; 4]);

        let health = |version, health| Update { version, health, weight: 1, labels: BTreeMap::new(), load_permille: 0 };
        registry.update(&b, &health(2, Health::NotServing));
        assert_eq!(answers(&registry, &RoutingKey::Absent), [""; 0]);
        registry.update(&b, &health(1, Health::Serving));
        assert_eq!(answers(&registry, &RoutingKey::Absent), [""; 0]);
        registry.update(&b, &health(3, Health::Serving));
        assert_eq!(answers(&registry, &RoutingKey::Absent), ["b"; 4]);
    }

    #[test]
    fn the_latest_of_one_id_takes_the_calls() {
        let registry = registry();
        let [old, new] = ["a", "a"].map(|id| instance(id, "shop.Orders"));
        assert!(registry.insert(&old).is_none());

        let displaced = registry.insert(&new).unwrap();

        assert!(Arc::ptr_eq(&displaced, &old));
        let picked = registry.snapshot(ORDERS).unwrap().pick(&key("a"), &|_| true).unwrap();
        assert!(Arc::ptr_eq(&picked, &new));
        assert_eq!((registry.tunnels().len(), registry.ready_instances()), (2, 1));
    }

    #[test]
    fn who_left_last_is_remembered_with_the_reason() {
        let registry = registry();
        let nobody = |key: &RoutingKey| registry.snapshot(ORDERS).unwrap().nobody("shop.Orders", "id", key).message;
        let a = instance("a", "shop.Orders");
        assert!(nobody(&key("a")).starts_with("no instance of shop.Orders has registered yet; "));
        registry.insert(&a);

        registry.remove(&a, "the stream ended");

        let left = "the last one, a, left 0 s ago: the stream ended";
        assert_eq!(nobody(&key("a")), format!("no instance of shop.Orders is connected: {left}"));
        registry.insert(&instance("b", "shop.Orders"));
        let unknown = "no instance of shop.Orders has the routing key id";
        assert_eq!(nobody(&key("a")), format!("{unknown} = \"a\"; connected: b; {left}"));
        assert_eq!(nobody(&key("z")), format!("{unknown} = \"z\"; connected: b"));
        assert_eq!(registry.tunnels().len(), 1);
    }
}
