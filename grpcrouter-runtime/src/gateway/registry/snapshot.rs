//! The instances of one service at one moment, with a picker ready for each question that a call can ask.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use grpcrouter_protocol::InstanceId;
use tokio::time::Instant;

use super::Instance;
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
    /// Of these, without those that are ejected; by [`place`].
    pickers: [Option<Pickers>; BALANCINGS],
    /// Every balancing that a route asks for is this one instead.
    instead: Option<LoadBalancing>,
    left: Option<Left>,
}

/// The pickers of one balancing.
#[derive(Debug)]
struct Pickers {
    all: Arc<dyn Picker<Instance>>,
    /// By instance id and by declared routing key. Empty where keys are hashed.
    by_key: HashMap<Bytes, Claim>,
}

/// Who claims one routing key.
#[derive(Debug)]
enum Claim {
    One(Arc<Instance>),
    Several(Arc<dyn Picker<Instance>>),
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
        let well = |ones: &[Arc<Instance>]| -> Ready<Instance> {
            let well: Vec<_> = ones.iter().filter(|one| !one.facts().ejection.is_on()).cloned().collect();
            // Where there is nobody else, one that is ejected is better than none.
            if well.is_empty() { ones.into() } else { well.into() }
        };
        let all = well(&ready);
        let mut pickers: [Option<Pickers>; BALANCINGS] = Default::default();
        let mut claims: Option<HashMap<Bytes, Vec<Arc<Instance>>>> = None;
        for balancing in balancers.in_use() {
            let claims = match balancing {
                LoadBalancing::ConsistentHash => &HashMap::new(),
                _ => &*claims.get_or_insert_with(|| claimed(&ready)),
            };
            let made = balancers.kept(balancing);
            let by_key = made.by_key(claims, &well);
            if let Some(place) = pickers.get_mut(place(balancing)) {
                *place = Some(Pickers { all: made.all.picker(&all), by_key });
            }
            if balancing == LoadBalancing::PeakEwma {
                ready.iter().for_each(|one| one.is_measured.store(true, Ordering::Relaxed));
            }
        }
        Self { pickers, ready, instead: balancers.instead, left }
    }

    /// One instance for a call with this key, among those that suit; `balancing` is what its route asks for.
    pub(in crate::gateway) fn pick(
        &self,
        balancing: LoadBalancing,
        key: &RoutingKey,
        suits: &dyn Fn(&Instance) -> bool,
    ) -> Option<Arc<Instance>> {
        let balancing = self.instead.unwrap_or(balancing);
        let pickers = self.pickers.get(place(balancing))?.as_ref()?;
        let picker = match key {
            RoutingKey::Value(key) if balancing != LoadBalancing::ConsistentHash => {
                match pickers.by_key.get(&key[..])? {
                    Claim::One(one) => return suits(one).then(|| one.clone()),
                    Claim::Several(picker) => picker,
                }
            }
            _ => &pickers.all,
        };
        let eager = |one: &Instance| one.is_eager() && suits(one);
        picker.pick(key, &eager).or_else(|| picker.pick(key, suits))
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

    /// How many take new calls.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }
}

fn claimed(ready: &[Arc<Instance>]) -> HashMap<Bytes, Vec<Arc<Instance>>> {
    let mut claims: HashMap<_, Vec<_>> = HashMap::with_capacity(ready.len());
    for instance in ready {
        for key in &instance.keys {
            claims.entry(key.clone()).or_default().push(instance.clone());
        }
    }
    claims
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
    fn by_key(
        &mut self,
        claims: &HashMap<Bytes, Vec<Arc<Instance>>>,
        well: &dyn Fn(&[Arc<Instance>]) -> Ready<Instance>,
    ) -> HashMap<Bytes, Claim> {
        self.by_key.retain(|key, _| claims.get(key).is_some_and(|claimants| claimants.len() > 1));
        let claim = |(key, claimants): (&Bytes, &Vec<Arc<Instance>>)| {
            let claim = match &claimants[..] {
                [one] => Claim::One(one.clone()),
                several => {
                    let new = || balancer::maker(self.balancing, self.dice.throw());
                    let balancer = self.by_key.entry(key.clone()).or_insert_with(new);
                    Claim::Several(balancer.picker(&well(several)))
                }
            };
            (key.clone(), claim)
        };
        claims.iter().map(claim).collect()
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
