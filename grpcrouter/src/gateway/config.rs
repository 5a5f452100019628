//! The file of `grpcrouter gateway --config`, as it is written down. `examples/gateway.toml` explains each key.
//! What is not known, or has a wrong value, is told with its line; nothing is passed over.

mod callers;
mod services;
mod value;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

pub(super) use self::callers::Callers;
pub(super) use self::services::{Routes, Service};
pub(super) use self::value::{Address, Span};

/// All of it. What is not there has the default of the library's builder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) listen: Option<Address>,
    pub(super) register_listen: Option<Address>,
    pub(super) admin_listen: Option<Address>,
    pub(super) metrics_listen: Option<Address>,
    pub(super) insecure: Option<bool>,
    pub(super) drain_timeout: Option<Span>,
    pub(super) advertise: Option<String>,
    #[serde(default)]
    pub(super) peers: Vec<String>,
    pub(super) peers_dns: Option<String>,
    pub(super) health: Option<bool>,
    pub(super) reflection: Option<bool>,
    #[serde(default)]
    pub(super) descriptor_sets: Vec<PathBuf>,
    pub(super) any_service: Option<Routes>,
    #[serde(default)]
    pub(super) services: BTreeMap<String, Service>,
    pub(super) tls: Option<Tls>,
    pub(super) register_tls: Option<Tls>,
    pub(super) registration: Option<Registration>,
    pub(super) callers: Option<Callers>,
    #[serde(default)]
    pub(super) limits: Limits,
}

/// `[tls]` and `[register_tls]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
    #[serde(default)]
    pub(super) require_client_certificate: bool,
    pub(super) reload_every: Option<Span>,
}

/// `[registration]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    pub(super) file: PathBuf,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) max_connections: Option<usize>,
    pub(super) max_connections_per_address: Option<usize>,
    pub(super) opening_timeout: Option<Span>,
    pub(super) idle_timeout: Option<Span>,
    pub(super) keepalive: Option<Keepalive>,
    pub(super) max_calls: Option<usize>,
    pub(super) max_open_calls: Option<u32>,
    pub(super) resume_window: Option<Span>,
    pub(super) max_message_size: Option<usize>,
    pub(super) max_parked_calls: Option<usize>,
    pub(super) window_memory: Option<u64>,
    pub(super) max_health_watches: Option<usize>,
    pub(super) eject_after: Option<u32>,
}

/// `keepalive = { every = "60s", patience = "20s" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keepalive {
    pub(super) every: Span,
    pub(super) patience: Span,
}

impl Config {
    /// Reads a file. Names of files in it are looked for beside it.
    ///
    /// # Errors
    /// It cannot be read; something in it is not known or cannot be meant: with its line and column.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read {}; give --config the file to use", path.display()))?;
        let mut config = Self::parse(&text).map_err(|wrong| anyhow::anyhow!("{}:{wrong}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.paths().for_each(|path| *path = folder.join(&*path));
        Ok(config)
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| told(text, &error))
    }

    /// Every name of a file in it.
    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let tls = self.tls.iter_mut().chain(&mut self.register_tls);
        let tls = tls.flat_map(|tls| [Some(&mut tls.cert), Some(&mut tls.key), tls.client_ca.as_mut()]);
        let registration = self.registration.iter_mut().map(|registration| &mut registration.file);
        let callers = self.callers.iter_mut().flat_map(Callers::paths);
        self.descriptor_sets.iter_mut().chain(tls.flatten()).chain(registration).chain(callers)
    }
}

/// `LINE:COLUMN: what is wrong; what to do`.
fn told(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let message = error.message().trim_end().replace('\n', "; ");
    let near = nearest(&message).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("{line}:{column}: {message}{near}")
}

/// Of "unknown field `x`, expected one of `a`, `b`", which of those is most like x.
fn nearest(message: &str) -> Option<&str> {
    let mut names = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    let likeness = |name: &str| strsim::jaro_winkler(unknown, name);
    names.filter(|name| likeness(name) > 0.8).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

#[cfg(test)]
mod tests;
