//! What a gateway holds at one moment, counted where it comes and goes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What a gateway holds now: for leak checks and for a look from outside. The numbers are of one moment each, not all of
/// the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayStats {
    /// Connections of clients and of instances to the gateway's own listener.
    pub connections: usize,
    /// Calls that have come and not ended.
    pub calls: usize,
    /// Tunnels, also those that only finish what they carry.
    pub tunnels: usize,
    /// Instances that take new calls.
    pub instances: usize,
    /// Bytes of requests that wait in the tunnels for credit or for their turn.
    pub queued_bytes: usize,
}

/// The counters behind [`GatewayStats`], and whether the gateway is about to end.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    connections: AtomicUsize,
    calls: AtomicUsize,
    stopping: AtomicBool,
}

impl Counts {
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn connection_began(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_ended(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Each call that begins must end with [`call_ended`](Self::call_ended), from a `Drop`.
    pub(super) fn call_began(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn call_ended(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::Relaxed);
    }
}
