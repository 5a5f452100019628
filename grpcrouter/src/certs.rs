//! `grpcrouter certs dev DIR`: a CA of one's own, a server's and a client's certificate, to try TLS and mTLS out with.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::output;

/// What `certs` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a CA, a server's and a client's certificate, for development alone
    Dev(DevArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Such as:
  grpcrouter certs dev certs --host gateway.example.com
  grpcrouter gateway --tls-cert certs/server.pem --tls-key certs/server-key.pem --client-ca certs/ca.pem …
  grpcrouter agent --ca-file certs/ca.pem --client-cert certs/client.pem --client-key certs/client-key.pem …

The key of the CA is not written down: what it signed stays all that it signed.")]
struct DevArgs {
    /// The directory to write to; it is made where it is missing
    directory: PathBuf,
    /// A name or an IP address of the server, beside localhost, 127.0.0.1 and ::1; again for another one
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    host: Vec<String>,
    /// Who the client is: the URI in its certificate, by which a gateway's policy knows it
    #[arg(long, value_name = "URI", default_value = "spiffe://dev.example/agent")]
    client_uri: String,
    /// For how many days they hold
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
}

/// Writes the files.
///
/// # Errors
/// One of them is there already, a name is none, or the directory cannot be written to.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Dev(args) = args.command;
    let made = make(&args)?;
    std::fs::create_dir_all(&args.directory)
        .with_context(|| format!("the directory {} cannot be made", args.directory.display()))?;
    for (name, _) in &made {
        let path = args.directory.join(name);
        if path.exists() {
            bail!("{} is there already and is not overwritten; remove it, or name another directory", path.display());
        }
    }
    for (name, pem) in &made {
        let path = args.directory.join(name);
        write(&path, pem).with_context(|| format!("{} cannot be written", path.display()))?;
        output::line(path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All files, by name.
fn make(args: &DevArgs) -> anyhow::Result<Vec<(&'static str, String)>> {
    let ca_key = KeyPair::generate()?;
    let mut ca = params("grpcrouter development CA", args.days, Vec::new());
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let mut names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::from([127, 0, 0, 1])),
        SanType::IpAddress(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])),
    ];
    for host in &args.host {
        names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if is_name(host) => SanType::DnsName(host.as_str().try_into()?),
            Err(_) => bail!("--host {host:?} is neither a host name nor an IP address"),
        });
    }
    let (server, server_key) =
        signed("grpcrouter development gateway", args.days, names, ExtendedKeyUsagePurpose::ServerAuth, &issuer)?;
    if !args.client_uri.contains("://") || !args.client_uri.is_ascii() {
        bail!("--client-uri {:?} is no URI; write one such as spiffe://example.com/agent", args.client_uri);
    }
    let who = vec![SanType::URI(args.client_uri.as_str().try_into()?)];
    let (client, client_key) =
        signed("grpcrouter development agent", args.days, who, ExtendedKeyUsagePurpose::ClientAuth, &issuer)?;
    Ok(vec![
        ("ca.pem", ca_pem),
        ("server.pem", server.pem()),
        ("server-key.pem", server_key.serialize_pem()),
        ("client.pem", client.pem()),
        ("client-key.pem", client_key.serialize_pem()),
    ])
}

fn signed(
    name: &str,
    days: u16,
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'_, KeyPair>,
) -> anyhow::Result<(Certificate, KeyPair)> {
    let key = KeyPair::generate()?;
    let mut params = params(name, days, names);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, issuer)?, key))
}

fn params(name: &str, days: u16, names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names;
    let now = SystemTime::now();
    // Clocks that are a little behind take it too.
    params.not_before = (now - Duration::from_secs(300)).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 86_400)).into();
    params
}

fn is_name(host: &str) -> bool {
    let label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let host = host.strip_prefix("*.").unwrap_or(host);
    host.len() <= 253 && host.split('.').all(label)
}

/// A new file; a key is its owner's alone from the start.
fn write(path: &Path, pem: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let is_key = path.file_name().is_some_and(|name| name.to_string_lossy().contains("-key."));
        options.mode(if is_key { 0o600 } else { 0o644 });
    }
    options.open(path)?.write_all(pem.as_bytes())
}
