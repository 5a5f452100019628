//! Why can a backend not reach its gateway? Takes each step of the way once, registers in a way that gets no call, and
//! tells what was found.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{
    Close, CloseCode, Config, Health, Hello, Incarnation, InstanceId, ServiceOffer, Side, encode_close,
};
use rand::Rng as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::connector::driven;
use super::dial::{Dialled, Dialler, Greeted, Trail, Welcomed};
use crate::error::{ConnectError, DialStep, Whom};

/// What [`BackendBuilder::check`](super::BackendBuilder::check) found on the way to one gateway.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GatewayCheck {
    /// `HOST:PORT` of the gateway.
    pub gateway: String,
    /// The proxy on the way, as `http://HOST:PORT`.
    pub proxy: Option<String>,
    /// The steps in their order. All went well, but for the last one if [`is_ok`](Self::is_ok) is false.
    pub steps: Vec<CheckedStep>,
    /// The TCP address that answered: that of the proxy, if there is one.
    pub peer: Option<SocketAddr>,
    /// What TLS with the gateway agreed on.
    pub tls: Option<CheckedTls>,
    /// How long a PING of HTTP/2 took to the gateway and back.
    pub round_trip: Option<Duration>,
    /// What the gateway said when it let the instance in.
    pub welcome: Option<CheckedWelcome>,
}

/// One step of the way.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckedStep {
    /// Which one.
    pub step: DialStep,
    /// Where it leads: `the gateway HOST:PORT`, or the same of the proxy.
    pub target: String,
    /// How long it took.
    pub took: Duration,
    /// Whether it went well.
    pub is_ok: bool,
    /// What was found; if it did not go well, what happened, why, and what to do.
    pub found: String,
}

/// What TLS with a gateway agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedTls {
    /// `TLS 1.2` or `TLS 1.3`.
    pub version: String,
    /// Whose the certificate is.
    pub subject: String,
    /// The host names and addresses in it.
    pub names: String,
    /// Who issued it: a stranger's name is that of a proxy that inspects TLS.
    pub issuer: String,
    /// The last day that it is valid, as `2026-11-21`.
    pub expires: String,
}

/// What a gateway said when it let the instance in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedWelcome {
    /// The version of the protocol that both speak.
    pub version: u32,
    /// Calls that may be open at once over one tunnel.
    pub max_calls: u64,
    /// How often the gateway wants to hear something of a tunnel without calls.
    pub heartbeat: Duration,
}

impl GatewayCheck {
    /// Whether every step went well.
    pub fn is_ok(&self) -> bool {
        self.steps.iter().all(|step| step.is_ok)
    }

    /// The step that did not go well.
    pub fn problem(&self) -> Option<&CheckedStep> {
        self.steps.iter().find(|step| !step.is_ok)
    }
}

/// Takes every step to one gateway.
pub(super) async fn check(dialler: &Dialler, hello: &Hello) -> GatewayCheck {
    let mut trail = Trail::new(dialler.timeout);
    let mut round_trip = None;
    let walked = walk(dialler, hello, &mut trail, &mut round_trip).await;
    let mut steps: Vec<CheckedStep> = trail
        .passed
        .iter()
        .map(|passed| CheckedStep {
            step: passed.step,
            target: target(passed.whom, &passed.address),
            took: passed.took,
            is_ok: true,
            found: passed.found.clone(),
        })
        .collect();
    let welcome = match walked {
        Ok(welcome) => welcome,
        Err(error) => {
            steps.push(CheckedStep {
                step: error.step(),
                target: target(trail.whom, &trail.address),
                took: trail.since.elapsed(),
                is_ok: false,
                found: error.to_string(),
            });
            None
        }
    };
    GatewayCheck {
        gateway: dialler.address(),
        proxy: dialler.proxy.as_ref().map(ToString::to_string),
        steps,
        peer: trail.peer,
        tls: trail.tls.map(|seen| CheckedTls {
            version: seen.version.to_owned(),
            subject: seen.certificate.subject,
            names: seen.certificate.names,
            issuer: seen.certificate.issuer,
            expires: seen.certificate.not_after,
        }),
        round_trip,
        welcome,
    }
}

