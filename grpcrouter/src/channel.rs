//! The connection of the subcommands that ask somebody: to a gateway, or to its admin listener.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Whom `call` asks, and whom to trust there.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GatewayArgs {
    /// The gateway to ask: https://HOST, or http://HOST:PORT without TLS
    #[arg(long, value_name = "URL", env = "GRPCROUTER_GATEWAY", default_value = "http://127.0.0.1:8080")]
    pub(crate) gateway: String,
    /// PEM certificates of CAs to trust beside those of the system
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl GatewayArgs {
    /// # Errors
    /// Nobody answers there, and what to do.
    pub(crate) async fn connect(&self) -> anyhow::Result<Channel> {
        connect(&self.gateway, self.ca_file.as_deref(), "the gateway").await
    }
}

/// Connects to `who` at `url`.
///
/// # Errors
/// The URL is none, or nobody answers there, and what to do.
pub(crate) async fn connect(url: &str, ca_file: Option<&Path>, who: &str) -> anyhow::Result<Channel> {
    let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    if !is_url(url) {
        return Err(anyhow!("{url:?} is no address of {who}: write http://{url}, or https://{url} with TLS"));
    }
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|_| anyhow!("{url:?} is no address of {who}: write http://HOST:PORT or https://HOST"))?
        .user_agent(concat!("grpcrouter/", env!("CARGO_PKG_VERSION")))?
        .connect_timeout(CONNECT_TIMEOUT);
    if url.starts_with("https://") {
        let mut tls = ClientTlsConfig::new().with_native_roots();
        if let Some(path) = ca_file {
            let pem = std::fs::read(path).with_context(|| format!("--ca-file {} cannot be read", path.display()))?;
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        endpoint = endpoint.tls_config(tls).context("TLS cannot be set up")?;
    }
    endpoint.connect().await.map_err(|error| {
        // The outermost text says only that it was the transport.
        let mut why = String::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            why = error.to_string();
            cause = error.source();
        }
        anyhow!("{who} at {url} cannot be reached: {why}; {}", hint(url, &why))
    })
}

fn hint(url: &str, why: &str) -> &'static str {
    if why.contains("certificate") || why.contains("UnknownIssuer") {
        "name its CA with --ca-file"
    } else if url.starts_with("https://") {
        "is this its address, and does it speak TLS there?"
    } else {
        "is it running, is this its address, and is it there without TLS?"
    }
}

/// Longer than any network that works takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
