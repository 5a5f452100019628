//! Services that nobody declared: each is routed alike from the day on which an instance first registers it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;

use super::{ANY, MethodRoute, RouteId, Routes, TargetId};
use crate::{
    codegen::{Kind, LoadBalancing},
    error::ConfigError,
    gateway::service_routes::{Options, ServiceRoutes, is_full_name},
};

/// What is known of them.
#[derive(Debug)]
pub(super) struct Learnt {
    options: Options,
    /// Calls look here. Nothing leaves it: a service without an instance is UNAVAILABLE and not unknown.
    by_service: ArcSwap<HashMap<Arc<str>, RouteId>>,
    turn: Mutex<()>,
}

/// Held while a service is learnt: one at a time.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    learnt: &'a Learnt,
    _lock: MutexGuard<'a, ()>,
}

/// Why a service is not learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotLearnt {
    #[error("it is no full name of a service, such as shop.Orders")]
    Name,
    #[error("the gateway keeps this name for itself")]
    Kept,
    #[error("this gateway has learnt {} services and takes no more; declare those that matter", super::MAX_LEARNT)]
    Full,
}

impl Learnt {
    /// # Errors
    /// Options that cannot be meant for a service of any name.
    pub(super) fn new(any: &ServiceRoutes) -> Result<Self, ConfigError> {
        let options = any.options().clone();
        if let Some(target) = options.target() {
            return Err(ConfigError::setting(
                "any_service",
                target,
                "every service is its own target: leave target(..) out, or declare the service with add_service",
            ));
        }
        // What would be wrong with any service is wrong now.
        MethodRoute::new(any.name(), &Arc::from(any.name()), ANY, Kind::Bidi, TargetId(0), &options)?;
        Ok(Self { options, by_service: ArcSwap::default(), turn: Mutex::default() })
    }

    pub(super) fn find(&self, service: &str) -> Option<RouteId> {
        self.by_service.load().get(service).copied()
    }

    /// The names of them all, in order.
    pub(super) fn services(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.by_service.load().keys().cloned().collect();
        names.sort_unstable();
        names
    }
}

impl Routes {
    /// Begins to learn; `None` if services that nobody declared are not served.
    pub(crate) fn learn(&self) -> Option<Turn<'_>> {
        let learnt = self.learnt.as_ref()?;
        Some(Turn { learnt, _lock: learnt.turn.lock().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Whether `service` is new and may be learnt: a path leads to it from [`publish`](Self::publish) on.
    ///
    /// # Errors
    /// It is new and may not.
    pub(crate) fn is_new(&self, service: &str, kept: impl Fn(&str) -> bool) -> Result<bool, NotLearnt> {
        if self.knows(service) || self.targets.iter().any(|target| **target == *service) {
            return Ok(false);
        }
        if !is_full_name(service) {
            return Err(NotLearnt::Name);
        }
        let is_ours = service.split_once('.').is_some_and(|(package, _)| package == OURS);
        if is_ours || kept(service) { Err(NotLearnt::Kept) } else { Ok(true) }
    }

    /// Makes the route of a service whose instances are `target`.
    ///
    /// # Errors
    /// There is no room.
    pub(crate) fn add_learnt(
        &self,
        turn: &Turn<'_>,
        service: &Arc<str>,
        target: TargetId,
    ) -> Result<RouteId, NotLearnt> {
        let route = MethodRoute::new(service, service, ANY, Kind::Bidi, target, &turn.learnt.options);
        // The options were fine for any service when the gateway was built.
        let id = route.ok().and_then(|route| self.methods.push(route)).ok_or(NotLearnt::Full)?;
        Ok(RouteId(id))
    }
}

impl Turn<'_> {
    /// How the calls of what is learnt are balanced.
    pub(crate) fn balancing(&self) -> LoadBalancing {
        self.learnt.options.load_balancing()
    }

    /// Calls find the service from now on.
    pub(crate) fn publish(&self, service: &Arc<str>, route: RouteId) {
        let mut by_service = HashMap::clone(&self.learnt.by_service.load());
        by_service.insert(service.clone(), route);
        self.learnt.by_service.store(Arc::new(by_service));
    }
}

/// The package of our own services.
const OURS: &str = "grpcrouter";
