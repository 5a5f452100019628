//! What a backend counts, and what it says of each call when that ends, whichever way the call came.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use grpcrouter_protocol::{CallId, InstanceId, Side, Text, Time};
use metrics::{Counter, Gauge, counter};
use tonic::Code;
use tracing::debug;

use super::dispatch::Services;
use crate::{
    clock,
    error::ConnectError,
    metrics::{MethodMeter, TunnelMeter, code_name, describe, in_flight},
};

/// The handles of one backend.
#[derive(Debug)]
pub(super) struct Meters {
    instance: InstanceId,
    services: Arc<Services>,
    in_flight: Gauge,
    /// By path. tonic's services do not tell their methods: one is known once a call of it has succeeded, so that names
    /// from outside never become series.
    methods: RwLock<HashMap<String, Arc<MethodMeter>>>,
    unknown: Arc<MethodMeter>,
    pub(super) tunnel: TunnelMeter,
    pub(super) registered: Counter,
    pub(super) resumed: Counter,
    misconfigured: Counter,
    unreachable: Counter,
    untrusted: Counter,
    rejected: Counter,
    not_a_gateway: Counter,
    broken: Counter,
}

impl Meters {
    pub(super) fn new(instance: InstanceId, services: Arc<Services>) -> Self {
        describe(Side::Instance);
        let dials = |result: &'static str| counter!("grpcrouter_dials_total", "result" => result);
        Self {
            instance,
            services,
            in_flight: in_flight(Side::Instance),
            methods: RwLock::default(),
            unknown: Arc::new(MethodMeter::unknown()),
            tunnel: TunnelMeter::new(Side::Instance),
            registered: dials("registered"),
            resumed: dials("resumed"),
            misconfigured: dials("misconfigured"),
            unreachable: dials("unreachable"),
            untrusted: dials("untrusted"),
            rejected: dials("rejected"),
            not_a_gateway: dials("not_a_gateway"),
            broken: dials("broken"),
        }
    }

    /// A gateway was dialled in vain.
    pub(super) fn not_registered(&self, error: &ConnectError) {
        let counter = match error {
            ConnectError::Token(_) | ConnectError::File(_) => &self.misconfigured,
            ConnectError::Name { .. }
            | ConnectError::Dial { .. }
            | ConnectError::Proxy { .. }
            | ConnectError::InFront { .. }
            | ConnectError::Timeout { .. } => &self.unreachable,
            ConnectError::Tls { .. } => &self.untrusted,
            ConnectError::NotHttp2 { .. } | ConnectError::NotAGateway { .. } => &self.not_a_gateway,
            ConnectError::NoWelcome { .. } | ConnectError::BadWelcome { .. } => &self.broken,
            ConnectError::Rejected { .. } => &self.rejected,
        };
        counter.increment(1);
    }

    /// A call has come.
    pub(super) fn began(self: &Arc<Self>, path: Text) -> CallMeter {
        let known = self.methods.read().unwrap_or_else(PoisonError::into_inner).get(path.as_str()).cloned();
        if let Some(known) = &known {
            known.started();
        }
        self.in_flight.increment(1.0);
        CallMeter { meters: self.clone(), path, known, began: clock::now(), code: Code::Cancelled }
    }

    /// The meter of a call whose method was not known when it came.
    fn learn(&self, path: &Text, code: Code) -> Arc<MethodMeter> {
        // Only a method that is there succeeds; any other code can come from what stands before it.
        let names = path.as_str().strip_prefix('/').and_then(|path| path.split_once('/'));
        let Some((service, method)) = names.filter(|_| code == Code::Ok) else { return self.unknown.clone() };
        let mut methods = self.methods.write().unwrap_or_else(PoisonError::into_inner);
        if !methods.contains_key(path.as_str()) && methods.len() >= MAX_METHODS {
            return self.unknown.clone();
        }
        let new = || Arc::new(MethodMeter::new("unknown", service, method));
        methods.entry(path.as_str().to_owned()).or_insert_with(new).clone()
    }
}

/// One call, until it ends: with [`code`](Self::code), or cancelled.
#[derive(Debug)]
pub(super) struct CallMeter {
    meters: Arc<Meters>,
    path: Text,
    known: Option<Arc<MethodMeter>>,
    began: Time,
    code: Code,
}

impl CallMeter {
    /// The call is over; with no code if there was nobody to hear one.
    pub(super) fn ended(mut self, call: Option<CallId>, code: Option<u32>) {
        if let Some(code) = code {
            self.code = Code::from_i32(code.cast_signed());
        }
        debug!(
            call = call.map(display),
            instance = %self.meters.instance,
            method = self.meters.services.has(self.path.as_str()).then(|| self.path.as_str()),
            code = code_name(self.code),
            took_us = clock::now().since(self.began).as_micros(),
            "call ended"
        );
    }
}

impl Drop for CallMeter {
    fn drop(&mut self) {
        self.meters.in_flight.decrement(1.0);
        let method = match self.known.take() {
            Some(known) => known,
            None => {
                let method = self.meters.learn(&self.path, self.code);
                method.started();
                method
            }
        };
        method.handled(self.code);
    }
}

/// How many methods get series of their own: more than the services of one process have; a service that takes any name
/// and answers it would be without end.
const MAX_METHODS: usize = 1_000;
