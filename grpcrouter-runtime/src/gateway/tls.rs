//! TLS at the gateway's own listener: what the builder was told, and the configuration that new connections get, which
//! follows the files as they change.

mod keep;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use sha2::{Digest as _, Sha256};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

use self::keep::Told;
use crate::{
    error::ConfigError,
    tls::{self, TlsFileError, parse_certificates, parse_identity, provider},
};

/// TLS for [`Gateway::serve`](crate::Gateway::serve): TLS 1.2 and 1.3, HTTP/2 by ALPN.
///
/// The files are looked at every few seconds. When they change, new connections get what is in them then, and those that
/// are there stay as they are: no call ends. What cannot be used, such as a key that does not belong to its certificate,
/// is refused with one line in the log, and what was there before stays.
///
/// # Examples
/// ```no_run
/// # use grpcrouter_runtime::{ConfigError, Gateway, GatewayTls, codegen::Router};
/// # fn example<MyServiceRouter: Router>() -> Result<Gateway, ConfigError> {
/// Gateway::builder()
///     .add_router::<MyServiceRouter>()
///     .tls(GatewayTls::files("cert.pem", "key.pem").client_ca("clients.pem"))
///     .build()
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "it does nothing before it is given to GatewayBuilder::tls"]
pub struct GatewayTls {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    clients: Clients,
    reload_every: Duration,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    May,
    Must,
}

impl GatewayTls {
    /// The gateway's certificate and its private key, both PEM: in the first file the certificate itself and then its
    /// chain, without the root. Names of files without a folder are looked for where the process runs.
    pub fn files(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { cert: cert.into(), key: key.into(), client_ca: None, clients: Clients::May, reload_every: RELOAD_EVERY }
    }

    /// The authorities, PEM, one or more, that sign the certificates of clients and instances (mutual TLS). A certificate
    /// that is shown is verified: its chain, its time, that it is meant for clients; one that fails ends the handshake.
    /// Who shows none is let in, unless [`require_client_certificate`](Self::require_client_certificate) says otherwise.
    ///
    /// Sessions are not resumed then, so that each connection shows its certificate anew.
    pub fn client_ca(mut self, bundle: impl Into<PathBuf>) -> Self {
        self.client_ca = Some(bundle.into());
        self
    }

    /// Ends the handshake of whoever shows no certificate, clients and instances alike. Needs
    /// [`client_ca`](Self::client_ca).
    pub fn require_client_certificate(mut self) -> Self {
        self.clients = Clients::Must;
        self
    }

    /// How often the files are looked at. Default 5 s: a renewed certificate is in use before anybody wonders, and three
    /// small files cost nothing. Zero: never by itself, only when [`Gateway::reload_tls`](crate::Gateway::reload_tls) is
    /// called.
    pub fn reload_every(mut self, value: Duration) -> Self {
        self.reload_every = value;
        self
    }

    /// Reads the files for the first time.
    pub(super) fn open(self) -> Result<ServerTls, ConfigError> {
        if self.clients == Clients::Must && self.client_ca.is_none() {
            let why =
                "nobody's certificate could be verified: name the authorities that sign them with .client_ca(FILE)";
            return Err(ConfigError::setting("require_client_certificate", "", why));
        }
        let files = self.read()?;
        let (config, expiry) = self.config(&files)?;
        let told = Mutex::new(Told::new(files.digest(), expiry));
        Ok(ServerTls { config: ArcSwap::from_pointee(config), told, settings: self })
    }

    fn read(&self) -> Result<Files, TlsFileError> {
        let client_ca = self.client_ca.as_deref().map(tls::read).transpose()?;
        Ok(Files { cert: tls::read(&self.cert)?, key: tls::read(&self.key)?, client_ca })
    }

    /// What new connections get, and until when the certificate is good.
    fn config(&self, files: &Files) -> Result<(ServerConfig, ASN1Time), TlsFileError> {
        let identity = parse_identity((&self.cert, &files.cert), (&self.key, &files.key))?;
        let broken =
            |path: &PathBuf, why: String| TlsFileError::Malformed { path: path.clone(), what: "certificate", why };
        let leaf = identity.chain.first().map_or(&[][..], |leaf| leaf);
        let expiry = parse_x509_certificate(leaf).map_err(|error| broken(&self.cert, error.to_string()))?;
        let expiry = expiry.1.validity().not_after;

        let builder = ServerConfig::builder_with_provider(provider());
        let builder =
            builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(|it| broken(&self.cert, it.to_string()))?;
        let mut config = match (&self.client_ca, &files.client_ca) {
            (Some(path), Some(bundle)) => {
                let mut roots = RootCertStore::empty();
                for authority in parse_certificates(path, bundle)? {
                    roots.add(authority).map_err(|error| broken(path, error.to_string()))?;
                }
                let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                if self.clients == Clients::May {
                    verifier = verifier.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(verifier.build().map_err(|error| broken(path, error.to_string()))?)
            }
            _ => builder.with_no_client_auth(),
        }
        .with_single_cert(identity.chain, identity.key)
        .map_err(|error| broken(&self.cert, error.to_string()))?;
        if self.client_ca.is_some() {
            // A resumed session would skip the look at the certificate.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
        Ok((config, expiry))
    }
}

/// What the files hold at one moment.
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    /// Tells two states of the files apart, without keeping the key.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// The TLS of a listener.
pub(crate) struct ServerTls {
    settings: GatewayTls,
    config: ArcSwap<ServerConfig>,
    told: Mutex<Told>,
}

impl ServerTls {
    /// What a connection that begins now gets.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The name of HTTP/2 in ALPN.
pub(super) const ALPN_H2: &[u8] = b"h2";

/// Agreed on only with who knows no better, to be told so in words and not by an alert.
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Renewed certificates are not in a hurry, and who renews them by hand does not want to wait.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
