//! The instances of one service at one moment, with a picker ready for each question that a call can ask.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use grpcrouter_protocol::InstanceId;
use tokio::time::Instant;

use super::Instance;
use crate::{
    gateway::{
        balancer::{Balancer, Picker},
        strategy::RoutingKey,
    },
    status::{Answer, shown},
};

/// Does not change; a new one takes its place.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    ready: Vec<Arc<Instance>>,
    all: Option<Arc<dyn Picker<Instance>>>,
    /// Instance ids and declared routing keys.
    by_key: HashMap<Box<[u8]>, Arc<dyn Picker<Instance>>>,
    left: Option<Left>,
}

/// Who left last, and why.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) id: InstanceId,
    pub(super) at: Instant,
    pub(super) why: String,
}

impl Left {
    fn shown(&self) -> String {
        format!(
            "the last one, {}, left {} s ago: {}",
            shown(self.id.as_str()),
            self.at.elapsed().as_secs(),
            shown(&self.why)
        )
    }
}

impl Snapshot {
    pub(super) fn new(ready: Vec<Arc<Instance>>, balancers: &mut Balancers, left: Option<Left>) -> Self {
        let mut claims: HashMap<Box<[u8]>, Vec<Arc<Instance>>> = HashMap::new();
        for instance in &ready {
            let keys = instance.routing_keys.iter().filter(|key| *key != instance.id.as_str());
            for key in keys.map(String::as_str).chain([instance.id.as_str()]) {
                claims.entry(key.as_bytes().into()).or_default().push(instance.clone());
            }
        }
        balancers.by_key.retain(|key, _| claims.contains_key(key));
        let by_key = claims
            .into_iter()
            .map(|(key, claimants)| {
                let balancer = balancers.by_key.entry(key.clone()).or_insert_with(balancers.new);
                (key, balancer.picker(claimants))
            })
            .collect();
        Self { all: Some(balancers.all.picker(ready.clone())), by_key, ready, left }
    }

    /// One instance for a call with this key, among those that suit.
    pub(in crate::gateway) fn pick(
        &self,
        key: &RoutingKey,
        suits: &dyn Fn(&Instance) -> bool,
    ) -> Option<Arc<Instance>> {
        let picker = match key {
            RoutingKey::Absent => self.all.as_ref()?,
            RoutingKey::Value(key) => self.by_key.get(&key[..])?,
        };
        picker.pick(suits)
    }

    /// What to answer where nobody can be picked for `key`, which is read from `name`.
    pub(in crate::gateway) fn nobody(&self, service: &str, name: &str, key: &RoutingKey) -> Answer {
        let last = self.left.as_ref().map(Left::shown);
        let RoutingKey::Value(key) = key else { return Answer::no_instance(service, last.as_deref()) };
        if self.ready.is_empty() {
            return Answer::no_instance(service, last.as_deref());
        }
        let ids = self.ready.iter().map(|instance| instance.id.as_str());
        let mut answer = Answer::unknown_key(service, name, &String::from_utf8_lossy(key), ids);
        if let Some(left) = self.left.as_ref().filter(|left| left.id.as_str().as_bytes() == &key[..]) {
            let _ = write!(answer.message, "; {}", left.shown());
        }
        answer
    }
}

/// The balancers of one service, kept from one snapshot to the next.
#[derive(Debug)]
pub(super) struct Balancers {
    new: fn() -> Box<dyn Balancer<Instance>>,
    all: Box<dyn Balancer<Instance>>,
    by_key: HashMap<Box<[u8]>, Box<dyn Balancer<Instance>>>,
}

impl Balancers {
    pub(super) fn new(new: fn() -> Box<dyn Balancer<Instance>>) -> Self {
        Self { new, all: new(), by_key: HashMap::new() }
    }
}