/// A Hello that gets no call: it drains from the start and does not serve. With no service in it, gateways say no, but say
/// who they are.
pub(super) fn hello(instance_id: InstanceId, services: Vec<String>) -> Hello {
    let offer = |name| ServiceOffer { name, methods: Vec::new(), descriptor_hash: Bytes::new(), not_serving: false };
    Hello {
        versions: Config::VERSIONS,
        features: Vec::new(),
        instance_id,
        incarnation: Incarnation(rand::rng().random()),
        services: services.into_iter().map(offer).collect(),
        software_version: String::new(),
        weight: 1,
        labels: std::collections::BTreeMap::new(),
        routing_keys: Vec::new(),
        // None will come; so the answer tells the gateway's own limit.
        max_calls: u32::MAX.into(),
        health: Health::NotServing,
        draining: true,
        resume: None,
    }
}

async fn walk(
    dialler: &Dialler,
    hello: &Hello,
    trail: &mut Trail,
    round_trip: &mut Option<Duration>,
) -> Result<Option<CheckedWelcome>, ConnectError> {
    let due = Instant::now() + dialler.timeout;
    let (dialled, mut connection) = dialler.dial(due, trail).await?;
    let pings = connection.ping_pong();
    let mut moving = Box::pin(driven(connection));
    let greeted = tokio::select! {
        biased;
        greeted = async {
            if let Some(pings) = pings {
                *round_trip = Some(ping(dialler, &dialled, pings, trail).await?);
            }
            dialler.greet(&dialled, hello, trail).await
        } => greeted,
        never = moving.as_mut() => match never {},
        () = sleep_until(due) => return Err(trail.late()),
    };
    let Greeted { welcome, mut outgoing, mut incoming, requests: _requests } = match greeted {
        Err(ConnectError::Rejected { reason: "INVALID", .. }) if hello.services.is_empty() => {
            return Ok(None);
        }
        greeted => greeted?,
    };
    let Welcomed::Accepted(accepted) = welcome else { return Err(dialler.unasked()) };
    let welcome = CheckedWelcome {
        version: accepted.version,
        max_calls: accepted.limits.max_open_calls,
        heartbeat: accepted.heartbeat.idle,
    };
    trail.passed(format!(
        "let in as {:?}; version {} of the protocol, {} calls at once",
        hello.instance_id.as_str(),
        welcome.version,
        welcome.max_calls
    ));
    let close = Close { code: CloseCode::NoError, reason: "it was a check".to_owned(), retry_after: Duration::ZERO };
    // Whether it is heard makes no difference: a stream that ends is gone as well, with one more line in a log.
    let _ = outgoing.send_data(encode_close(Side::Instance, &close), true);
    tokio::select! {
        () = async { while let Ok(Some(_)) = incoming.next().await {} } => {}
        never = moving => match never {},
        () = sleep(LINGER) => {}
    }
    Ok(Some(welcome))
}

/// One PING of HTTP/2, there and back.
async fn ping(
    dialler: &Dialler,
    dialled: &Dialled,
    mut pings: h2::PingPong,
    trail: &mut Trail,
) -> Result<Duration, ConnectError> {
    let began = Instant::now();
    pings.ping(h2::Ping::opaque()).await.map_err(|error| dialler.no_answer(error, dialled))?;
    let round_trip = began.elapsed();
    trail.passed(format!("HTTP/2; there and back in {round_trip:.1?}"));
    Ok(round_trip)
}

fn target(whom: Whom, address: &str) -> String {
    format!("{whom} {address}")
}

/// How long the gateway may take to end a stream that was closed here.
const LINGER: Duration = Duration::from_secs(1);
