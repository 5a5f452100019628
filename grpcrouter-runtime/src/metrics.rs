//! What is counted, through the `metrics` facade: each handle is made once, so that counting is one atomic addition and
//! nothing where no recorder is installed.

use grpcrouter_protocol::{Side, Totals};
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use tonic::Code;

/// Tells the recorder what the series of one end mean.
pub(crate) fn describe(side: Side) {
    let of_side = match side {
        Side::Gateway => OF_GATEWAY,
        Side::Instance => OF_BACKEND,
    };
    for (name, unit, what) in COUNTERS.iter().chain(of_side) {
        describe_counter!(*name, *unit, *what);
    }
    describe_gauge!("grpcrouter_calls_in_flight", Unit::Count, "Calls that have come and not ended.");
    describe_gauge!("grpcrouter_tunnels", Unit::Count, "Tunnels between this process and its peers.");
    if side == Side::Gateway {
        describe_gauge!("grpcrouter_connections", Unit::Count, "Connections to the gateway's own listener.");
        describe_gauge!("grpcrouter_instances", Unit::Count, "Instances that take new calls.");
    }
}

/// The calls of one method, as go-grpc-prometheus names them.
#[derive(Debug)]
pub(crate) struct MethodMeter {
    started: Counter,
    /// By code.
    handled: [Counter; CODES.len()],
}

impl MethodMeter {
    /// Of a known method. `kind` is a value of `grpc_type`.
    pub(crate) fn new(kind: &'static str, service: &str, method: &str) -> Self {
        let labels =
            [("grpc_type", kind.into()), ("grpc_service", service.to_owned()), ("grpc_method", method.to_owned())];
        Self {
            started: counter!("grpc_server_started_total", &labels),
            handled: CODES.map(|code| {
                let [kind, service, method] = labels.clone();
                counter!("grpc_server_handled_total", &[kind, service, method, ("grpc_code", code.to_owned())])
            }),
        }
    }

    /// Of all methods that are not known: names from outside never become series.
    pub(crate) fn unknown() -> Self {
        Self::new(UNKNOWN, UNKNOWN, UNKNOWN)
    }

    /// A call has come.
    pub(crate) fn started(&self) {
        self.started.increment(1);
    }

    /// A call has ended, whoever ended it.
    pub(crate) fn handled(&self, code: Code) {
        if let Some(handled) = self.handled.get(i32::from(code).cast_unsigned() as usize) {
            handled.increment(1);
        }
    }
}

/// What passes through the tunnels of one end.
#[derive(Debug, Clone)]
pub(crate) struct TunnelMeter {
    tunnels: Gauge,
    sent: Flow,
    received: Flow,
    stalls: Counter,
}

/// One direction.
#[derive(Debug, Clone)]
struct Flow {
    batches: Counter,
    frames: Counter,
    bytes: Counter,
}

impl TunnelMeter {
    pub(crate) fn new(side: Side) -> Self {
        let side = side_name(side);
        let flow = |direction: &'static str| Flow {
            batches: counter!("grpcrouter_tunnel_batches_total", "side" => side, "direction" => direction),
            frames: counter!("grpcrouter_tunnel_frames_total", "side" => side, "direction" => direction),
            bytes: counter!("grpcrouter_tunnel_bytes_total", "side" => side, "direction" => direction),
        };
        Self {
            tunnels: gauge!("grpcrouter_tunnels", "side" => side),
            sent: flow("sent"),
            received: flow("received"),
            stalls: counter!("grpcrouter_stalls_total", "side" => side),
        }
    }

    /// A tunnel is there; each that comes must also [go](Self::went).
    pub(crate) fn came(&self) {
        self.tunnels.increment(1.0);
    }

    pub(crate) fn went(&self) {
        self.tunnels.decrement(1.0);
    }

    /// A batch was read, of so many bytes. `since` is what has passed since the last batch.
    pub(crate) fn received(&self, bytes: usize, since: Totals) {
        self.received.batches.increment(1);
        self.received.bytes.increment(bytes as u64);
        self.received.frames.increment(since.frames_received);
        self.stalled(since);
    }

    /// The same of one that is written.
    pub(crate) fn sent(&self, bytes: usize, since: Totals) {
        self.sent.batches.increment(1);
        self.sent.bytes.increment(bytes as u64);
        self.sent.frames.increment(since.frames_sent);
        self.stalled(since);
    }

    fn stalled(&self, since: Totals) {
        if since.stalls > 0 {
            self.stalls.increment(since.stalls);
        }
    }
}

/// How many calls one end has at the moment.
pub(crate) fn in_flight(side: Side) -> Gauge {
    gauge!("grpcrouter_calls_in_flight", "side" => side_name(side))
}

/// A value of the label `side`.
fn side_name(side: Side) -> &'static str {
    match side {
        Side::Gateway => "gateway",
        Side::Instance => "backend",
    }
}

/// A gRPC code as logs and metrics name it, which is as Go does.
pub(crate) fn code_name(code: Code) -> &'static str {
    CODES.get(i32::from(code).cast_unsigned() as usize).copied().unwrap_or(UNKNOWN)
}

/// Of both ends.
const COUNTERS: &[(&str, Unit, &str)] = &[
    ("grpc_server_started_total", Unit::Count, "Calls that have come."),
    ("grpc_server_handled_total", Unit::Count, "Calls that have ended, by the code that their client was told."),
    ("grpcrouter_tunnel_batches_total", Unit::Count, "Batches that crossed tunnels: the messages of Register streams."),
    ("grpcrouter_tunnel_frames_total", Unit::Count, "Frames in those batches."),
    (
        "grpcrouter_tunnel_bytes_total",
        Unit::Bytes,
        "Bytes of those batches, as gRPC messages; HTTP/2 and TCP come on top.",
    ),
    ("grpcrouter_stalls_total", Unit::Count, "How often a call had to wait because its receiver had granted no more."),
];

const OF_GATEWAY: &[(&str, Unit, &str)] = &[
    ("grpcrouter_calls_sent_total", Unit::Count, "Calls handed to an instance, once for each that one went to."),
    ("grpcrouter_calls_refused_total", Unit::Count, "Calls that an instance did not take; another may."),
    (
        "grpcrouter_registrations_total",
        Unit::Count,
        "Streams of those that want to be an instance, by what came of it.",
    ),
    (
        "grpcrouter_retries_total",
        Unit::Count,
        "Calls that came back from an instance while another was there, by what came of it.",
    ),
];

const OF_BACKEND: &[(&str, Unit, &str)] =
    &[("grpcrouter_dials_total", Unit::Count, "Gateways that were dialled, by what came of it.")];

/// What stands for a name that is not known.
const UNKNOWN: &str = "unknown";

/// By number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
