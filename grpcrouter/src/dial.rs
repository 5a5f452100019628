//! The flags of all that dials a gateway as an instance does: where it is, the way to it, and what is shown there.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::ArgAction;
use clap::builder::FalseyValueParser;
use grpcrouter_runtime::BackendBuilder;

/// How to reach a gateway and be let in.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DialArgs {
    /// The gateway to dial: https://HOST, or http://HOST:PORT without TLS; again for another one
    #[arg(long, value_name = "URL", env = "GRPCROUTER_GATEWAY", required = true, value_delimiter = ',')]
    gateway: Vec<String>,
    /// The file with the token that the gateway asks for; read again with each dial
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM certificates of CAs to trust beside those of the system
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// The PEM certificate to show to the gateway
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_CLIENT_CERT", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// The private key of --client-cert
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_CLIENT_KEY", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// The HTTP proxy to dial through: http://HOST:PORT or http://USER:PASSWORD@HOST:PORT
    #[arg(long, value_name = "URL", env = "GRPCROUTER_PROXY", hide_env_values = true)]
    proxy: Option<String>,
    /// Dial directly, whatever the environment says of proxies
    #[arg(long, conflicts_with = "proxy")]
    no_proxy: bool,
    /// Let the token go to an http:// gateway beyond this machine, where everybody on the way can read it
    #[arg(long, env = "GRPCROUTER_INSECURE", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    insecure: bool,
}

impl DialArgs {
    /// They are read again with each dial; that one was never there is told at once.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(crate) fn readable(&self) -> anyhow::Result<()> {
        let files = [
            ("--token-file", &self.token_file),
            ("--ca-file", &self.ca_file),
            ("--client-cert", &self.client_cert),
            ("--client-key", &self.client_key),
        ];
        for (flag, file) in files {
            if let Some(path) = file {
                std::fs::File::open(path).with_context(|| format!("{flag} {} cannot be read", path.display()))?;
            }
        }
        Ok(())
    }

    /// The gateways, for people.
    pub(crate) fn gateways(&self) -> String {
        self.gateway.join(", ")
    }

    /// The same, said to a builder.
    pub(crate) fn applied_to(&self, builder: BackendBuilder) -> BackendBuilder {
        let mut builder = self.gateway.iter().fold(builder, BackendBuilder::gateway);
        if let Some(file) = &self.token_file {
            builder = builder.token_file(file);
        }
        if let Some(file) = &self.ca_file {
            builder = builder.ca_file(file);
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            builder = builder.client_certificate(certificate, key);
        }
        if let Some(url) = &self.proxy {
            builder = builder.proxy(url);
        }
        if self.no_proxy {
            builder = builder.no_proxy();
        }
        if self.insecure { builder.insecure() } else { builder }
    }
}
