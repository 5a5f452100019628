//! Why somebody may not register: one text for the one who tried, which helps nobody to guess, and more for the log.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use grpcrouter_protocol::{RejectReason, Rejected};

use crate::gateway::{principal::Principal, registration::shown_time};

/// Why an instance is not let in, or not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Refusal {
    NoCredentials,
    ManyTokens {
        count: usize,
    },
    MalformedToken,
    /// No such id, or another secret: who is refused is not told which.
    UnknownToken {
        id: String,
        is_known: bool,
    },
    RevokedToken {
        id: String,
    },
    Expired {
        what: String,
        at: SystemTime,
    },
    Certificate {
        why: &'static str,
    },
    UnknownCertificate {
        uri: String,
    },
    Service {
        principal: Principal,
        service: String,
        may: String,
    },
    Instance {
        principal: Principal,
        id: String,
        may: String,
    },
    RoutingKey {
        principal: Principal,
        key: String,
        may: String,
    },
    ForeignInstance {
        id: String,
    },
    ForeignKey {
        key: String,
    },
    TooMany {
        principal: Principal,
        most: usize,
    },
    OtherPrincipal {
        before: Principal,
    },
    /// Of a resume: the tunnel is another instance's.
    ForeignTunnel,
    WrongResumeToken,
    TooManyTries,
}

impl Refusal {
    fn reason(&self) -> RejectReason {
        match self {
            Self::NoCredentials
            | Self::ManyTokens { .. }
            | Self::MalformedToken
            | Self::UnknownToken { .. }
            | Self::RevokedToken { .. }
            | Self::Expired { .. }
            | Self::Certificate { .. } => RejectReason::Unauthenticated,
            Self::UnknownCertificate { .. }
            | Self::Service { .. }
            | Self::Instance { .. }
            | Self::RoutingKey { .. }
            | Self::ForeignInstance { .. }
            | Self::ForeignKey { .. }
            | Self::OtherPrincipal { .. }
            | Self::ForeignTunnel
            | Self::WrongResumeToken => RejectReason::PermissionDenied,
            Self::TooMany { .. } | Self::TooManyTries => RejectReason::ResourceExhausted,
        }
    }

    /// How long the instance is to wait: nothing changes in a hurry, and each try costs a handshake.
    pub(in crate::gateway) fn retry_after(&self) -> Duration {
        match self {
            Self::TooManyTries => RETRY_AFTER_MANY,
            Self::OtherPrincipal { .. } => Duration::ZERO,
            _ => RETRY_AFTER,
        }
    }

    /// As the answer to Hello.
    pub(in crate::gateway) fn rejected(&self) -> Rejected {
        Rejected {
            reason: self.reason(),
            message: self.to_string(),
            retry_after: self.retry_after(),
            gateways: Vec::new(),
            versions: None,
        }
    }

    /// What the log alone tells.
    pub(in crate::gateway) fn detail(&self) -> Option<String> {
        match self {
            Self::UnknownToken { id, is_known: true } => {
                Some(format!("the id {id} is known, its secret is another one"))
            }
            Self::UnknownToken { id, is_known: false } => Some(format!("no token has the id {id}")),
            Self::RevokedToken { id } => Some(format!("the token's id is {id}")),
            _ => None,
        }
    }
}

/// For the one who tried.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => f.write_str(
                "this gateway lets in only instances that it knows, and this one shows neither a token nor a client \
                 certificate; the owner of the gateway makes a token with `grpcrouter token create`",
            ),
            Self::ManyTokens { count } => {
                write!(f, "the request has {count} authorization headers: send one, with one token")
            }
            Self::MalformedToken => f.write_str(
                "the authorization header holds no token of this project: it must be `Bearer grt_<id>_<secret>`, the whole \
                 token as `grpcrouter token create` printed it",
            ),
            Self::UnknownToken { .. } => f.write_str(
                "the gateway does not know this token: check that it is whole and meant for this gateway, or ask the owner \
                 of the gateway for another",
            ),
            Self::RevokedToken { .. } => {
                f.write_str("this token was revoked: ask the owner of the gateway for another")
            }
            Self::Expired { what, at } => {
                write!(f, "{what} expired at {}: ask the owner of the gateway for a new one", shown_time(*at))
            }
            Self::Certificate { why } => write!(f, "the client certificate cannot be used to register: {why}"),
            Self::UnknownCertificate { uri } => {
                write!(f, "no rule of the gateway lets {uri} register: its owner adds the URI to certificates = [..]")
            }
            Self::Service { principal, service, may } => {
                write!(f, "{principal} may not register the service {service}; it may {may}")
            }
            Self::Instance { principal, id, may } => {
                write!(f, "{principal} may not have the instance id {id}; it may have {may}")
            }
            Self::RoutingKey { principal, key, may } => {
                write!(f, "{principal} may not declare the routing key {key}; it may declare {may}")
            }
            Self::ForeignInstance { id } => write!(
                f,
                "the instance id {id} belongs to another principal: take another with .instance_id(..); it is free {} minutes \
                 after that one left",
                super::claims::BOUND_FOR.as_secs() / 60
            ),
            Self::ForeignKey { key } => write!(
                f,
                "the routing key {key} is the instance id of another principal: declare another with .routing_keys(..)"
            ),
            Self::TooMany { principal, most } => write!(
                f,
                "{principal} has {most} instances here and may not have more: stop one, or the owner of the gateway raises \
                 max_instances"
            ),
            Self::OtherPrincipal { before } => {
                write!(f, "what proved {before} proves another principal now: register again as that")
            }
            Self::ForeignTunnel => {
                f.write_str("the tunnel to resume is not this instance's: say a plain Hello for one of its own")
            }
            Self::WrongResumeToken => f.write_str(
                "the resume token is not that of the tunnel, so it is not given back; say a plain Hello for a new one",
            ),
            Self::TooManyTries => f.write_str(
                "too many tries with wrong credentials came from this address: wait; right ones are let in at any time",
            ),
        }
    }
}

/// Wrong credentials stay wrong until somebody acts; who did sees it soon.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// As long as tries are counted.
const RETRY_AFTER_MANY: Duration = Duration::from_secs(60);
