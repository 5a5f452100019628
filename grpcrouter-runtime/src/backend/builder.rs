//! Sets up a backend, and checks what was set.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{CallId, Config, Health, Hello, Incarnation, InstanceId, ServiceOffer};
use http::{Request, Response, Uri};
use http_body::Body as HttpBody;
use rand::Rng as _;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::descriptors::Offered;
use super::dispatch::Services;
use super::meters::Meters;
use super::{Backend, BackendHealth, Live, Settings};
use crate::error::ConfigError;

/// Sets up a [`Backend`]. Nothing is checked before [`build`](Self::build).
#[derive(Debug)]
#[must_use = "a builder does nothing before it is built"]
pub struct BackendBuilder {
    gateways: Vec<String>,
    listen: Option<String>,
    instance_id: Option<String>,
    services: Services,
    /// A service that was added twice.
    duplicate: Option<&'static str>,
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
            listen: None,
            instance_id: None,
            services: Services::default(),
            duplicate: None,
            descriptors: Vec::new(),
            routing_keys: Vec::new(),
            labels: BTreeMap::new(),
            weight: 1,
            software_version: String::new(),
            max_calls: Config::default().max_open_calls,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    /// The gateway to dial, as `http://HOST:PORT`. Given again, it adds another gateway: the backend keeps one tunnel to
    /// each. A host name is looked up anew with each dial.
    pub fn gateway(mut self, uri: impl Into<String>) -> Self {
        self.gateways.push(uri.into());
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
    pub fn build(self) -> Result<Backend, ConfigError> {
        if let Some(service) = self.duplicate {
            return Err(ConfigError::DuplicateService { service: service.to_owned() });
        }
        let services = self.services.names();
        if services.is_empty() {
            let hint = "add a service with .add_service(MyServiceServer::new(..))";
            return Err(ConfigError::NothingToServe { who: "the backend", hint });
        }
        if self.gateways.is_empty() && self.listen.is_none() {
            return Err(ConfigError::NoWayIn);
        }
        let gateways =
            self.gateways.iter().map(|uri| GatewayAddress::parse(uri)).collect::<Result<Vec<_>, ConfigError>>()?;
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
            name: (*name).to_owned(),
            // tonic's servers do not tell their methods.
            methods: Vec::new(),
            descriptor_hash: offered.hash(name),
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
        let settings =
            Settings { gateways, listen: self.listen, hello, config, services, drain_timeout: self.drain_timeout };
        Ok(Backend::new(settings, Live::new(meters, health)))
    }
}

/// The address of a gateway, checked.
#[derive(Clone, Debug)]
pub(super) struct GatewayAddress {
    uri: Uri,
    host: String,
    port: u16,
}

impl GatewayAddress {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |why: &str| ConfigError::setting("gateway", format!("{text:?}"), why);
        let uri: Uri = text.parse().map_err(|_| wrong("it is not a URI; write http://HOST:PORT"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong("TLS comes with a later version; use http:// and a network that you trust for now"));
            }
            Some(_) => return Err(wrong("the scheme must be http; write http://HOST:PORT")),
            None => return Err(wrong(&format!("it has no scheme; write http://{text}"))),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("a gateway has no path; write http://HOST:PORT"));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if host.is_empty() {
            return Err(wrong("it has no host; write http://HOST:PORT"));
        }
        let port = uri
            .port_u16()
            .ok_or_else(|| wrong(&format!("it has no port; write http://{host}:8080 if that is the gateway's")))?;
        if port == 0 {
            return Err(wrong("nothing can listen at port 0; write the gateway's port"));
        }
        Ok(Self { uri, host, port })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn register_uri(&self) -> Uri {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/grpcrouter.Router/Register"));
        Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone())
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri.authority().map_or("", |authority| authority.as_str()))
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
