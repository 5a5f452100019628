//! The registry as users see it: who is here, and what changes.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{Instance, instance::Facts};
use crate::gateway::balancer::Candidate as _;

/// One instance that is connected to a gateway, as it was at one moment; from [`Gateway::instances`].
///
/// [`Gateway::instances`]: crate::Gateway::instances
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegisteredInstance {
    /// Its instance id.
    pub id: String,
    /// 16 bytes by chance, new for each process.
    pub incarnation: [u8; 16],
    /// The services that it answers, `package.Service`.
    pub services: Vec<String>,
    /// Those of them that take no calls now, by its own word.
    pub not_serving: Vec<String>,
    /// What its owner calls its version; may be empty.
    pub version: String,
    /// Where it dialled from last, `address:port`; `unknown` behind a server that is not the gateway's own.
    pub peer: String,
    /// As whom it registered, as the gateway's [`RegistrationPolicy`] names it; none where there is no policy.
    ///
    /// [`RegistrationPolicy`]: crate::RegistrationPolicy
    pub principal: Option<String>,
    /// Its share of calls under weighted balancing, 1 to 1000.
    pub weight: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The routing keys that it answers beside its id, in the order of their bytes.
    pub routing_keys: Vec<String>,
    /// Whether it takes new calls.
    pub state: InstanceState,
    /// How busy it says it is, in thousandths.
    pub load_permille: u32,
    /// The calls that it has now.
    pub open_calls: usize,
    /// The calls that it ever had.
    pub calls: u64,
    /// How long it has been connected.
    pub connected_for: Duration,
}

/// Whether an instance takes new calls, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstanceState {
    /// It takes them.
    Ready,
    /// It said that it cannot serve now.
    NotServing,
    /// It finishes what it has and goes.
    Draining,
    /// Another tunnel with its instance id takes the new calls.
    Replaced,
    /// Its connection was lost. Its calls are kept until it is back, or as long as the
    /// [`resume_window`](crate::GatewayBuilder::resume_window) says.
    Away,
    /// It kept failing and is left out for a while; where there is no other instance it takes calls all the same.
    Ejected,
}

/// What changed among the instances of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceChange {
    /// An instance registered.
    Joined(RegisteredInstance),
    /// An instance is not as it was: its state, weight, labels or load. Or its connection was lost, or is back.
    Changed(RegisteredInstance),
    /// An instance went, or its connection was lost and it did not come back in time.
    Left {
        /// As it was last.
        instance: RegisteredInstance,
        /// What ended its tunnel, in words for people.
        why: String,
    },
    /// This watcher was too slow, and so many changes were dropped for it: ask [`Gateway::instances`] how it is now.
    ///
    /// [`Gateway::instances`]: crate::Gateway::instances
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Tells what changes among the instances; from [`Gateway::watch`].
///
/// [`Gateway::watch`]: crate::Gateway::watch
#[derive(Debug)]
pub struct InstanceWatch {
    receiver: broadcast::Receiver<Arc<InstanceChange>>,
}

impl InstanceWatch {
    /// The next change, in the order in which they came; `None` once the gateway is no more.
    ///
    /// Up to 1024 changes wait here. Who is slower is told so with [`InstanceChange::Lagged`] and goes on with the oldest
    /// that is left; nobody else waits for it.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn next(&mut self) -> Option<InstanceChange> {
        match self.receiver.recv().await {
            Ok(change) => Some(Arc::unwrap_or_clone(change)),
            Err(RecvError::Lagged(missed)) => Some(InstanceChange::Lagged { missed }),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Called with each change.
#[derive(Clone)]
pub(in crate::gateway) struct OnChange(Arc<dyn Fn(&InstanceChange) + Send + Sync>);

impl OnChange {
    pub(in crate::gateway) fn new(callback: impl Fn(&InstanceChange) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }
}

impl fmt::Debug for OnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnChange")
    }
}

/// Everybody who wants to know.
#[derive(Debug)]
pub(super) struct Watchers {
    sender: broadcast::Sender<Arc<InstanceChange>>,
    callbacks: Vec<OnChange>,
}

impl Watchers {
    pub(super) fn new(callbacks: Vec<OnChange>) -> Self {
        Self { sender: broadcast::Sender::new(WAITING_CHANGES), callbacks }
    }

    pub(super) fn watch(&self) -> InstanceWatch {
        InstanceWatch { receiver: self.sender.subscribe() }
    }

    /// Tells a change, which is only made if somebody wants to know. Called without a lock held.
    pub(super) fn tell(&self, change: impl FnOnce() -> InstanceChange) {
        if self.callbacks.is_empty() && self.sender.receiver_count() == 0 {
            return;
        }
        let change = Arc::new(change());
        self.callbacks.iter().for_each(|callback| (callback.0)(&change));
        // An error says that nobody listens, which is no error.
        let _ = self.sender.send(change);
    }
}

impl Instance {
    /// As users see it.
    pub(super) fn shown(&self) -> RegisteredInstance {
        let facts = self.facts();
        let text = |key: &bytes::Bytes| String::from_utf8_lossy(key).into_owned();
        RegisteredInstance {
            id: self.id.to_string(),
            incarnation: self.incarnation.0,
            services: self.services.clone(),
            not_serving: facts.not_serving.clone(),
            version: self.software_version.clone(),
            peer: facts.peer.clone(),
            principal: self.principal.as_ref().map(ToString::to_string),
            weight: self.weight(),
            labels: facts.labels.clone(),
            routing_keys: self.keys.iter().map(text).filter(|key| *key != self.id.as_str()).collect(),
            state: facts.state(),
            load_permille: facts.load_permille,
            open_calls: self.open_calls(),
            calls: self.calls(),
            connected_for: self.since.elapsed(),
        }
    }
}

impl Facts {
    fn state(&self) -> InstanceState {
        if self.displaced {
            InstanceState::Replaced
        } else if self.draining {
            InstanceState::Draining
        } else if self.away.is_some() {
            InstanceState::Away
        } else if !self.serving {
            InstanceState::NotServing
        } else if self.ejection.is_on() {
            InstanceState::Ejected
        } else {
            InstanceState::Ready
        }
    }
}

/// Changes that wait for a slow watcher: a second of a storm. Each is one allocation, shared by all watchers.
const WAITING_CHANGES: usize = 1024;
