//! The health of a backend: set by its owner, told to its gateways and to who asks at its own port.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grpcrouter_protocol::Health;
use tokio::sync::watch;
use tonic_health::pb::health_server::HealthServer;

use crate::error::NoSuchService;
use crate::health::{Book, HealthService, Whole};

/// How a backend stands and how each of its services does; from [`Backend::health`](super::Backend::health). Clones are
/// the same health.
///
/// At the backend's own port `grpc.health.v1.Health` answers for each service by itself, and a gateway sends no new call
/// to a service that does not serve; the backend's others go on. Running calls finish.
///
/// ```no_run
/// # async fn works() -> bool { true }
/// # async fn example(backend: grpcrouter_runtime::Backend) -> Result<(), grpcrouter_runtime::NoSuchService> {
/// let health = backend.health();
/// health.set_serving("shop.Orders", false)?; // no new orders here
/// // … and for the whole backend:
/// health.set_serving("", works().await)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BackendHealth(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    whole: watch::Sender<Whole>,
    services: BTreeMap<Arc<str>, watch::Sender<bool>>,
    /// What gateways are told.
    said: watch::Sender<Said>,
}

/// What its owner and its own end make of the whole backend.
#[derive(Debug, Default)]
struct State {
    is_ill: bool,
    stops: bool,
}

/// What a gateway is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Rises with each change.
    pub(super) version: u64,
    /// Of the whole.
    pub(super) health: Health,
    /// Services that do not serve, by name.
    pub(super) not_serving: Vec<Arc<str>>,
}

impl Said {
    /// Whether `service` does not serve.
    pub(super) fn is_ill(&self, service: &str) -> bool {
        self.not_serving.iter().any(|name| &**name == service)
    }
}

impl BackendHealth {
    /// All serve.
    pub(super) fn new(services: &[Arc<str>]) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            whole: watch::Sender::new(Whole::Serving),
            services: services.iter().map(|name| (name.clone(), watch::Sender::new(true))).collect(),
            said: watch::Sender::new(Said { version: 0, health: Health::Serving, not_serving: Vec::new() }),
        }))
    }

    /// Says whether `service` serves: one of the backend's, by its full name, or "" for the backend as a whole. Gateways
    /// and watchers are told at once. All serve at first.
    ///
    /// # Errors
    /// The backend has no such service.
    pub fn set_serving(&self, service: &str, serving: bool) -> Result<(), NoSuchService> {
        let inner = &*self.0;
        // Held until all are told, so that all are told the same last.
        let mut state = self.state();
        if service.is_empty() {
            state.is_ill = !serving;
            self.tell_whole(&state);
        } else {
            let Some(known) = inner.services.get(service) else {
                let known = inner.services.keys().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
                return Err(NoSuchService { service: service.to_owned(), known });
            };
            known.send_replace(serving);
        }
        let health = if state.is_ill { Health::NotServing } else { Health::Serving };
        let ill = inner.services.iter().filter(|(_, serving)| !*serving.borrow());
        let not_serving: Vec<_> = ill.map(|(name, _)| name.clone()).collect();
        inner.said.send_if_modified(|said| {
            let changes = (said.health, &said.not_serving) != (health, &not_serving);
            *said = Said { version: said.version + u64::from(changes), health, not_serving };
            changes
        });
        Ok(())
    }

    /// The backend begins to stop, or to serve again: who watches at its own port is not to wait any more. Gateways are
    /// told by their tunnels.
    pub(super) fn stops(&self, stops: bool) {
        let mut state = self.state();
        state.stops = stops;
        self.tell_whole(&state);
    }

    /// What gateways are to know, now and from now on.
    pub(super) fn said(&self) -> watch::Receiver<Said> {
        self.0.said.subscribe()
    }

    /// Answers at the backend's own port.
    pub(super) fn server(&self) -> HealthServer<HealthService> {
        let services = self.0.services.iter().map(|(name, serving)| (name.to_string(), serving.subscribe()));
        let services = watch::Sender::new(services.collect()).subscribe();
        HealthService::server(Book { whole: self.0.whole.subscribe(), services }, MAX_WATCHES)
    }

    fn tell_whole(&self, state: &State) {
        let whole = match state {
            State { stops: true, .. } => Whole::Over,
            State { is_ill: true, .. } => Whole::NotServing,
            _ => Whole::Serving,
        };
        self.0.whole.send_replace(whole);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BackendHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.0.services.iter().map(|(name, serving)| (name, *serving.borrow()));
        let services: BTreeMap<_, _> = services.collect();
        f.debug_struct("BackendHealth").field("whole", &*self.0.whole.borrow()).field("services", &services).finish()
    }
}

/// Watch calls at the backend's own port: as many as a gateway takes.
const MAX_WATCHES: usize = 10_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn gateways_are_told_of_the_whole_and_of_each_service_and_only_when_it_changes() {
        let health = BackendHealth::new(&["a.A".into(), "b.B".into()]);
        let mut said = Vec::new();

        for (service, serving) in
            [("a.A", true), ("a.A", false), ("", false), ("a.A", true), ("b.B", false), ("", true), ("b.B", true)]
        {
            health.set_serving(service, serving).unwrap();
            let Said { version, health, not_serving } = health.said().borrow().clone();
            said.push((version, health == Health::Serving, not_serving.join(" ")));
        }

        let told = |version, serving, ill: &str| (version, serving, ill.to_owned());
        let expected = [
            told(0, true, ""),
            told(1, true, "a.A"),
            told(2, false, "a.A"),
            told(3, false, ""),
            told(4, false, "b.B"),
            told(5, true, "b.B"),
            told(6, true, ""),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_backend_that_stops_is_over_whatever_its_owner_says_and_then_as_it_was() {
        let health = BackendHealth::new(&["a.A".into()]);
        health.stops(true);
        health.set_serving("", false).unwrap();
        assert_eq!(*health.0.whole.borrow(), Whole::Over);

        health.stops(false);
        assert_eq!(*health.0.whole.borrow(), Whole::NotServing);
        // Its tunnels drain; that is not told twice.
        assert_eq!(health.said().borrow().version, 1);
    }

    #[test]
    fn a_service_that_is_not_there_has_no_health() {
        let error = BackendHealth::new(&["a.A".into(), "b.B".into()]).set_serving("a.B", false).unwrap_err();

        assert_eq!(error.to_string(), "the backend has no service a.B; it has a.A, b.B");
    }
}
