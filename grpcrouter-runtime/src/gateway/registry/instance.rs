//! One registered instance: what it said of itself, its tunnel, and how it stands now.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use grpcrouter_protocol::{Health, Hello, Incarnation, InstanceId};
use tokio::time::Instant;

use crate::tunnel::TunnelHandle;

/// One instance with a tunnel.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(in crate::gateway) id: InstanceId,
    pub(in crate::gateway) incarnation: Incarnation,
    pub(in crate::gateway) tunnel: TunnelHandle,
    /// The names of the services that it answers.
    pub(super) services: Vec<String>,
    /// The keys that it answers beside its id.
    pub(super) routing_keys: Vec<String>,
    pub(super) software_version: String,
    /// Where it dialled from, for logs.
    pub(super) peer: String,
    pub(super) since: Instant,
    calls: AtomicU64,
    facts: Mutex<Facts>,
}

/// What changes of an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Of the last Update.
    pub(super) version: u64,
    pub(super) serving: bool,
    pub(super) draining: bool,
    /// A later tunnel of the same id takes the new calls.
    pub(super) displaced: bool,
}

impl Facts {
    pub(super) fn is_ready(self) -> bool {
        self.serving && !self.draining && !self.displaced
    }
}

impl Instance {
    pub(in crate::gateway) fn new(hello: Hello, tunnel: TunnelHandle, peer: String) -> Self {
        let facts = Facts {
            version: 0,
            serving: hello.health != Health::NotServing,
            draining: hello.draining,
            displaced: false,
        };
        Self {
            id: hello.instance_id,
            incarnation: hello.incarnation,
            tunnel,
            services: hello.services.into_iter().map(|offer| offer.name).collect(),
            routing_keys: hello.routing_keys,
            software_version: hello.software_version,
            peer,
            since: Instant::now(),
            calls: AtomicU64::new(0),
            facts: Mutex::new(facts),
        }
    }

    /// Counts one more call that goes there.
    pub(in crate::gateway) fn took_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls went there.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn answers(&self, service: &str) -> bool {
        self.services.iter().any(|name| name == service)
    }

    pub(super) fn facts(&self) -> Facts {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that changed if it takes new calls.
    pub(super) fn change(&self, change: impl FnOnce(&mut Facts)) -> bool {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = facts.is_ready();
        change(&mut facts);
        facts.is_ready() != before
    }
}

#[cfg(test)]
pub(in crate::gateway) mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::{collections::BTreeMap, sync::Arc};

    use bytes::Bytes;
    use grpcrouter_protocol::{Config, ServiceOffer};

    use super::*;

    pub(in crate::gateway) fn hello(id: &str, service: &str) -> Hello {
        Hello {
            versions: Config::VERSIONS,
            features: Vec::new(),
            instance_id: InstanceId::parse(id).unwrap(),
            incarnation: Incarnation([0; 16]),
            services: vec![ServiceOffer {
                name: service.to_owned(),
                methods: Vec::new(),
                descriptor_hash: Bytes::new(),
            }],
            software_version: String::new(),
            weight: 1,
            labels: BTreeMap::new(),
            routing_keys: Vec::new(),
            max_calls: 100,
            health: Health::Serving,
            draining: false,
            resume: None,
        }
    }

    pub(in crate::gateway) fn instance(id: &str, service: &str) -> Arc<Instance> {
        keyed(id, service, &[])
    }

    pub(in crate::gateway) fn keyed(id: &str, service: &str, keys: &[&str]) -> Arc<Instance> {
        let mut hello = hello(id, service);
        hello.routing_keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Arc::new(Instance::new(hello, TunnelHandle::gateway(Config::default()), "127.0.0.1:1".to_owned()))
    }
}
