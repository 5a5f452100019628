//! Who may register, as it is written down: in code, or in a file that is read again when it changes.

mod edit;
mod file;
mod pattern;
mod token;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

pub use self::{
    file::{RegistrationFile, RegistrationFileError},
    token::{RegistrationToken, TokenRecord},
};
pub(super) use self::{
    file::{check_live, check_name, parse, read},
    pattern::Pattern,
    token::{PREFIX, shown_time},
};

/// Who may register at a gateway, and as what. Nobody whom no rule names.
///
/// A backend proves who it is with a token, or with the certificate of its TLS connection. Either leads to one rule,
/// which says what it may be: services, instance ids, routing keys, how many.
///
/// # Examples
/// ```no_run
/// # use grpcrouter_runtime::{ConfigError, Gateway, RegistrationPolicy, RegistrationRule, codegen::Router};
/// # fn example<R: Router>() -> Result<(), ConfigError> {
/// // The file that `grpcrouter token create` writes:
/// Gateway::builder().add_router::<R>().registration(RegistrationPolicy::file("registration.toml")).build()?;
/// // Or in code, here for the holder of one certificate:
/// let rule = RegistrationRule::new("site-a").services(["shop.*"]).certificate("spiffe://hospital.example/site-a");
/// Gateway::builder().add_router::<R>().registration(RegistrationPolicy::rules([rule])).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct RegistrationPolicy {
    pub(super) file: Option<PathBuf>,
    pub(super) rules: Vec<RegistrationRule>,
}

impl RegistrationPolicy {
    /// The rules of a TOML file, which [`RegistrationFile`] tells. It is looked at every half second: what it says holds
    /// within a second, also for who is connected. While it cannot be read or has a mistake the last good rules hold, and
    /// a line in the log says why.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), rules: Vec::new() }
    }

    /// These rules.
    pub fn rules(rules: impl IntoIterator<Item = RegistrationRule>) -> Self {
        Self { file: None, rules: rules.into_iter().collect() }
    }

    /// One rule more, beside those of the file.
    pub fn allow(mut self, rule: RegistrationRule) -> Self {
        self.rules.push(rule);
        self
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

/// What one principal may register, and by what it is known.
///
/// In patterns `*` stands for any text. Nothing is checked before [`GatewayBuilder::build`](crate::GatewayBuilder::build).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrationRule {
    /// Who this is about: letters, digits, `.`, `_` and `-`. It stands in logs and in the list of instances.
    pub name: String,
    /// The services that it may answer: names or patterns, such as `shop.Orders` or `shop.*`.
    pub services: Vec<String>,
    /// The instance ids that it may have: names or patterns. At first `*`, any that nobody else has.
    pub instances: Vec<String>,
    /// The routing keys that it may declare beside its instance id: names or patterns. At first none.
    pub routing_keys: Vec<String>,
    /// So many different instance ids at once; 16 at first.
    pub max_instances: usize,
    /// From then on it may not register any more.
    pub expires: Option<SystemTime>,
    /// The URIs of certificates that prove this principal: such as `spiffe://hospital.example/site-a`. A certificate must
    /// be verified by TLS, be meant for clients, and name exactly one URI; its common name means nothing. With a pattern,
    /// such as `spiffe://hospital.example/*`, each URI is a principal of its own with these permissions. Where several
    /// rules fit, one that names the URI itself comes first, then the order of the rules. An instance is cut off when the
    /// certificate that it came with ends.
    pub certificates: Vec<String>,
    /// The tokens that prove this principal; two that hold at the same time at most.
    pub tokens: Vec<TokenRecord>,
}

impl RegistrationRule {
    /// Permits nothing yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            services: Vec::new(),
            instances: vec!["*".to_owned()],
            routing_keys: Vec::new(),
            max_instances: MAX_INSTANCES,
            expires: None,
            certificates: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Sets [`services`](Self::services).
    pub fn services<T: Into<String>>(self, patterns: impl IntoIterator<Item = T>) -> Self {
        Self { services: texts(patterns), ..self }
    }

    /// Sets [`instances`](Self::instances).
    pub fn instances<T: Into<String>>(self, patterns: impl IntoIterator<Item = T>) -> Self {
        Self { instances: texts(patterns), ..self }
    }

    /// Sets [`routing_keys`](Self::routing_keys).
    pub fn routing_keys<T: Into<String>>(self, patterns: impl IntoIterator<Item = T>) -> Self {
        Self { routing_keys: texts(patterns), ..self }
    }

    /// Sets [`max_instances`](Self::max_instances).
    pub fn max_instances(self, most: usize) -> Self {
        Self { max_instances: most, ..self }
    }

    /// Sets [`expires`](Self::expires).
    pub fn expires(self, at: SystemTime) -> Self {
        Self { expires: Some(at), ..self }
    }

    /// Adds one to [`certificates`](Self::certificates).
    pub fn certificate(mut self, uri: impl Into<String>) -> Self {
        self.certificates.push(uri.into());
        self
    }

    /// Adds one to [`tokens`](Self::tokens).
    pub fn token(mut self, record: TokenRecord) -> Self {
        self.tokens.push(record);
        self
    }

    /// How many of its tokens hold now.
    pub(super) fn live_tokens(&self, now: SystemTime) -> impl Iterator<Item = &TokenRecord> {
        self.tokens.iter().filter(move |token| token.is_live(now))
    }
}

fn texts<T: Into<String>>(patterns: impl IntoIterator<Item = T>) -> Vec<String> {
    patterns.into_iter().map(Into::into).collect()
}

/// A fleet of a team; a larger one says so.
pub(super) const MAX_INSTANCES: usize = 16;

/// The old token and the one that replaces it.
pub(super) const MAX_LIVE_TOKENS: usize = 2;
