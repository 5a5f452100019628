//! The way from a backend to its gateway: a name, TCP, perhaps a proxy, perhaps TLS, HTTP/2, and Hello. Each step that
//! fails says so in words of its own.

mod address;
mod certificate;
mod greeting;
mod no_proxy;
mod proxy;
mod road;
mod tls;
mod token;
mod way_out;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::HeaderValue;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

pub(super) use self::address::GatewayAddress;
pub(super) use self::greeting::{Greeted, Welcomed};
pub(super) use self::proxy::{Hidden, Proxy, ProxySetting};
use self::road::{Heard, Road};
pub(super) use self::tls::TlsFiles;
pub(super) use self::tls::TlsSeen;
use self::tls::Trust;
pub(super) use self::token::Token;
pub(super) use self::way_out::WayOut;
use crate::error::{ConnectError, DialStep, TlsProblem, Whom};

/// How one gateway is dialled.
#[derive(Debug, Clone)]
pub(super) struct Dialler {
    pub(super) gateway: GatewayAddress,
    pub(super) proxy: Option<Proxy>,
    pub(super) tls: TlsFiles,
    pub(super) token: Token,
    /// For all steps together.
    pub(super) timeout: Duration,
}

/// A connection that is ready for a request, but for being polled.
pub(super) struct Dialled {
    requests: SendRequest<Bytes>,
    heard: Arc<Heard>,
    trust: Option<Arc<Trust>>,
    token: Option<HeaderValue>,
}

/// What moves a connection while it is polled.
pub(super) type Moving = Connection<Road, Bytes>;

impl Dialler {
    /// `HOST:PORT` of the gateway.
    pub(super) fn address(&self) -> String {
        self.gateway.to_string()
    }

    /// All steps up to HTTP/2. Takes at most until `due`, and then says at which step it was.
    pub(super) async fn dial(&self, due: Instant, trail: &mut Trail) -> Result<(Dialled, Moving), ConnectError> {
        match timeout_at(due, self.dial_on(due, trail)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(trail.late()),
        }
    }

    async fn dial_on(&self, due: Instant, trail: &mut Trail) -> Result<(Dialled, Moving), ConnectError> {
        trail.at(DialStep::Settings, Whom::Gateway, self.address());
        let (token, trust) = self.read_files().await?;
        let (whom, host, port) = match &self.proxy {
            Some(proxy) => (Whom::Proxy, proxy.host(), proxy.port()),
            None => (Whom::Gateway, self.gateway.host(), self.gateway.port()),
        };
        let mut road = reach(whom, host, port, due, trail).await?;
        if let Some(proxy) = &self.proxy {
            if let (Some(name), Some(trust)) = (proxy.server_name(), &trust) {
                let address = address::host_and_port(proxy.host(), proxy.port());
                road = shake_hands(trust, road, name, Whom::Proxy, address, trail).await?;
            }
            trail.at(DialStep::Proxy, Whom::Proxy, proxy.to_string());
            let target = self.address();
            road = proxy.connect(road, &target).await.map_err(|problem| ConnectError::Proxy {
                proxy: proxy.to_string(),
                target: target.clone(),
                problem,
            })?;
            trail.passed(format!("{proxy} connected to {target}"));
        }
        if let (Some(name), Some(trust)) = (self.gateway.server_name(), &trust) {
            road = shake_hands(trust, road, name, Whom::Gateway, self.address(), trail).await?;
        }
        trail.at(DialStep::Http2, Whom::Gateway, self.address());
        let heard = road.heard();
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .handshake(road)
            .await
            // Nothing was heard yet: this is the connection, not what is said on it.
            .map_err(|error| ConnectError::NoWelcome { address: self.address(), why: error.to_string() })?;
        Ok((Dialled { requests, heard, trust, token }, connection))
    }

    /// The token, and who is trusted if anybody is spoken to over TLS.
    async fn read_files(&self) -> Result<(Option<HeaderValue>, Option<Arc<Trust>>), ConnectError> {
        let by_tls =
            self.gateway.server_name().is_some() || self.proxy.as_ref().is_some_and(|p| p.server_name().is_some());
        if !by_tls && !self.token.is_some() {
            return Ok((None, None));
        }
        let (token, files) = (self.token.clone(), by_tls.then(|| self.tls.clone()));
        let read = move || (token.read(), files.map(|files| files.read()).transpose());
        // Not on a thread that carries calls: a file may be on a network that is slow today.
        match tokio::task::spawn_blocking(read).await {
            Ok((token, trust)) => Ok((token?, trust?.map(Arc::new))),
            // The runtime stops.
            Err(_) => pending().await,
        }
    }
}

impl Dialled {
    /// Why TLS ended the connection after the handshake: that is when a gateway refuses a client certificate.
    fn late_tls_problem(&self) -> Option<TlsProblem> {
        self.trust.as_ref()?.late_problem(self.heard.tls_error()?)
    }
}

