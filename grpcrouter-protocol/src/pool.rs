//! Memory that calls share. The one place of the core that more than one tunnel may touch: a counter, and no lock. It
//! decides how large windows become, never what is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the windows of several tunnels may have beyond their first size, all together. Clones share it.
///
/// A gateway gives one to all of its tunnels. Nobody gets more than is left for the others, so no tunnel can take all.
#[derive(Debug, Clone)]
pub struct WindowPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: u64,
    used: AtomicU64,
}

impl WindowPool {
    /// A pool of so many charged bytes.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Pool { limit, used: AtomicU64::new(0) }))
    }

    /// How many charged bytes are taken.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes `wanted` for one that holds `held` already. False if there is not that much, or if it would then hold more
    /// than is left.
    pub(crate) fn take(&self, held: u64, wanted: u64) -> bool {
        let taken = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let left = self.0.limit.saturating_sub(used);
            (held.saturating_add(wanted) <= left).then_some(used + wanted)
        });
        taken.is_ok()
    }

    /// Takes what is held anyway.
    fn charge(&self, bytes: u64) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What the grown window of a call that is over still has of the pool, since its consumer has not taken all that came.
/// Drop it when that is taken or dropped; the last clone gives it back.
#[derive(Debug, Clone)]
pub struct WindowLease(Arc<Leased>);

#[derive(Debug)]
struct Leased {
    bytes: u64,
    pools: [WindowPool; 2],
}

impl WindowLease {
    /// Takes so much of each pool, whatever is left: it is held already.
    pub(crate) fn new(bytes: u64, pools: [WindowPool; 2]) -> Self {
        pools.iter().for_each(|pool| pool.charge(bytes));
        Self(Arc::new(Leased { bytes, pools }))
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.pools.iter().for_each(|pool| pool.give_back(self.bytes));
    }
}

impl PartialEq for WindowLease {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for WindowLease {}
