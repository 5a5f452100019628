//! Who may connect: so many connections in all and so many from one address. Each that is let in holds a place until it
//! ends; each that is not is told of in the log, though not one line each.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use super::{GatewayCore, peer::network, stats::Calling};

/// The connections of one gateway by where they come from.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    places: Mutex<Places>,
    refused: Seldom,
    /// Connections that were ended for what they did.
    pub(super) ended: Seldom,
    /// Handshakes that failed over a certificate.
    pub(super) failed_tls: Seldom,
}

#[derive(Debug, Default)]
struct Places {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// Holds the place of one connection.
pub(super) struct Place {
    core: Arc<GatewayCore>,
    source: IpAddr,
    /// Calls may come on it: it is no instance's, as far as is known.
    calling: Option<Calling>,
}

impl Place {
    /// Lets a connection in if there is room.
    pub(super) fn take(core: &Arc<GatewayCore>, peer: SocketAddr) -> Option<Self> {
        let source = network(peer.ip());
        let limits = &core.limits;
        let (all, of_source) = {
            let mut places = core.arrivals.lock();
            let all = places.all;
            let of_source = places.by_source.get(&source).copied().unwrap_or(0);
            if all < limits.max_connections && of_source < limits.max_connections_per_address {
                places.all += 1;
                places.by_source.insert(source, of_source + 1);
                core.counts.connection_began();
                core.meters.connection_began();
                let calling = if core.counts.is_stopping() { Calling::Late } else { Calling::Early };
                core.counts.calling_began(calling);
                return Some(Self { core: core.clone(), source, calling: Some(calling) });
            }
            (all, of_source)
        };
        if let Some(unsaid) = core.arrivals.refused.once(Instant::now()) {
            if all >= limits.max_connections {
                warn!(%peer, limit = limits.max_connections, unsaid, "connection refused: there are too many; .max_connections(..) sets how many there may be");
            } else {
                let limit = limits.max_connections_per_address;
                warn!(%peer, limit, open = of_source, unsaid, "connection refused: too many from one address; if many come through one proxy or NAT, .max_connections_per_address(..) sets how many may");
            }
        }
        None
    }

    /// The connection is an instance's.
    pub(super) fn registers(&mut self) {
        if let Some(calling) = self.calling.take() {
            self.core.counts.calling_ended(calling);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registers();
        let mut places = self.core.arrivals.lock();
        places.all -= 1;
        if let Some(count) = places.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                places.by_source.remove(&self.source);
            }
        }
        drop(places);
        self.core.counts.connection_ended();
        self.core.meters.connection_ended();
    }
}

impl Arrivals {
    fn lock(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that may happen very often and is to be said now and then.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// Whether it may be said now, and if so how often it was not since it was said last.
    pub(super) fn once(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < SELDOM) {
            said.unsaid += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

/// A flood makes six lines a minute, and whoever looks sees at once that it goes on.
const SELDOM: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn what_happens_often_is_said_every_ten_seconds_with_how_often_it_was_not() {
        let (seldom, start) = (Seldom::default(), Instant::now());

        let said: Vec<_> = [0, 1, 9, 10, 11, 25].map(|at| seldom.once(start + Duration::from_secs(at))).into();

        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
