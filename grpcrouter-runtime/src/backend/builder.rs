//! Sets up a backend, and checks what was set.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{CallId, Config, Health, Hello, Incarnation, InstanceId, ServiceOffer};
use http::{Request, Response};
use http_body::Body as HttpBody;
use rand::Rng as _;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::check::{self, GatewayCheck};
use super::descriptors::Offered;
use super::dial::{Dialler, Hidden, ProxySetting, Token, WayOut};
use super::dispatch::Services;
use super::meters::Meters;
#[cfg(feature = "agent")]
use super::upstream::{Attended, Upstream};
use super::{Backend, BackendHealth, Live, Settings};
use crate::error::ConfigError;

/// Sets up a [`Backend`]. Nothing is checked before [`build`](Self::build).
#[derive(Debug)]
#[must_use = "a builder does nothing before it is built"]
pub struct BackendBuilder {
    gateways: Vec<String>,
    way_out: WayOut,
    follows: bool,
    listen: Option<String>,
    instance_id: Option<String>,
    services: Services,
    /// A service that was added twice.
    duplicate: Option<Arc<str>>,
    #[cfg(feature = "agent")]
    upstreams: Vec<Upstream>,
    #[cfg(feature = "agent")]
    attended: Vec<Attended>,
    descriptors: Vec<Bytes>,
    routing_keys: Vec<String>,
    labels: BTreeMap<String, String>,
    weight: u32,
    software_version: String,
    max_calls: u32,
    drain_timeout: Duration,
}

impl BackendBuilder {
    pub(super) fn new() -> Self {
        Self {
            gateways: Vec::new(),
            way_out: WayOut::default(),
            follows: true,
            listen: None,
            instance_id: None,
            services: Services::default(),
            duplicate: None,
            #[cfg(feature = "agent")]
            upstreams: Vec::new(),
            #[cfg(feature = "agent")]
            attended: Vec::new(),
            descriptors: Vec::new(),
            routing_keys: Vec::new(),
            labels: BTreeMap::new(),
            weight: 1,
            software_version: String::new(),
            max_calls: Config::default().max_open_calls,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    /// The gateway to dial: `https://HOST`, with `:PORT` if that is not 443, or without TLS `http://HOST:PORT`. Given
    /// again, it adds another gateway: the backend keeps one tunnel to each. A host name is looked up anew with each dial.
    ///
    /// Over TLS the gateway must show a certificate for that host, from a CA that this system trusts or that
    /// [`ca_file`](Self::ca_file) names.
    pub fn gateway(mut self, uri: impl Into<String>) -> Self {
        self.gateways.push(uri.into());
        self
    }

    /// Whether to go to the gateways too that a gateway names as its peers. Default: yes, so that an instance that was told
    /// of one gateway takes the calls of all, and none of its calls is missed when one of them stops.
    ///
    /// There is one tunnel to each, up to five, and those that were set are always among them. A gateway that nobody names
    /// any more is left when the calls from there have finished, at the latest after `drain_timeout`. All are dialled as
    /// those that were set: with the same token, CA files, certificate and proxy. Whom a gateway over TLS names is dialled
    /// over TLS alone. No: where a firewall lets this process out to certain gateways only.
    pub fn follow_gateways(mut self, follow: bool) -> Self {
        self.follows = follow;
        self
    }

    /// A PEM file of CA certificates to trust beside those of the system: that of a private CA, or of a proxy that
    /// inspects TLS. It is read again with each dial. Default: none. The system's are found as
    /// [rustls-native-certs](https://docs.rs/rustls-native-certs) does, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.way_out.tls.ca = Some(path.into());
        self
    }

    /// The certificate to show to gateways that ask for one, with its chain, and its private key: PEM files, read again
    /// with each dial. Default: none.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.way_out.tls.client = Some((certificate.into(), key.into()));
        self
    }