/// Looks `host` up and connects to the first of its addresses that answers.
async fn reach(whom: Whom, host: &str, port: u16, due: Instant, trail: &mut Trail) -> Result<Road, ConnectError> {
    trail.at(DialStep::Name, whom, address::host_and_port(host, port));
    let name_error = |source| ConnectError::Name { whom, host: host.to_owned(), source };
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(name_error)?.collect();
    addresses.sort_by_key(|address| Some(*address) != trail.preferred);
    trail.passed(listed(&addresses));

    trail.at(DialStep::Connect, whom, address::host_and_port(host, port));
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        // One that swallows what is sent to it leaves the others their share of the time.
        let left = due.saturating_duration_since(Instant::now());
        let others = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let source = match timeout_at(Instant::now() + left / others, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A batch goes when it is ready.
                let _ = stream.set_nodelay(true);
                trail.peer = Some(*address);
                trail.passed(format!("connected to {address}"));
                return Ok(Road::tcp(stream));
            }
            Ok(Err(source)) => source,
            Err(_) => io::Error::from(io::ErrorKind::TimedOut),
        };
        debug!(%address, %source, "does not answer");
        last = Some(source);
    }
    match last {
        Some(source) if source.kind() == io::ErrorKind::TimedOut => Err(trail.late()),
        Some(source) => {
            let address = address::host_and_port(host, port);
            let tried = if host.parse::<std::net::IpAddr>().is_ok() {
                String::new()
            } else {
                format!(" ({})", listed(&addresses))
            };
            Err(ConnectError::Dial { whom, address: format!("{address}{tried}"), source })
        }
        None => Err(name_error(io::Error::new(io::ErrorKind::NotFound, "it has no address"))),
    }
}

async fn shake_hands(
    trust: &Trust,
    road: Road,
    name: &rustls_pki_types::ServerName<'static>,
    whom: Whom,
    address: String,
    trail: &mut Trail,
) -> Result<Road, ConnectError> {
    trail.at(DialStep::Tls, whom, address.clone());
    let (road, seen) = trust.handshake(road, name, whom, &address).await?;
    trail.passed(format!(
        "{}, {} until {}, issued by {}",
        seen.version, seen.certificate.subject, seen.certificate.not_after, seen.certificate.issuer
    ));
    if whom == Whom::Gateway {
        trail.tls = Some(seen);
    }
    Ok(road)
}

fn listed(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    addresses.join(", ")
}

/// How far a dial has come, for who wants to know: a check, and whoever says that it took too long.
#[derive(Debug)]
pub(super) struct Trail {
    step: DialStep,
    pub(super) whom: Whom,
    pub(super) address: String,
    pub(super) since: Instant,
    limit: Duration,
    pub(super) passed: Vec<Passed>,
    /// The TCP address to try first, if the name leads there.
    preferred: Option<SocketAddr>,
    /// The TCP address that answered.
    pub(super) peer: Option<SocketAddr>,
    /// Of TLS with the gateway.
    pub(super) tls: Option<TlsSeen>,
}

/// A step that went well.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) step: DialStep,
    pub(super) whom: Whom,
    pub(super) address: String,
    pub(super) found: String,
    pub(super) took: Duration,
}

impl Trail {
    /// `limit` is what all steps together may take.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            step: DialStep::Settings,
            whom: Whom::Gateway,
            address: String::new(),
            since: Instant::now(),
            limit,
            passed: Vec::new(),
            preferred: None,
            peer: None,
            tls: None,
        }
    }

    /// The same, but first to this address, of those that the name leads to: what is there has something of ours.
    pub(super) fn preferring(self, peer: Option<SocketAddr>) -> Self {
        Self { preferred: peer, ..self }
    }

    /// What to say when the time is over now.
    pub(super) fn late(&self) -> ConnectError {
        ConnectError::Timeout { step: self.step, whom: self.whom, address: self.address.clone(), limit: self.limit }
    }

    /// The next step begins.
    pub(super) fn at(&mut self, step: DialStep, whom: Whom, address: String) {
        (self.step, self.whom, self.address, self.since) = (step, whom, address, Instant::now());
    }

    /// The step went well.
    pub(super) fn passed(&mut self, found: String) {
        self.passed.push(Passed {
            step: self.step,
            whom: self.whom,
            address: self.address.clone(),
            found,
            took: self.since.elapsed(),
        });
    }
}

/// Bytes on the way to this process: the core's windows are what limits each call, so this is transit, not storage.
const WINDOW: u32 = 16 * 1024 * 1024;

/// A batch in one HTTP/2 frame, with its prefix.
const MAX_FRAME: u32 = 65 * 1024;

/// Bytes of batches that wait for the socket: two batches, so that the scheduler decides late what goes next.
const MAX_SEND_BUFFER: usize = 128 * 1024;
