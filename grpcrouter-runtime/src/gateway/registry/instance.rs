//! One registered instance: what it said of itself, its tunnel, and how it stands now. What a picker asks of it is in
//! atomics; the rest changes behind a lock that no call takes.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use grpcrouter_protocol::{Health, Hello, Incarnation, InstanceId, Update};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::ejection::{Ejection, Streak};
use crate::{
    clock,
    descriptors::Hash,
    gateway::{
        balancer::{Candidate, Latency, MAX_WEIGHT},
        principal::Principal,
    },
    tunnel::TunnelHandle,
};

/// One instance with a tunnel.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(in crate::gateway) id: InstanceId,
    pub(in crate::gateway) incarnation: Incarnation,
    pub(in crate::gateway) tunnel: TunnelHandle,
    /// Rises with each that comes, so that it tells the order.
    pub(super) number: u64,
    /// The names of the services that it answers.
    pub(super) services: Vec<String>,
    /// Its id, and the other keys that it answers. Each once.
    pub(super) keys: Vec<Bytes>,
    /// Of the descriptors that it offers, each once.
    pub(in crate::gateway) descriptors: Vec<Hash>,
    pub(super) software_version: String,
    /// As whom it registered, if the gateway has a policy for that.
    pub(super) principal: Option<Principal>,
    pub(super) since: Instant,
    /// So many calls at once were agreed on.
    max_calls: u64,
    began: AtomicU64,
    ended: AtomicU64,
    weight: AtomicU32,
    /// How long it takes to answer; only where somebody wants to know.
    pub(super) latency: Latency,
    pub(super) is_measured: AtomicBool,
    pub(super) streak: Streak,
    /// Its tunnel is over.
    pub(super) gone: CancellationToken,
    facts: Mutex<Facts>,
    /// Who took its place, told to the stream that carries this one.
    pub(in crate::gateway) successor: watch::Sender<Option<Incarnation>>,
}

/// What changes of an instance.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Of the last Update.
    pub(super) version: u64,
    pub(super) serving: bool,
    /// Services that take no calls though the whole serves.
    pub(super) not_serving: Vec<String>,
    pub(super) draining: bool,
    /// A later tunnel of the same id takes the new calls.
    pub(super) displaced: bool,
    /// It is in the registry.
    pub(super) present: bool,
    /// Since when no stream carries its tunnel, if none does.
    pub(super) away: Option<Instant>,
    /// Where it dialled from last, for logs.
    pub(super) peer: String,
    pub(super) ejection: Ejection,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) load_permille: u32,
}

impl Facts {
    /// It takes new calls, unless it is ejected.
    pub(super) fn is_ready(&self) -> bool {
        self.would_be_ready() && self.away.is_none()
    }

    /// The same, if its tunnel had a stream.
    fn would_be_ready(&self) -> bool {
        self.present && self.serving && !self.draining && !self.displaced
    }

    /// It lost its stream a moment ago: one that lives dials again within milliseconds.
    fn is_awaited(&self) -> bool {
        self.would_be_ready() && self.away.is_some_and(|since| since.elapsed() < AWAITED_FOR)
    }

    /// It would take calls to `service`, if its tunnel had a stream.
    pub(super) fn is_away_from(&self, service: &str) -> bool {
        self.away.is_some() && self.would_be_ready() && !self.not_serving.iter().any(|name| name == service)
    }

    /// The same, of calls to `service`.
    pub(super) fn is_ready_for(&self, service: &str) -> bool {
        self.is_ready() && !self.not_serving.iter().any(|name| name == service)
    }
}

