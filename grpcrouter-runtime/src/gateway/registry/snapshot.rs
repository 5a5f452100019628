//! The instances of one service at one moment, with a picker ready for each question that a call can ask.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use grpcrouter_protocol::InstanceId;
use tokio::time::Instant;

use super::{
    Instance,
    split::{Divided, Split},
};
use crate::{
    codegen::LoadBalancing,
    gateway::{
        balancer::{self, Balancer, Dice, Picker, Ready},
        strategy::RoutingKey,
    },
    status::{Answer, shown},
};

/// Does not change; a new one takes its place.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Those that take new calls, in the order in which they came.
    ready: Vec<Arc<Instance>>,
    /// By instance id and by declared routing key. Empty where every key is hashed.
    by_key: HashMap<Bytes, Claim>,
    /// By [`place`].
    pickers: [Option<Pickers>; BALANCINGS],
    /// Every balancing that a route asks for is this one instead.
    instead: Option<LoadBalancing>,
    /// Calls go to versions of the software by their shares.
    split: Option<Divided>,
    /// How many are connected and take no calls.
    resting: usize,
    /// Those that lost their streams and may come back.
    away: Vec<Arc<Instance>>,
    left: Option<Left>,
}

/// Who claims one routing key.
#[derive(Debug)]
enum Claim {
    One(Arc<Instance>),
    /// A place in [`Pickers::several`].
    Several(usize),
}

/// A key and those that claim it.
type Claimants = (Bytes, Vec<Arc<Instance>>);

/// The pickers of one balancing: over those that are not ejected.
#[derive(Debug)]
struct Pickers {
    all: Arc<dyn Picker<Instance>>,
    /// For each key that several claim.
    several: Vec<Arc<dyn Picker<Instance>>>,
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
    /// Of those that are `ready`; some of them may be ejected.
    pub(super) fn new(ready: Vec<Arc<Instance>>, balancers: &mut Balancers, left: Option<Left>) -> Self {
        let in_use = balancers.in_use();
        let all_hashed = in_use.iter().all(|balancing| *balancing == LoadBalancing::ConsistentHash);
        let (by_key, several) = if all_hashed { Default::default() } else { claimed(&ready) };
        let (all, mut pickers) = (well(&ready), <[Option<Pickers>; BALANCINGS]>::default());
        for balancing in in_use {
            if let Some(place) = pickers.get_mut(place(balancing)) {
                *place = Some(balancers.kept(balancing).pickers(&all, &several));
            }
            if balancing == LoadBalancing::PeakEwma {
                ready.iter().for_each(|one| one.is_measured.store(true, Ordering::Relaxed));
            }
        }
        Self { ready, by_key, pickers, instead: balancers.instead, split: None, resting: 0, away: Vec::new(), left }
    }

    /// The same, beside so many that are connected and take no calls, and those that are away.
    pub(super) fn beside(self, resting: usize, away: Vec<Arc<Instance>>) -> Self {
        Self { resting, away, ..self }
    }

    /// The same, with its calls split between versions.
    pub(super) fn split(mut self, split: Option<&mut Split>) -> Self {
        self.split = split.map(|split| split.divide(&self.ready));
        self
    }

    /// Those of the version that a call asks for, where calls are split; else all.
    pub(in crate::gateway) fn of_version(&self, version: Option<&str>) -> Option<&Self> {
        match (version, &self.split) {
            (Some(version), Some(split)) => split.of(version),
            _ => Some(self),
        }
    }

    /// Whether anybody takes calls, or will in a moment.
    pub(super) fn serves(&self) -> bool {
        self.away.iter().any(|one| one.is_awaited())
            || self.split.as_ref().map_or(!self.ready.is_empty(), |split| !split.is_empty())
    }

    /// One instance for a call with this key, among those that suit; `balancing` is what its route asks for.
    pub(in crate::gateway) fn pick(
        &self,
        balancing: LoadBalancing,
        key: &RoutingKey,
        suits: &dyn Fn(&Instance) -> bool,
    ) -> Option<Arc<Instance>> {
        let balancing = self.instead.unwrap_or(balancing);
        if let Some(split) = &self.split {
            let picked = split.pick(balancing, key, suits);
            // A key that names an instance of yet another version still reaches it.
            if picked.is_some() || *key == RoutingKey::Absent || balancing == LoadBalancing::ConsistentHash {
                return picked;
            }
        }
        let pickers = self.pickers.get(place(balancing))?.as_ref()?;
        let picker = match key {
            RoutingKey::Value(key) if balancing != LoadBalancing::ConsistentHash => match self.by_key.get(&key[..])? {
                Claim::One(one) => return suits(one).then(|| one.clone()),
                Claim::Several(place) => pickers.several.get(*place)?,
            },
            _ => &pickers.all,
        };
        let eager = |one: &Instance| one.is_eager() && suits(one);
        picker.pick(key, &eager).or_else(|| picker.pick(key, suits))
    }

    /// Whether one that could take a call with this key, of this version, is awaited.
    pub(in crate::gateway) fn awaits(&self, balancing: LoadBalancing, key: &RoutingKey, version: Option<&str>) -> bool {
        let is_hashed = self.instead.unwrap_or(balancing) == LoadBalancing::ConsistentHash;
        let has_key = |one: &Instance| match key {
            RoutingKey::Value(key) if !is_hashed => one.has_key(key),
            _ => true,
        };
        let is_of = |one: &Instance| version.is_none_or(|version| one.software_version == version);
        self.away.iter().any(|one| has_key(one) && is_of(one) && one.is_awaited())
    }

