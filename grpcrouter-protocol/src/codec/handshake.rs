//! Hello and Welcome between their wire messages and the checked values of the frame room.
//! This is the one gate for what an instance or a gateway says of itself, so every name and size is checked here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::{batch, cold, millis};
use crate::error::ProtocolError;
use crate::frame::{
    Accepted, Close, Heartbeat, Hello, Limits, RejectReason, Rejected, Resume, Resumed, ServiceOffer, Welcome,
};
use crate::id::{Epoch, Incarnation, InstanceId, Seq, Side, TunnelId, check_name};
use crate::wire::{self, gateway_frame, instance_frame, rejected::Reason, welcome::Answer};

pub(crate) fn encode_hello(hello: &Hello) -> Bytes {
    from_instance(instance_frame::Kind::Hello(to_hello(hello)))
}

pub(crate) fn encode_welcome(welcome: &Welcome) -> Bytes {
    from_gateway(gateway_frame::Kind::Welcome(to_welcome(welcome)))
}

pub(crate) fn encode_close(side: Side, close: &Close) -> Bytes {
    match side {
        Side::Gateway => from_gateway(gateway_frame::Kind::Close(cold::to_close(close))),
        Side::Instance => from_instance(instance_frame::Kind::Close(cold::to_close(close))),
    }
}

pub(crate) fn decode_hello(message: Bytes) -> Result<Hello, ProtocolError> {
    let batch = wire::RegisterRequest::decode(message).map_err(|error| wrong(format!("not a Hello: {error}")))?;
    match only(batch.seq, batch.frames)?.kind {
        Some(instance_frame::Kind::Hello(hello)) => from_hello(hello),
        _ => Err(wrong("the first message must be a Hello")),
    }
}

pub(crate) fn decode_welcome(message: Bytes) -> Result<Welcome, ProtocolError> {
    let batch = wire::RegisterResponse::decode(message).map_err(|error| wrong(format!("not a Welcome: {error}")))?;
    match only(batch.seq, batch.frames)?.kind {
        Some(gateway_frame::Kind::Welcome(welcome)) => from_welcome(welcome),
        Some(gateway_frame::Kind::Close(close)) => Err(wrong(format!("the gateway closed: {}", close.reason))),
        _ => Err(wrong("the first answer must be a Welcome")),
    }
}

fn from_instance(kind: instance_frame::Kind) -> Bytes {
    batch::whole(&wire::RegisterRequest { seq: 0, ack: 0, frames: vec![wire::InstanceFrame { kind: Some(kind) }] })
}

fn from_gateway(kind: gateway_frame::Kind) -> Bytes {
    batch::whole(&wire::RegisterResponse { seq: 0, ack: 0, frames: vec![wire::GatewayFrame { kind: Some(kind) }] })
}

/// The handshake is a batch without a number that has one frame.
fn only<F>(seq: u64, frames: Vec<F>) -> Result<F, ProtocolError> {
    let [frame] = <[F; 1]>::try_from(frames).map_err(|_| wrong("the first batch must have exactly one frame"))?;
    if seq != 0 {
        return Err(wrong("the first batch must have the number 0"));
    }
    Ok(frame)
}

fn to_hello(hello: &Hello) -> wire::Hello {
    let service = |offer: &ServiceOffer| wire::Service {
        name: offer.name.clone(),
        methods: offer.methods.clone(),
        descriptor_hash: offer.descriptor_hash.clone(),
        not_serving: offer.not_serving,
    };
    wire::Hello {
        min_version: *hello.versions.start(),
        max_version: *hello.versions.end(),
        features: hello.features.clone(),
        instance_id: hello.instance_id.to_string(),
        incarnation: Bytes::copy_from_slice(&hello.incarnation.0),
        services: hello.services.iter().map(service).collect(),
        software_version: hello.software_version.clone(),
        weight: hello.weight,
        labels: hello.labels.clone(),
        routing_keys: hello.routing_keys.clone(),
        max_calls: hello.max_calls,
        health: cold::health_number(hello.health),
        draining: hello.draining,
        resume: hello.resume.as_ref().map(to_resume),
        stream_index: 0,
    }
}

fn from_hello(hello: wire::Hello) -> Result<Hello, ProtocolError> {
    if hello.stream_index != 0 {
        return Err(wrong("stream_index is reserved and must be 0"));
    }
    at_most("services", hello.services.len(), MAX_SERVICES)?;
    at_most("routing_keys", hello.routing_keys.len(), MAX_ROUTING_KEYS)?;
    at_most("features", hello.features.len(), MAX_FEATURES)?;
    at_most("the length of software_version", hello.software_version.len(), MAX_NAME)?;
    hello.features.iter().try_for_each(|feature| name("a feature", feature))?;
    hello.routing_keys.iter().try_for_each(|key| name("a routing key", key))?;
    check_labels(&hello.labels)?;
    Ok(Hello {
        versions: versions(hello.min_version, hello.max_version)?,
        health: cold::health_of(hello.health),
        instance_id: InstanceId::parse(hello.instance_id).map_err(|error| wrong(format!("instance_id: {error}")))?,
        incarnation: Incarnation(sixteen("incarnation", &hello.incarnation)?),
        services: hello.services.into_iter().map(from_service).collect::<Result<_, _>>()?,
        features: hello.features,
        software_version: hello.software_version,
        weight: hello.weight.max(1),
        labels: hello.labels,
        routing_keys: hello.routing_keys,
        max_calls: hello.max_calls,
        draining: hello.draining,
        resume: hello.resume.map(from_resume).transpose()?,
    })
}

