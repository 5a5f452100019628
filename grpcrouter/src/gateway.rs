//! `grpcrouter gateway`: flags come before the environment, and that before the file; together they are a builder.
//! Any service is carried as bytes, by its descriptors, by what the file says of it, or as instances register it.

mod config;
mod start;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::ArgAction;
use clap::builder::FalseyValueParser;

use self::config::{Address, Config, Registration, Routes, Span, Tls};
use crate::{output, values};

/// What `gateway` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A file with settings, TOML; flags and the environment come before it
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_CONFIG")]
    config: Option<PathBuf>,
    /// Where backends and clients reach this gateway; 127.0.0.1:8080 if not given, port 0 is any free one
    #[arg(long, value_name = "HOST:PORT", env = "GRPCROUTER_LISTEN", value_parser = Address::parse)]
    listen: Option<Address>,
    /// Where backends register, if not where clients call
    #[arg(long, value_name = "HOST:PORT", env = "GRPCROUTER_REGISTER_LISTEN", value_parser = Address::parse)]
    register_listen: Option<Address>,
    /// Where `grpcrouter instances` and `services` ask; a loopback address, nowhere if not given
    #[arg(long, value_name = "HOST:PORT", env = "GRPCROUTER_ADMIN_LISTEN", value_parser = Address::parse)]
    admin_listen: Option<Address>,
    /// Where Prometheus asks; nowhere if not given
    #[arg(long, value_name = "HOST:PORT", env = "GRPCROUTER_METRICS_LISTEN", value_parser = Address::parse)]
    metrics_listen: Option<Address>,
    /// The gateway's certificate and its chain, PEM: clients and backends speak TLS then
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, PEM
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities that sign the certificates of clients and backends, PEM
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_CLIENT_CA")]
    client_ca: Option<PathBuf>,
    /// Who may register: the file that `grpcrouter token` writes
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_REGISTRATION")]
    registration: Option<PathBuf>,
    /// Serve the services of this descriptor set that have the option (grpcrouter.routes_to); may be given several times
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_DESCRIPTOR_SET", value_delimiter = ',')]
    descriptor_set: Vec<PathBuf>,
    /// Serve whatever service a backend registers
    #[arg(long, env = "GRPCROUTER_ANY_SERVICE", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    any_service: bool,
    /// With --any-service: the metadata entry that names the instance
    #[arg(long, value_name = "KEY", env = "GRPCROUTER_ANY_SERVICE_KEY")]
    any_service_key: Option<String>,
    /// How long running calls may go on when the gateway is told to stop; 30s if not given
    #[arg(long, value_name = "TIME", env = "GRPCROUTER_DRAIN_TIMEOUT", value_parser = values::duration)]
    drain_timeout: Option<Duration>,
    /// Where backends reach this gateway, https://HOST or http://HOST:PORT: its name in the lists of the others
    #[arg(long, value_name = "URI", env = "GRPCROUTER_ADVERTISE")]
    advertise: Option<String>,
    /// Another gateway that backends are to register at too, as it is advertised; may be given several times
    #[arg(long, value_name = "URI", env = "GRPCROUTER_PEER", value_delimiter = ',')]
    peer: Vec<String>,
    /// The same for a gateway at each address that DNS has for this name, looked up every 30 s: http://NAME:PORT
    #[arg(long, value_name = "URI", env = "GRPCROUTER_PEERS_DNS", conflicts_with = "peer")]
    peers_dns: Option<String>,
    /// Listen where others than this machine reach it, though it has no TLS or does not ask who registers
    #[arg(long, env = "GRPCROUTER_INSECURE", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    insecure: bool,
    /// To try things out on this machine: any service, no TLS, no tokens, loopback only
    #[arg(long, conflicts_with_all = ["config", "tls_cert", "client_ca", "registration", "insecure"])]
    dev: bool,
    /// Check all settings and the files that they name, and end
    #[arg(long)]
    check_config: bool,
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// Settings that cannot be meant; an address where it cannot listen.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (dev, check) = (args.dev, args.check_config);
    let file = args.config.as_ref().map(|path| path.display().to_string());
    let config = settings(args)?;
    if dev {
        say_loudly(&config);
    }
    let from_file = || file.as_ref().map_or_else(|| "the settings".to_owned(), |file| format!("the settings ({file})"));
    if check {
        start::build(&config, start::address(&config)).with_context(from_file)?;
        output::line(format_args!("grpcrouter gateway: {} can be used", from_file()))?;
    } else {
        start::serve(&config, dev).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The file's, with what flags and environment say in its place.
fn settings(args: Args) -> anyhow::Result<Config> {
    let mut config = args.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    config.listen = args.listen.or(config.listen);
    config.register_listen = args.register_listen.or(config.register_listen);
    config.admin_listen = args.admin_listen.or(config.admin_listen);
    config.metrics_listen = args.metrics_listen.or(config.metrics_listen);
    config.insecure = args.insecure.then_some(true).or(config.insecure);
    config.drain_timeout = args.drain_timeout.map(Span).or(config.drain_timeout);
    config.advertise = args.advertise.or(config.advertise);
    if !args.peer.is_empty() || args.peers_dns.is_some() {
        // Either takes the place of both.
        (config.peers, config.peers_dns) = (args.peer, args.peers_dns);
    }
    if let (Some(cert), Some(key)) = (args.tls_cert, args.tls_key) {
        config.tls = Some(Tls { cert, key, client_ca: None, require_client_certificate: false, reload_every: None });
    }
    if let Some(client_ca) = args.client_ca {
        let tls = config.tls.as_mut().context("--client-ca needs TLS: give --tls-cert and --tls-key too")?;
        tls.client_ca = Some(client_ca);
    }
    config.registration = args.registration.map(|file| Registration { file }).or(config.registration);
    if !args.descriptor_set.is_empty() {
        config.descriptor_sets = args.descriptor_set;
    }
    if args.any_service || args.dev {
        config.any_service.get_or_insert_default();
    }
    if let Some(key) = args.any_service_key {
        let any: &mut Routes =
            config.any_service.as_mut().context("--any-service-key is for --any-service: give both")?;
        any.routing_key = Some(key);
    }
    if args.dev {
        config.admin_listen.get_or_insert(Address::parse(DEV_ADMIN).map_err(io::Error::other)?);
    }
    Ok(config)
}

fn say_loudly(config: &Config) {
    anstream::eprintln!(
        "grpcrouter gateway: --dev: NO TLS, NO TOKENS, NO CREDENTIALS. Every program on this machine can call every \
         service at {} and register as any backend. Only to try things out.",
        start::address(config)
    );
}

/// Where `grpcrouter instances` asks if it is not told.
const DEV_ADMIN: &str = "127.0.0.1:9091";

const AFTER_HELP: &str = "Every setting can be in the file of --config: examples/gateway.toml explains them, and has \
those for single services, callers and limits, which have no flag.

SIGTERM or ctrl-c: running calls finish, then the gateway ends with code 0. A second signal ends it at once.";

#[cfg(test)]
mod tests;