impl Instance {
    /// `hello.max_calls` is what was agreed on.
    pub(in crate::gateway) fn new(hello: Hello, tunnel: TunnelHandle, peer: String) -> Self {
        let not_serving = hello.services.iter().filter(|offer| offer.not_serving);
        let facts = Facts {
            version: 0,
            serving: hello.health != Health::NotServing && !hello.services.iter().all(|offer| offer.not_serving),
            not_serving: not_serving.map(|offer| offer.name.clone()).collect(),
            draining: hello.draining,
            displaced: false,
            present: false,
            away: None,
            peer,
            ejection: Ejection::default(),
            labels: hello.labels,
            load_permille: 0,
        };
        let mut keys = vec![Bytes::copy_from_slice(hello.instance_id.as_str().as_bytes())];
        keys.extend(hello.routing_keys.into_iter().map(Bytes::from));
        keys.sort_unstable();
        keys.dedup();
        let mut descriptors = Vec::new();
        for hash in hello.services.iter().filter_map(|offer| Hash::from_slice(&offer.descriptor_hash)) {
            if !descriptors.contains(&hash) && descriptors.len() < MAX_DESCRIPTORS {
                descriptors.push(hash);
            }
        }
        let instance = Self {
            id: hello.instance_id,
            incarnation: hello.incarnation,
            tunnel,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            services: hello.services.into_iter().map(|offer| offer.name).collect(),
            keys,
            descriptors,
            software_version: hello.software_version,
            principal: None,
            since: Instant::now(),
            max_calls: hello.max_calls,
            began: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            weight: AtomicU32::new(1),
            latency: Latency::default(),
            is_measured: AtomicBool::new(false),
            streak: Streak::default(),
            gone: CancellationToken::new(),
            facts: Mutex::new(facts),
            successor: watch::Sender::new(None),
        };
        if hello.weight > MAX_WEIGHT {
            warn!(instance = %instance.id, weight = hello.weight, most = MAX_WEIGHT, "a weight above the highest counts as the highest");
        }
        instance.set_weight(hello.weight);
        instance
    }

    /// The same, registered as `principal`.
    pub(in crate::gateway) fn registered_as(self, principal: Option<Principal>) -> Self {
        Self { principal, ..self }
    }

    /// What it says of itself.
    pub(super) fn take(&self, update: &Update, facts: &mut Facts) {
        let ill = |service: &String| update.not_serving.contains(service);
        facts.version = update.version;
        facts.serving = update.health != Health::NotServing && !self.services.iter().all(ill);
        facts.not_serving = self.services.iter().filter(|service| ill(service)).cloned().collect();
        facts.labels.clone_from(&update.labels);
        facts.load_permille = update.load_permille;
    }

    /// One more call goes there.
    pub(super) fn call_began(&self) {
        self.began.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn call_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls went there.
    pub(super) fn calls(&self) -> u64 {
        self.began.load(Ordering::Relaxed)
    }

    /// Whether it claims this routing key.
    pub(super) fn has_key(&self, key: &[u8]) -> bool {
        self.keys.iter().any(|own| *own == key)
    }

    pub(super) fn answers(&self, service: &str) -> bool {
        self.services.iter().any(|name| name == service)
    }

    /// Whether it is a good choice now: it has room, and if it comes back from an ejection it is its turn. One that is
    /// not is taken where there is no better.
    pub(super) fn is_eager(&self) -> bool {
        (self.open_calls() as u64) < self.max_calls && self.streak.is_let_in(clock::now)
    }

    /// Whether calls wait a moment for its return.
    pub(in crate::gateway) fn is_awaited(&self) -> bool {
        self.facts().is_awaited()
    }

    /// Whether it has said that it takes no new calls.
    pub(in crate::gateway) fn is_draining(&self) -> bool {
        self.facts().draining
    }

    /// Whether it takes new calls now.
    pub(in crate::gateway) fn is_healthy(&self) -> bool {
        let facts = self.facts();
        facts.is_ready() && !facts.ejection.is_on()
    }

    /// Weights out of bounds are taken for the nearest that is in them. Says if that changed it.
    pub(super) fn set_weight(&self, weight: u32) -> bool {
        let weight = weight.clamp(1, MAX_WEIGHT);
        self.weight.swap(weight, Ordering::Relaxed) != weight
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody wants to know how long it takes to answer.
    pub(super) fn is_measured(&self) -> bool {
        self.is_measured.load(Ordering::Relaxed)
    }
}

impl Candidate for Instance {
    fn name(&self) -> &str {
        self.id.as_str()
    }

    fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    fn open_calls(&self) -> usize {
        // Two numbers, of one moment each: one that ends in between must not make a very large one of them.
        let (began, ended) = (self.began.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed));
        usize::try_from(began.saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    fn latency(&self) -> Option<f32> {
        self.latency.now(clock::now())
    }
}

/// So long calls wait for one that lost its stream, instead of failing: it notices at once, or within a heartbeat, and
/// dials over even a bad way in less. One that is not back by then may well be gone, and clients are better told.
pub(in crate::gateway) const AWAITED_FOR: Duration = Duration::from_secs(2);

/// Sets of descriptors that one instance is asked for: one for each team whose services it has.
const MAX_DESCRIPTORS: usize = 16;

/// Of the next instance of this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);