/// The one rule for labels, in a Hello and in each Update.
pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ProtocolError> {
    at_most("labels", labels.len(), MAX_LABELS)?;
    labels.keys().try_for_each(|label| name("a label", label))?;
    labels.values().try_for_each(|value| at_most("the length of a label's value", value.len(), MAX_NAME))
}

/// Names of services in an Update.
pub(super) fn check_services(names: &[String]) -> Result<(), ProtocolError> {
    at_most("services", names.len(), MAX_SERVICES)?;
    names.iter().try_for_each(|service| name("a service's name", service))
}

fn from_service(service: wire::Service) -> Result<ServiceOffer, ProtocolError> {
    let wire::Service { name: service_name, methods, descriptor_hash, not_serving } = service;
    name("a service's name", &service_name)?;
    at_most("methods of a service", methods.len(), MAX_METHODS)?;
    methods.iter().try_for_each(|method| name("a method's name", method))?;
    if !matches!(descriptor_hash.len(), 0 | 32) {
        return Err(wrong("descriptor_hash must be empty or have 32 bytes"));
    }
    Ok(ServiceOffer { name: service_name, methods, descriptor_hash, not_serving })
}

fn to_resume(resume: &Resume) -> wire::Resume {
    wire::Resume {
        tunnel_id: Bytes::copy_from_slice(&resume.tunnel_id.0),
        token: resume.token.clone(),
        epoch: resume.epoch.get(),
        rx_next: resume.rx_next.get(),
        tx_first: resume.tx_first.get(),
        tx_next: resume.tx_next.get(),
    }
}

fn from_resume(resume: wire::Resume) -> Result<Resume, ProtocolError> {
    at_most("the length of a token", resume.token.len(), MAX_NAME)?;
    Ok(Resume {
        tunnel_id: TunnelId(sixteen("tunnel_id", &resume.tunnel_id)?),
        token: resume.token,
        epoch: Epoch::new(resume.epoch),
        rx_next: Seq::new(resume.rx_next),
        tx_first: Seq::new(resume.tx_first),
        tx_next: Seq::new(resume.tx_next),
    })
}

fn to_welcome(welcome: &Welcome) -> wire::Welcome {
    let answer = match welcome {
        Welcome::Accepted(accepted) => Answer::Accepted(to_accepted(accepted)),
        Welcome::Resumed(Resumed { epoch, rx_next, new_token }) => {
            Answer::Resumed(wire::Resumed { epoch: epoch.get(), rx_next: rx_next.get(), new_token: new_token.clone() })
        }
        Welcome::Rejected(rejected) => Answer::Rejected(to_rejected(rejected)),
    };
    wire::Welcome { answer: Some(answer) }
}

fn from_welcome(welcome: wire::Welcome) -> Result<Welcome, ProtocolError> {
    match welcome.answer {
        Some(Answer::Accepted(accepted)) => from_accepted(accepted).map(Welcome::Accepted),
        Some(Answer::Resumed(wire::Resumed { epoch, rx_next, new_token })) => {
            at_most("the length of a token", new_token.len(), MAX_NAME)?;
            Ok(Welcome::Resumed(Resumed { epoch: Epoch::new(epoch), rx_next: Seq::new(rx_next), new_token }))
        }
        Some(Answer::Rejected(rejected)) => from_rejected(rejected).map(Welcome::Rejected),
        None => Err(wrong("a Welcome of no known kind")),
    }
}

fn to_accepted(accepted: &Accepted) -> wire::Accepted {
    let Heartbeat { busy, idle, unanswered } = accepted.heartbeat;
    let limits = &accepted.limits;
    wire::Accepted {
        version: accepted.version,
        features: accepted.features.clone(),
        tunnel_id: Bytes::copy_from_slice(&accepted.tunnel_id.0),
        resume_token: accepted.resume_token.clone(),
        heartbeat: Some(wire::Heartbeat { busy_millis: millis(busy), idle_millis: millis(idle), unanswered }),
        resume_window_millis: millis(accepted.resume_window),
        limits: Some(wire::Limits {
            initial_max_data: limits.initial_window,
            max_batch_bytes: limits.max_batch,
            max_data_part_bytes: limits.max_part,
            max_metadata_bytes: limits.max_metadata,
            max_metadata_entries: limits.max_metadata_entries,
            max_trailers_bytes: limits.max_trailers,
            max_open_calls: limits.max_open_calls,
        }),
        gateways: accepted.gateways.clone(),
    }
}

