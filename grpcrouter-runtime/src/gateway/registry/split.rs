//! How the calls of one service are split between versions of its software. Which version a call belongs to is told from
//! a number alone: the next one, or the hash of its routing key, so that a key stays with its version.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Instance,
    snapshot::{Balancers, Snapshot},
};
use crate::{
    codegen::LoadBalancing,
    gateway::{balancer, strategy::RoutingKey},
};

/// What was set: each version with its share and its balancers, kept from one snapshot to the next.
#[derive(Debug)]
pub(super) struct Split {
    /// As it was set.
    shares: Vec<(String, u32)>,
    parts: Vec<Part>,
    /// Calls so far.
    next: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Part {
    version: String,
    weight: u32,
    balancers: Balancers,
}

impl Split {
    /// Between these versions. Each balances like `balancers`.
    pub(super) fn new(shares: &[(String, u32)], balancers: &mut Balancers) -> Self {
        let part = |(version, weight): &(String, u32)| Part {
            version: version.clone(),
            weight: *weight,
            balancers: balancers.again(),
        };
        Self { shares: shares.to_vec(), parts: shares.iter().map(part).collect(), next: Arc::default() }
    }

    /// As it was set.
    pub(super) fn shares(&self) -> &[(String, u32)] {
        &self.shares
    }

    /// Every version balances like this from now on.
    pub(super) fn balance(&mut self, balancing: LoadBalancing) {
        self.parts.iter_mut().for_each(|part| part.balancers.set(balancing));
    }

    /// The snapshots of the versions that somebody has.
    pub(super) fn divide(&mut self, ready: &[Arc<Instance>]) -> Divided {
        let parts = self.parts.iter_mut().filter_map(|part| {
            let ready: Vec<_> = ready.iter().filter(|one| one.software_version == part.version).cloned().collect();
            let weight = part.weight;
            (!ready.is_empty()).then(|| (weight, part.version.clone(), Snapshot::new(ready, &mut part.balancers, None)))
        });
        Divided { parts: parts.collect(), next: self.next.clone() }
    }
}

/// A split as calls look at it.
#[derive(Debug)]
pub(super) struct Divided {
    /// With their shares. One with no share gets the calls that ask for it.
    parts: Vec<(u32, String, Snapshot)>,
    next: Arc<AtomicU64>,
}

impl Divided {
    /// As [`Snapshot::pick`]: of the call's version, else of another one.
    pub(super) fn pick(
        &self,
        balancing: LoadBalancing,
        key: &RoutingKey,
        suits: &dyn Fn(&Instance) -> bool,
    ) -> Option<Arc<Instance>> {
        let point = match key {
            // As CONSISTENT_HASH has it: the same in every gateway and release.
            RoutingKey::Value(key) => balancer::hash(key),
            RoutingKey::Absent => self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN),
        };
        let meant = share(point, self.parts.iter().map(|(weight, ..)| *weight));
        let (before, from) = self.parts.split_at_checked(meant).unwrap_or_default();
        let parts = from.iter().chain(before).filter(|(weight, ..)| *weight > 0);
        parts.map(|(_, _, part)| part).find_map(|part| part.pick(balancing, key, suits))
    }

    /// Those of one version.
    pub(super) fn of(&self, version: &str) -> Option<&Snapshot> {
        self.parts.iter().find(|(_, name, _)| name == version).map(|(.., part)| part)
    }

    /// Nobody has any of the versions with a share.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.iter().all(|(weight, ..)| *weight == 0)
    }
}

/// The place of the share that `point`, of all the numbers there are, falls into.
fn share(point: u64, weights: impl Iterator<Item = u32> + Clone) -> usize {
    let all: u64 = weights.clone().map(u64::from).sum();
    let mut left = (u128::from(point) * u128::from(all)) >> 64;
    for (place, weight) in weights.enumerate() {
        match left.checked_sub(weight.into()) {
            Some(rest) => left = rest,
            None => return place,
        }
    }
    0
}

/// Two to the 64th over the golden ratio: its multiples spread more evenly than chance, from the first on.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may panic")]
    use super::*;

    fn shares(calls: u64, weights: &[u32]) -> Vec<u64> {
        let mut shares = vec![0; weights.len()];
        for call in 0..calls {
            shares[share(call.wrapping_mul(GOLDEN), weights.iter().copied())] += 1;
        }
        shares
    }

    #[test]
    fn ten_thousand_calls_are_shared_within_one_in_a_thousand() {
        for weights in [&[90, 10][..], &[1, 1], &[1, 2, 3, 4], &[999, 1], &[u32::MAX, u32::MAX], &[7]] {
            let all: u64 = weights.iter().copied().map(u64::from).sum();
            for (got, weight) in shares(10_000, weights).into_iter().zip(weights) {
                let meant = 10_000 * u64::from(*weight) / all;
                assert!(got.abs_diff(meant) <= 10, "{weights:?}: {got} instead of {meant}");
            }
        }
    }

    #[test]
    fn a_hundred_calls_are_shared_nearly_as_well() {
        assert!(shares(100, &[90, 10])[1].abs_diff(10) <= 2);
    }

    #[test]
    fn a_key_has_the_same_version_in_every_gateway_and_release() {
        let version = |key: &[u8]| ["v1", "v2", "v3"][share(balancer::hash(key), [50, 30, 20].into_iter())];
        let keys = ["acme", "example", "tenant-1", "tenant-2", "tenant-3", "tenant-4", "tenant-5", "tenant-6"];

        // Never to be changed: gateways of two releases must agree.
        assert_eq!(keys.map(|key| version(key.as_bytes())), ["v1", "v1", "v3", "v3", "v1", "v2", "v1", "v1"]);
    }

    #[test]
    fn each_number_falls_into_a_share() {
        assert_eq!([0, u64::MAX / 2, u64::MAX].map(|point| share(point, [1, 1, 2].into_iter())), [0, 1, 2]);
        assert_eq!(share(u64::MAX, [].into_iter()), 0);
    }
}