    /// The token that the gateways ask for, as `grpcrouter token create` prints it; it goes out as
    /// `authorization: Bearer TOKEN` with the request to register. Replaces [`token_file`](Self::token_file). Default:
    /// none.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.way_out.token = Token::Text(Hidden(token.into()));
        self
    }

    /// The file that holds the token, read again with each dial, so that a new token needs no restart. Replaces
    /// [`token`](Self::token). Default: none.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.way_out.token = Token::File(path.into());
        self
    }

    /// The HTTP proxy to dial gateways through: `http://HOST:PORT`, `http://USER:PASSWORD@HOST:PORT` (Basic; percent-encode
    /// what a URL cannot hold), or the same with `https://` if the proxy itself speaks TLS. It must allow CONNECT to
    /// the gateway. Without a port it is 80 or 443. What it says counts for every gateway, whatever the environment says.
    ///
    /// Default: what the environment says, read at [`build`](Self::build) as curl reads it. For `https://` gateways
    /// `https_proxy` or `HTTPS_PROXY`, for `http://` ones `http_proxy` (in small letters alone), for both `all_proxy` or
    /// `ALL_PROXY`; `no_proxy` or `NO_PROXY` lists exceptions: `*`, host names and what is below them, IP addresses and
    /// networks, each with a port or without. A gateway on this machine's loopback is dialled directly.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.way_out.proxy = ProxySetting::Url(Hidden(url.into()));
        self
    }

    /// Dials gateways directly, whatever the environment says of proxies.
    pub fn no_proxy(mut self) -> Self {
        self.way_out.proxy = ProxySetting::Never;
        self
    }

    /// How long one try to reach a gateway may take in all, from the look-up of its name to its Welcome. Default 10 s: a
    /// way that is slower is of no use, and the next try may find a better one. 100 ms to 300 s.
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.way_out.timeout = timeout;
        self
    }

    /// Lets the token go to `http://` gateways beyond this machine, where everybody on the way can read it: for networks
    /// that you trust. Default: [`build`](Self::build) refuses that.
    pub fn insecure(mut self) -> Self {
        self.way_out.is_insecure = true;
        self
    }

    /// The address to listen at for calls that come without a gateway, as `HOST:PORT`. Port 0 lets the system choose;
    /// [`Backend::local_addr`] tells which. Default: none. `grpc.health.v1.Health` answers there too, with what is said
    /// to [`Backend::health`], unless a service of that name was added.
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.listen = Some(address.to_string());
        self
    }

    /// The name that a routing key must have to reach this backend and no other: 1 to 256 bytes, best the same after a
    /// restart. Default: the host's name and eight random digits, new with each process, so that two processes on one
    /// host never share it.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    /// A service to serve: any server that tonic generates, with or without interceptors around it. It is called as it
    /// is; messages are not decoded on the way.
    pub fn add_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Err(name) = self.services.add(service) {
            self.duplicate = Some(name);
        }
        self
    }

    /// The services that `upstream` names, of a server beside this process that knows nothing of gateways. May be given
    /// again, for another server.
    #[cfg(feature = "agent")]
    pub fn upstream(mut self, upstream: Upstream) -> Self {
        self.upstreams.push(upstream);
        self
    }

    /// The services of an upstream that somebody else keeps the connection to.
    #[cfg(feature = "agent")]
    pub(super) fn attending(mut self, attended: Attended) -> Self {
        self.attended.push(attended);
        self
    }

    /// The proto files of its services, for clients that ask a gateway for them by reflection: an encoded
    /// `FileDescriptorSet`, such as a router's `FILE_DESCRIPTOR_SET` or what
    /// `tonic::include_file_descriptor_set!` gives. Google's own files may be left out. May be given again, for other
    /// services. A gateway asks for it once; at most 4 MiB. Default: none, and then a gateway knows only what it was
    /// built with.
    pub fn descriptors(mut self, file_descriptor_set: impl Into<Bytes>) -> Self {
        self.descriptors.push(file_descriptor_set.into());
        self
    }

    /// A routing key that this backend answers beside its instance id, such as a tenant: 1 to 256 bytes with no control
    /// characters. May be given again.
    pub fn routing_key(mut self, key: impl Into<String>) -> Self {
        self.routing_keys.push(key.into());
        self
    }

    /// A label, for people and policies: a name of 1 to 256 bytes and a value of at most 256, both with no control
    /// characters. The same name again replaces its value.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// This backend's share of the calls where a gateway weighs: twice the weight, twice the calls. Default 1, the
    /// least.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The version of the software, shown where instances are listed. Default: none.
    pub fn software_version(mut self, version: impl Into<String>) -> Self {
        self.software_version = version.into();
        self
    }

    /// Calls that may be open at once over one tunnel; what is beyond goes to other instances. 1 to 1,048,576, default
    /// 1024. Each open call may hold a window of 64 KiB in each direction; where the way is long and the service reads
    /// quickly, up to 4 MiB, which all calls of a tunnel take out of 64 MiB.
    pub fn max_calls(mut self, calls: u32) -> Self {
        self.max_calls = calls;
        self
    }

    /// How long calls may go on when the backend stops; then they end UNAVAILABLE. Default 30 s: longer than most calls
    /// take, shorter than most service managers wait before they kill. Zero: they end at once.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Checks everything and makes the backend. Nothing is dialled and no port is taken before [`Backend::serve`]. Needs
    /// no tokio runtime.
    ///
    /// # Errors
    /// The first thing that cannot be used, by the name of the method that set it, and what to do.
    #[cfg_attr(not(feature = "agent"), allow(unused_mut, reason = "only upstreams are added here"))]
    pub fn build(mut self) -> Result<Backend, ConfigError> {
        if let Some(service) = self.duplicate {
            return Err(ConfigError::DuplicateService { service: service.to_string() });
        }
        #[cfg(feature = "agent")]
        let upstreams = Attended::add_all(&self.upstreams, &self.attended, &mut self.services)?;
        let services = self.services.names();
        if services.is_empty() {
            let hint = "add a service with .add_service(MyServiceServer::new(..))";
            return Err(ConfigError::NothingToServe { who: "the backend", hint });
        }
        if self.gateways.is_empty() && self.listen.is_none() {
            return Err(ConfigError::NoWayIn);
        }
        let gateways = self.diallers()?;
        let id = self.instance_id.unwrap_or_else(default_instance_id);
        let instance_id = InstanceId::parse(id.as_str())
            .map_err(|error| ConfigError::setting("instance_id", format!("{id:?}"), error.to_string()))?;
        for key in &self.routing_keys {
            name("routing_key", key)?;
        }
        for (label, value) in &self.labels {
            name("label", label)?;
            if !value.is_empty() {
                name("label", value)?;
            }
        }
        if self.weight == 0 {
            let why = "the least is 1; an instance that shall take no calls is one that is stopped";
            return Err(ConfigError::setting("weight", 0, why));
        }
        if self.max_calls == 0 || self.max_calls > 1 << CallId::SLOT_BITS {
            return Err(ConfigError::setting("max_calls", self.max_calls, "it must be from 1 to 1048576"));
        }
        let config = Config { max_open_calls: self.max_calls, ..Config::default() };
        let config =
            config.checked().map_err(|error| ConfigError::setting("max_calls", self.max_calls, error.to_string()))?;

        let offered = Offered::read(self.descriptors)
            .map_err(|error| ConfigError::setting("descriptors", "a set of files", error.to_string()))?;
        let offers = services.iter().map(|name| ServiceOffer {
            name: name.to_string(),
            // tonic's servers do not tell their methods.
            methods: Vec::new(),
            descriptor_hash: offered.hash(name),
            not_serving: false,
        });
        let hello = Hello {
            versions: Config::VERSIONS,
            features: Vec::new(),
            instance_id,
            incarnation: Incarnation(rand::rng().random()),
            services: offers.collect(),
            software_version: self.software_version,
            weight: self.weight,
            labels: self.labels,
            routing_keys: self.routing_keys,
            max_calls: self.max_calls.into(),
            health: Health::Serving,
            draining: false,
            resume: None,
        };
        let health = BackendHealth::new(&services);
        let mut services = self.services;
        services.add_beside(health.server());
        services.add_beside(offered.clone());
        let services = Arc::new(services);
        let meters = Meters::new(hello.instance_id.clone(), services.clone());
        let settings = Settings {
            gateways,
            followed_by: self.follows.then_some(self.way_out),
            listen: self.listen,
            hello,
            config,
            services,
            drain_timeout: self.drain_timeout,
            #[cfg(feature = "agent")]
            upstreams,
        };
        Ok(Backend::new(settings, Live::new(meters, health)))
    }

    /// Tries to reach each gateway once, step by step, and tells what was found: for a person who asks why it cannot be
    /// reached. Takes at most the [`dial_timeout`](Self::dial_timeout) for each, and a second to say goodbye.
    ///
    /// At the end it registers, with the token and the certificate that were set, the services that were added and
    /// `services`, by their full names. It does so as an instance that drains and does not serve, named after
    /// [`instance_id`](Self::instance_id) with `-check` behind it: no call comes to it and nobody is displaced. Without
    /// any service it asks no gateway whether it would let one in.
    ///
    /// # Errors
    /// What [`build`](Self::build) would refuse of the way to a gateway. That a gateway cannot be reached is no error, but
    /// what is found.
    ///
    /// # Cancel safety
    /// Dropping the future early leaves nothing behind.
    pub async fn check(
        self,
        services: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<GatewayCheck>, ConfigError> {
        if self.gateways.is_empty() {
            return Err(ConfigError::NoWayIn);
        }
        let diallers = self.diallers()?;
        let id = match self.instance_id {
            Some(id) => format!("{id}-check"),
            None => format!("check-{:08x}", rand::rng().random::<u32>()),
        };
        let instance_id = InstanceId::parse(id.as_str())
            .map_err(|error| ConfigError::setting("instance_id", format!("{id:?}"), error.to_string()))?;
        let added = self.services.names().into_iter().map(|name| name.to_string());
        let services: BTreeSet<String> = added.chain(services.into_iter().map(Into::into)).collect();
        for service in &services {
            name("check", service)?;
        }
        let hello = check::hello(instance_id, services.into_iter().collect());
        let mut found = Vec::with_capacity(diallers.len());
        for dialler in &diallers {
            found.push(check::check(dialler, &hello).await);
        }
        Ok(found)
    }

    /// The ways to the gateways; one that was given twice is one.
    fn diallers(&self) -> Result<Vec<Dialler>, ConfigError> {
        let mut diallers: Vec<Dialler> = Vec::with_capacity(self.gateways.len());
        for uri in &self.gateways {
            let dialler = self.way_out.to(uri, |name| std::env::var(name).ok())?;
            if diallers.iter().all(|other| other.gateway.origin() != dialler.gateway.origin()) {
                diallers.push(dialler);
            }
        }
        Ok(diallers)
    }
}

fn name(setting: &'static str, value: &str) -> Result<(), ConfigError> {
    let why = if value.is_empty() {
        "it is empty"
    } else if value.len() > MAX_NAME {
        "it is longer than 256 bytes"
    } else if value.chars().any(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(ConfigError::setting(setting, format!("{value:?}"), why))
}

fn default_instance_id() -> String {
    let host = ["HOSTNAME", "COMPUTERNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map(|host| {
            host.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(200).collect::<String>()
        })
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| "instance".to_owned());
    format!("{host}-{:08x}", rand::rng().random::<u32>())
}

/// See [`BackendBuilder::drain_timeout`].
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of any name on the wire.
const MAX_NAME: usize = 256;

#[cfg(test)]
mod tests;
