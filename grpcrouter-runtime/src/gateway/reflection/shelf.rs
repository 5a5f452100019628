//! Who offers which descriptors, and those that have come. What stands here for long is bounded in number and bytes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Weak},
};

use tracing::{info, warn};

use super::{
    DescriptorConflict,
    catalog::{Catalog, Offer, Own},
};
use crate::{
    descriptors::{Hash, Set},
    gateway::registry::Instance,
};

pub(super) struct Shelf {
    /// Those that offer any.
    pub(super) instances: Vec<Arc<Instance>>,
    sets: HashMap<Hash, Kept>,
    /// Bytes of all sets.
    bytes: usize,
    /// What cannot be used, so that nobody asks for it again.
    refused: HashSet<Hash>,
    turns: HashMap<Hash, Weak<Turn>>,
    catalog: Arc<Catalog>,
    /// What the catalog was made of: each set that is offered, with the number of healthy instances and of all.
    made_of: Vec<(Hash, usize, usize)>,
}

struct Kept {
    set: Arc<Set>,
    bytes: usize,
}

/// Held by the one that asks for a hash.
pub(super) type Turn = tokio::sync::Mutex<()>;

impl Shelf {
    pub(super) fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            instances: Vec::new(),
            sets: HashMap::new(),
            bytes: 0,
            refused: HashSet::new(),
            turns: HashMap::new(),
            catalog,
            made_of: Vec::new(),
        }
    }

    /// What to hold while asking for `hash`; `None` if nobody has to.
    pub(super) fn turn(&mut self, hash: Hash) -> Option<Arc<Turn>> {
        if self.sets.contains_key(&hash) || self.refused.contains(&hash) {
            return None;
        }
        if let Some(turn) = self.turns.get(&hash).and_then(Weak::upgrade) {
            return Some(turn);
        }
        self.turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        self.turns.insert(hash, Arc::downgrade(&turn));
        Some(turn)
    }

    /// # Errors
    /// There is no room, though all that nobody offers any more has gone.
    pub(super) fn keep(&mut self, hash: Hash, set: Set, bytes: usize) -> Result<(), &'static str> {
        if self.sets.len() >= MAX_SETS || self.bytes + bytes > MAX_BYTES {
            let offered: HashSet<Hash> =
                self.instances.iter().flat_map(|instance| instance.descriptors.iter().copied()).collect();
            self.sets.retain(|hash, _| offered.contains(hash));
            self.bytes = self.sets.values().map(|kept| kept.bytes).sum();
        }
        if self.sets.len() >= MAX_SETS || self.bytes + bytes > MAX_BYTES {
            return Err("the descriptors of all instances together are too many: 256 sets or 64 MiB are kept");
        }
        self.bytes += bytes;
        self.sets.insert(hash, Kept { set: Arc::new(set), bytes });
        Ok(())
    }

    /// Nobody shall be asked for `hash` again.
    pub(super) fn refuse(&mut self, hash: Hash) {
        if self.refused.len() >= MAX_REFUSED {
            self.refused.clear();
        }
        self.refused.insert(hash);
    }

    /// Of what is offered now.
    pub(super) fn catalog(&mut self, own: &Own) -> Arc<Catalog> {
        let mut votes: BTreeMap<Hash, (usize, Vec<&Instance>)> = BTreeMap::new();
        for instance in &self.instances {
            let healthy = usize::from(instance.is_healthy());
            for hash in instance.descriptors.iter().filter(|hash| self.sets.contains_key(hash)) {
                let (count, who) = votes.entry(*hash).or_default();
                *count += healthy;
                who.push(instance);
            }
        }
        let made_of: Vec<_> = votes.iter().map(|(hash, (healthy, who))| (*hash, *healthy, who.len())).collect();
        if made_of == self.made_of {
            return self.catalog.clone();
        }
        let offers: Vec<Offer> = votes
            .into_iter()
            .filter_map(|(hash, (healthy, who))| {
                let mut who: Vec<String> = who.iter().map(|instance| instance.id.as_str().to_owned()).collect();
                who.sort_unstable();
                who.dedup();
                Some(Offer { set: self.sets.get(&hash)?.set.clone(), healthy, who })
            })
            .collect();
        let catalog = Arc::new(Catalog::new(own, &offers));
        report(&self.catalog.conflicts, &catalog.conflicts);
        (self.catalog, self.made_of) = (catalog.clone(), made_of);
        catalog
    }
}

/// One line for each file whose versions are others than before.
fn report(before: &[DescriptorConflict], now: &[DescriptorConflict]) {
    let hashes = |conflict: &DescriptorConflict| -> Vec<String> {
        conflict.versions.iter().map(|version| version.hash.clone()).collect()
    };
    let was = |conflict: &DescriptorConflict| before.iter().find(|other| other.file == conflict.file).map(hashes);
    for conflict in now.iter().filter(|conflict| was(conflict) != Some(hashes(conflict))).take(MAX_LINES) {
        let told = |(index, version): (usize, &super::DescriptorVersion)| {
            let mut who: Vec<&str> = version.instances.iter().take(MAX_TOLD).map(String::as_str).collect();
            if version.instances.len() > MAX_TOLD {
                who.push("…");
            }
            if version.is_own {
                who.insert(0, "the gateway's own code");
            }
            let served = if index == 0 { "served" } else { "not served" };
            format!("{} ({served}, {} healthy: {})", version.hash, version.healthy, who.join(", "))
        };
        let versions: Vec<String> = conflict.versions.iter().enumerate().map(told).collect();
        warn!(
            file = conflict.file,
            versions = versions.join("; "),
            "several versions of one proto file: reflection serves the healthy majority's"
        );
    }
    for agreed in before.iter().filter(|conflict| !now.iter().any(|other| other.file == conflict.file)).take(MAX_LINES)
    {
        info!(file = agreed.file, "one version of this proto file is left");
    }
}

/// Sets that are kept, and the bytes of them all.
const MAX_SETS: usize = 256;
const MAX_BYTES: usize = 64 << 20;

/// Hashes that are remembered as of no use; forgotten all at once when there are more.
const MAX_REFUSED: usize = 4_096;

/// Instances that a line names, and lines that one change writes.
const MAX_TOLD: usize = 8;
const MAX_LINES: usize = 16;
