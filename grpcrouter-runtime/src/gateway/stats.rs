//! What a gateway holds at one moment, counted where it comes and goes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::health::Whole;

/// What a gateway holds now: for leak checks and for a look from outside. The numbers are of one moment each, not all of
/// the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayStats {
    /// Connections of clients and of instances to the gateway's own listener.
    pub connections: usize,
    /// Calls that have come and not ended.
    pub calls: usize,
    /// Those of the calls that wait for an instance: as the option `wait_for_instance` lets them, or for one that has just
    /// lost its connection.
    pub parked_calls: usize,
    /// Tunnels, also those that only finish what they carry, and those whose instance is waited for.
    pub tunnels: usize,
    /// Instances that take new calls.
    pub instances: usize,
    /// Bytes that wait here for somebody: of requests in the tunnels and before them, for credit or for their turn; of
    /// responses, for room in the client's HTTP/2 stream. What the HTTP/2 library holds itself comes on top, at most
    /// 64 KiB of each response, and so does what a caller inside of this process has not read yet.
    pub queued_bytes: usize,
}

/// When a client's connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calling {
    /// Before the gateway was told to stop.
    Early,
    Late,
}

/// The counters behind [`GatewayStats`], and whether the gateway is about to end.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    connections: AtomicUsize,
    /// Those of them that calls may come on: early ones, late ones.
    calling: [AtomicUsize; 2],
    calls: AtomicUsize,
    queued: AtomicUsize,
    /// Listeners that serve it.
    serves: AtomicUsize,
    /// Listeners that stop it now.
    stops: AtomicUsize,
    stopping: AtomicBool,
    closed: AtomicBool,
    /// The same, for those who want to be told.
    whole: watch::Sender<Whole>,
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

    /// Connections of clients, or of whoever has not said yet what it is.
    pub(super) fn calling(&self, which: Calling) -> usize {
        self.calling_of(which).load(Ordering::Relaxed)
    }

    /// One more such connection; each must also be [gone](Self::calling_ended).
    pub(super) fn calling_began(&self, which: Calling) {
        self.calling_of(which).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn calling_ended(&self, which: Calling) {
        self.calling_of(which).fetch_sub(1, Ordering::Relaxed);
    }

    fn calling_of(&self, which: Calling) -> &AtomicUsize {
        let [early, late] = &self.calling;
        match which {
            Calling::Early => early,
            Calling::Late => late,
        }
    }

    /// Each call that begins must end with [`call_ended`](Self::call_ended), from a `Drop`.
    pub(super) fn call_began(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn call_ended(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes that wait outside of tunnels.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// So many bytes of one call wait outside of its tunnel, where it were `before`.
    pub(super) fn queued(&self, before: usize, now: usize) {
        if now >= before {
            self.queued.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.queued.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::Relaxed);
        self.closed.store(false, Ordering::Relaxed);
        self.whole.send_replace(if stopping { Whole::NotServing } else { Whole::Serving });
    }

    /// One more listener serves it; each that does must also [end](Self::serve_ended).
    pub(super) fn serve_began(&self) {
        self.serves.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether that was the last one.
    pub(super) fn serve_ended(&self) -> bool {
        self.serves.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// One of its listeners begins to stop the gateway; each that does must also [end](Self::stop_ended).
    pub(super) fn stop_began(&self) {
        if self.stops.fetch_add(1, Ordering::Relaxed) == 0 {
            self.set_stopping(true);
        }
    }

    /// The gateway may be served again once all of them have ended.
    pub(super) fn stop_ended(&self) {
        if self.stops.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.set_stopping(false);
        }
    }

    /// Stopping, and for so long that nobody who was told so still sends calls.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.whole.send_replace(Whole::Over);
    }

    /// How the gateway as a whole stands, from now on.
    pub(super) fn whole(&self) -> watch::Receiver<Whole> {
        self.whole.subscribe()
    }
}