fn from_accepted(accepted: wire::Accepted) -> Result<Accepted, ProtocolError> {
    let heartbeat = accepted.heartbeat.ok_or_else(|| wrong("accepted without a heartbeat"))?;
    let limits = accepted.limits.ok_or_else(|| wrong("accepted without limits"))?;
    at_most("the length of a token", accepted.resume_token.len(), MAX_NAME)?;
    Ok(Accepted {
        version: accepted.version,
        features: accepted.features,
        tunnel_id: TunnelId(sixteen("tunnel_id", &accepted.tunnel_id)?),
        resume_token: accepted.resume_token,
        heartbeat: Heartbeat {
            busy: Duration::from_millis(heartbeat.busy_millis),
            idle: Duration::from_millis(heartbeat.idle_millis),
            unanswered: heartbeat.unanswered,
        },
        resume_window: Duration::from_millis(accepted.resume_window_millis),
        limits: Limits {
            initial_window: limits.initial_max_data,
            max_batch: limits.max_batch_bytes,
            max_part: limits.max_data_part_bytes,
            max_metadata: limits.max_metadata_bytes,
            max_metadata_entries: limits.max_metadata_entries,
            max_trailers: limits.max_trailers_bytes,
            max_open_calls: limits.max_open_calls,
        },
        gateways: accepted.gateways,
    })
}

fn to_rejected(rejected: &Rejected) -> wire::Rejected {
    let reason = match rejected.reason {
        RejectReason::Unspecified => Reason::Unspecified,
        RejectReason::Version => Reason::Version,
        RejectReason::Unknown => Reason::Unknown,
        RejectReason::Draining => Reason::Draining,
        RejectReason::Unauthenticated => Reason::Unauthenticated,
        RejectReason::PermissionDenied => Reason::PermissionDenied,
        RejectReason::Flapping => Reason::Flapping,
        RejectReason::Invalid => Reason::Invalid,
        RejectReason::ResourceExhausted => Reason::ResourceExhausted,
    };
    let (min_version, max_version) = rejected.versions.clone().map_or((0, 0), RangeInclusive::into_inner);
    wire::Rejected {
        reason: reason.into(),
        message: rejected.message.clone(),
        retry_after_millis: millis(rejected.retry_after),
        gateways: rejected.gateways.clone(),
        min_version,
        max_version,
    }
}

fn from_rejected(rejected: wire::Rejected) -> Result<Rejected, ProtocolError> {
    let reason = match rejected.reason() {
        Reason::Unspecified => RejectReason::Unspecified,
        Reason::Version => RejectReason::Version,
        Reason::Unknown => RejectReason::Unknown,
        Reason::Draining => RejectReason::Draining,
        Reason::Unauthenticated => RejectReason::Unauthenticated,
        Reason::PermissionDenied => RejectReason::PermissionDenied,
        Reason::Flapping => RejectReason::Flapping,
        Reason::Invalid => RejectReason::Invalid,
        Reason::ResourceExhausted => RejectReason::ResourceExhausted,
    };
    let versions = match (rejected.min_version, rejected.max_version) {
        (0, 0) => None,
        (min, max) => Some(versions(min, max)?),
    };
    Ok(Rejected {
        reason,
        message: rejected.message,
        retry_after: Duration::from_millis(rejected.retry_after_millis),
        gateways: rejected.gateways,
        versions,
    })
}

fn versions(min: u32, max: u32) -> Result<RangeInclusive<u32>, ProtocolError> {
    if min == 0 || min > max {
        return Err(wrong(format!("versions {min} to {max} are no range from 1 up")));
    }
    Ok(min..=max)
}

fn sixteen(what: &str, bytes: &Bytes) -> Result<[u8; 16], ProtocolError> {
    bytes.as_ref().try_into().map_err(|_| wrong(format!("{what} must have 16 bytes, it has {}", bytes.len())))
}

fn name(what: &str, name: &str) -> Result<(), ProtocolError> {
    check_name(name, MAX_NAME).map_err(|error| wrong(format!("{what}: {error}")))
}

fn at_most(what: &str, value: usize, most: usize) -> Result<(), ProtocolError> {
    if value > most {
        return Err(wrong(format!("{what}: {value}, at most {most} are taken")));
    }
    Ok(())
}

fn wrong(problem: impl Into<String>) -> ProtocolError {
    ProtocolError::Handshake(problem.into())
}

/// The longest name that a peer may choose, in bytes.
const MAX_NAME: usize = 256;
/// One process serves few services; this is room for a monolith.
const MAX_SERVICES: usize = 1_000;
/// As services.
const MAX_METHODS: usize = 1_000;
/// Tenants or shards of one instance. All of them must fit one message.
const MAX_ROUTING_KEYS: usize = 10_000;
/// Labels are for people and policies.
const MAX_LABELS: usize = 64;
/// There is none yet.
const MAX_FEATURES: usize = 64;
