//! What a gateway counts for whoever watches it. All series are made at `build()`, so that a call looks nothing up.

use std::sync::{Mutex, PoisonError};

use grpcrouter_protocol::Side;
use metrics::{Counter, Gauge, counter, gauge};
use tonic::Code;

use super::{
    grown::Grown,
    registry::Registry,
    route::{MethodRoute, RouteId, Routes},
};
use crate::{
    codegen::Kind,
    metrics::{MethodMeter, TunnelMeter, describe, in_flight},
};

/// The handles of one gateway.
#[derive(Debug)]
pub(crate) struct Meters {
    /// By [`RouteId`].
    methods: Grown<MethodMeter>,
    unknown: MethodMeter,
    in_flight: Gauge,
    /// Of all its tunnels.
    pub(super) tunnel: TunnelMeter,
    connections: Gauge,
    instances: Gauge,
    /// What `instances` shows. Held while it changes: of two changes the later one is the one that stays.
    ready: Mutex<usize>,
    accepted: Counter,
    pub(super) rejected: Counter,
    /// A tunnel went on over another stream.
    pub(super) resumed: Counter,
    /// No Hello came, or none that can be read.
    pub(super) unreadable: Counter,
    sent: Counter,
    refused: Counter,
    retried: Counter,
    not_retried: Counter,
}

impl Meters {
    pub(super) fn new(routes: &Routes) -> Self {
        describe(Side::Gateway);
        Self {
            methods: Grown::new(routes.methods().map(meter).collect(), routes.room()),
            unknown: MethodMeter::unknown(),
            in_flight: in_flight(Side::Gateway),
            tunnel: TunnelMeter::new(Side::Gateway),
            connections: gauge!("grpcrouter_connections"),
            instances: gauge!("grpcrouter_instances"),
            ready: Mutex::new(0),
            accepted: counter!("grpcrouter_registrations_total", "result" => "accepted"),
            rejected: counter!("grpcrouter_registrations_total", "result" => "rejected"),
            resumed: counter!("grpcrouter_registrations_total", "result" => "resumed"),
            unreadable: counter!("grpcrouter_registrations_total", "result" => "unreadable"),
            sent: counter!("grpcrouter_calls_sent_total"),
            refused: counter!("grpcrouter_calls_refused_total"),
            retried: counter!("grpcrouter_retries_total", "result" => "sent"),
            not_retried: counter!("grpcrouter_retries_total", "result" => "no_budget"),
        }
    }

    /// One more method, which has the next id.
    pub(super) fn add(&self, method: &MethodRoute) {
        self.methods.push(meter(method));
    }

    pub(super) fn began(&self, route: RouteId) {
        self.in_flight.increment(1.0);
        self.method(Some(route)).started();
    }

    pub(super) fn ended(&self, route: RouteId, code: Code) {
        self.in_flight.decrement(1.0);
        self.method(Some(route)).handled(code);
    }

    /// A call that ended before it began.
    pub(super) fn refused(&self, route: Option<RouteId>, code: Code) {
        let method = self.method(route);
        method.started();
        method.handled(code);
    }

    /// A call went to an instance; once more for each that it goes to.
    pub(super) fn sent(&self) {
        self.sent.increment(1);
    }

    /// An instance did not take a call: it was full, drained, or went before it began; another may.
    pub(super) fn not_taken(&self) {
        self.refused.increment(1);
    }

    /// Another instance was there for a call that came back; whether its service had budget for that.
    pub(super) fn retried(&self, paid: bool) {
        if paid { &self.retried } else { &self.not_retried }.increment(1);
    }

    pub(super) fn connection_began(&self) {
        self.connections.increment(1.0);
    }

    pub(super) fn connection_ended(&self) {
        self.connections.decrement(1.0);
    }

    /// An instance registered; each that does must also [go](Self::went).
    pub(super) fn came(&self, registry: &Registry) {
        self.accepted.increment(1);
        self.tunnel.came();
        self.instances_changed(registry);
    }

    pub(super) fn went(&self, registry: &Registry) {
        self.tunnel.went();
        self.instances_changed(registry);
    }

    /// Who takes new calls may have changed.
    pub(super) fn instances_changed(&self, registry: &Registry) {
        let mut shown = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = registry.ready_instances();
        // By steps: several gateways of one process add up.
        self.instances.increment(ready as f64 - *shown as f64);
        *shown = ready;
    }

    fn method(&self, route: Option<RouteId>) -> &MethodMeter {
        route.and_then(|route| self.methods.get(route.index())).unwrap_or(&self.unknown)
    }
}

fn meter(method: &MethodRoute) -> MethodMeter {
    let (service, name) = method.names();
    let kind = match method.kind() {
        // Any kind.
        _ if method.is_any() => "unknown",
        Kind::Unary => "unary",
        Kind::ClientStreaming => "client_stream",
        Kind::ServerStreaming => "server_stream",
        Kind::Bidi => "bidi_stream",
    };
    MethodMeter::new(kind, service, name)
}