    /// All that a call without a key may go to.
    pub(in crate::gateway) fn candidates(&self) -> Vec<Arc<Instance>> {
        well(&self.ready).to_vec()
    }

    /// What to answer where nobody can be picked for `key`, which is read from `name`.
    pub(in crate::gateway) fn nobody(&self, service: &str, name: &str, key: &RoutingKey) -> Answer {
        let last = self.left.as_ref().map(Left::shown);
        let RoutingKey::Value(key) = key else {
            let mut answer = Answer::no_instance(service, self.resting, self.away.len(), last.as_deref());
            if self.split.is_some() && !self.ready.is_empty() {
                answer
                    .message
                    .push_str("; its calls are split between versions, and none of this call's version is here");
            }
            return answer;
        };
        if self.ready.is_empty() {
            return Answer::no_instance(service, self.resting, self.away.len(), last.as_deref());
        }
        let ids = self.ready.iter().map(|instance| instance.id.as_str());
        let mut answer = Answer::unknown_key(service, name, &String::from_utf8_lossy(key), ids);
        if let Some(away) = self.away.iter().find(|one| one.has_key(key)) {
            let _ = write!(answer.message, "; {} lost its connection and may come back", shown(away.id.as_str()));
        }
        if let Some(left) = self.left.as_ref().filter(|left| left.id.as_str().as_bytes() == &key[..]) {
            let _ = write!(answer.message, "; {}", left.shown());
        }
        answer
    }

    /// How many take new calls.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }
}

/// Those of `ones` that are not ejected; all where there is nobody else: one that fails is better than none.
fn well(ones: &[Arc<Instance>]) -> Ready<Instance> {
    let well: Vec<_> = ones.iter().filter(|one| !one.facts().ejection.is_on()).cloned().collect();
    if well.is_empty() { ones.into() } else { well.into() }
}

/// Who claims each key, and the keys that several claim.
fn claimed(ready: &[Arc<Instance>]) -> (HashMap<Bytes, Claim>, Vec<Claimants>) {
    let mut several: Vec<Claimants> = Vec::new();
    let mut by_key = HashMap::with_capacity(ready.len());
    for instance in ready {
        for key in &instance.keys {
            let claim = by_key.entry(key.clone()).or_insert_with(|| Claim::One(instance.clone()));
            match claim {
                Claim::One(first) if Arc::ptr_eq(first, instance) => {}
                Claim::One(first) => {
                    several.push((key.clone(), vec![first.clone(), instance.clone()]));
                    *claim = Claim::Several(several.len() - 1);
                }
                Claim::Several(place) => {
                    if let Some((_, claimants)) = several.get_mut(*place) {
                        claimants.push(instance.clone());
                    }
                }
            }
        }
    }
    (by_key, several)
}

/// The balancers of one service, kept from one snapshot to the next.
#[derive(Debug)]
pub(super) struct Balancers {
    /// What the routes ask for.
    wanted: Vec<LoadBalancing>,
    /// What was set instead, while the gateway runs.
    instead: Option<LoadBalancing>,
    kept: HashMap<LoadBalancing, Kept>,
    dice: Dice,
}

#[derive(Debug)]
struct Kept {
    balancing: LoadBalancing,
    all: Box<dyn Balancer<Instance>>,
    /// Of keys that several claim.
    by_key: HashMap<Bytes, Box<dyn Balancer<Instance>>>,
    dice: Dice,
}

impl Balancers {
    /// For these; `seed` is where all their chance begins.
    pub(super) fn new(wanted: Vec<LoadBalancing>, seed: u64) -> Self {
        Self { wanted, instead: None, kept: HashMap::new(), dice: Dice::new(seed) }
    }

    /// Uses this one, whatever the routes ask for.
    pub(super) fn set(&mut self, balancing: LoadBalancing) {
        self.instead = Some(balancing);
        self.kept.retain(|kept, _| *kept == balancing);
    }

    /// Others that balance alike.
    pub(super) fn again(&mut self) -> Self {
        Self { instead: self.instead, ..Self::new(self.wanted.clone(), self.dice.throw()) }
    }

    fn in_use(&self) -> Vec<LoadBalancing> {
        self.instead.map_or_else(|| self.wanted.clone(), |instead| vec![instead])
    }

    fn kept(&mut self, balancing: LoadBalancing) -> &mut Kept {
        self.kept.entry(balancing).or_insert_with(|| Kept {
            balancing,
            all: balancer::maker(balancing, self.dice.throw()),
            by_key: HashMap::new(),
            dice: Dice::new(self.dice.throw()),
        })
    }
}

impl Kept {
    fn pickers(&mut self, all: &Ready<Instance>, several: &[Claimants]) -> Pickers {
        let mut before = std::mem::take(&mut self.by_key);
        let picker = |(key, claimants): &Claimants| {
            let new = || balancer::maker(self.balancing, self.dice.throw());
            let mut balancer = before.remove(key).unwrap_or_else(new);
            let picker = balancer.picker(&well(claimants));
            self.by_key.insert(key.clone(), balancer);
            picker
        };
        Pickers { all: self.all.picker(all), several: several.iter().map(picker).collect() }
    }
}

/// Where the pickers of a balancing stand.
fn place(balancing: LoadBalancing) -> usize {
    match balancing {
        LoadBalancing::RoundRobin => 0,
        LoadBalancing::WeightedRoundRobin => 1,
        LoadBalancing::LeastRequest => 2,
        LoadBalancing::PeakEwma => 3,
        LoadBalancing::ConsistentHash => 4,
        LoadBalancing::Random => 5,
    }
}

const BALANCINGS: usize = 6;
