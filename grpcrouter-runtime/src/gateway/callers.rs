//! Who may call: tokens and API keys, rules for methods, limits. What is set here is made into a [`Gate`] once, which
//! looks at each call before its route does.

mod api_keys;
mod caller;
mod jwks;
mod jwt;
mod layer;
mod limits;
mod method;
mod rules;
mod shown;
mod watched;

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;

pub use self::{
    api_keys::ApiKey,
    caller::Who,
    jwt::JwtIssuer,
    layer::{CallersBody, CallersFuture, CallersLayer, CallersService},
    limits::{By, RateLimit},
};
use self::{
    api_keys::ApiKeys,
    caller::Caller,
    jwt::Issuer,
    limits::{Limits, When},
    method::called,
    rules::Rules,
    shown::Shown,
    watched::Watched,
};
use super::pass::{Asked, Gate, Held, Pass};
use crate::{error::ConfigError, metadata::Vouched, status::Answer};

/// Which clients may call, and how often: for [`GatewayBuilder::callers`](crate::GatewayBuilder::callers), or as a
/// [`layer`](Self::layer) for a server of your own.
///
/// * **Credentials** are a JSON Web Token, `authorization: Bearer <token>`, or an API key, `authorization: Bearer grk_..`
///   or `x-api-key: grk_..`. With neither set, nobody is asked who it is, and only the limits hold.
/// * **Every method needs good credentials**, but for `grpc.health.v1.Health/*`, which is open unless a rule says
///   otherwise, and those that [`rule`](Self::rule) or [`allow_anonymous`](Self::allow_anonymous) name.
/// * **Without them** a call is answered UNAUTHENTICATED, with good ones for the wrong method PERMISSION_DENIED, whether
///   there is such a method or not; no instance sees it.
/// * **The service is told** who calls in the metadata entry `x-grpcrouter-principal`: `jwt:SUBJECT` or `key:NAME`, what a
///   header cannot hold percent-encoded. Nobody else can set that entry, and without a proof it is not there.
/// * **Credentials end here**: what this gateway has accepted is taken out, for an instance that has a caller's token
///   could use it. What is not for this gateway crosses untouched. See
///   [`consume_credentials`](Self::consume_credentials).
///
/// Calls from inside of the gateway's own process are not asked, nor are instances that register.
///
/// # Examples
/// ```no_run
/// # use grpcrouter_runtime::{By, Callers, ConfigError, Gateway, GatewayBuilder, JwtIssuer, RateLimit, Who};
/// # fn example(builder: GatewayBuilder) -> Result<Gateway, ConfigError> {
/// let callers = Callers::new()
///     .jwt(JwtIssuer::new("https://login.example.org").audience("shop").jwks_file("/etc/grpcrouter/jwks.json"))
///     .api_keys_file("/etc/grpcrouter/api-keys.toml")
///     .allow_anonymous("grpc.reflection.v1.ServerReflection/*")
///     .rule("shop.Orders/Cancel", Who::scope("orders.write"))
///     .rule("shop.Admin/*", Who::principal("key:ops-*"))
///     .limit(RateLimit::per_second(100).burst(20).key(By::Principal));
/// builder.callers(callers).build()
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is checked before it is given to a gateway or made a layer"]
pub struct Callers {
    issuers: Vec<JwtIssuer>,
    api_keys_file: Option<PathBuf>,
    rules: Vec<(String, Who)>,
    limits: Vec<RateLimit>,
    consume: bool,
    every: Duration,
}

impl Callers {
    /// Asks nobody yet: say whose credentials are good.
    pub fn new() -> Self {
        Self {
            issuers: Vec::new(),
            api_keys_file: None,
            rules: Vec::new(),
            limits: Vec::new(),
            consume: true,
            every: LOOK_EVERY,
        }
    }

    /// Takes tokens of this issuer. May be set several times.
    pub fn jwt(mut self, issuer: JwtIssuer) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// Takes the API keys of this file. It is read again when it changes; a bad one is refused with a warning, and the old
    /// keys hold. Two keys of one name may be good at a time, so that one can follow the other.
    ///
    /// ```toml
    /// [[key]]
    /// name = "shop-frontend"                 # the service is told key:shop-frontend
    /// id = "7Qd0aVbC2e"                      # what stands between the first two _ of the key
    /// hash = "sha256:8c5e.."                 # of the whole key: printf %s "$KEY" | sha256sum
    /// scopes = ["orders.read"]               # none if it is not there
    /// expires = 2027-02-19T18:00:00Z         # never if it is not there
    /// ```
    ///
    /// [`ApiKey::generate`] makes a key and its entry.
    pub fn api_keys_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.api_keys_file = Some(path.into());
        self
    }

    /// Lets everybody call these methods, also without credentials: a [`rule`](Self::rule) for [`Who::Anybody`].
    pub fn allow_anonymous(self, methods: impl Into<String>) -> Self {
        self.rule(methods, Who::Anybody)
    }

    /// Says who may call these methods: `package.Service/Method`, `package.Service/*`, `package.*` or `*`. Where several
    /// rules hold a method, the narrowest decides, in whatever order they are set. A path prefix or a routing key before
    /// the service does not belong to the name.
    pub fn rule(mut self, methods: impl Into<String>, who: Who) -> Self {
        self.rules.push((methods.into(), who));
        self
    }

    /// Limits calls. May be set several times: a call must be within each limit that counts it. Those of health,
    /// reflection and open methods count too.
    pub fn limit(mut self, limit: RateLimit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Whether credentials that were accepted here are taken out of the call. Default true: who has a caller's token can
    /// call in its name, and the service has `x-grpcrouter-principal`. With false they cross untouched, for a service
    /// that checks them itself. Entries that this gateway did not take as credentials always cross, but for what looks
    /// like an API key of its own.
    pub fn consume_credentials(mut self, on: bool) -> Self {
        self.consume = on;
        self
    }

    /// How often the files of keys are looked at, by a call that comes then. Default 1 s: a key that is withdrawn is good
    /// for no longer. Looking costs some microseconds.
    pub fn reload_every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// The same checks as a tower layer, for a tonic or axum server that serves routers, or anything else in gRPC.
    ///
    /// # Errors
    /// What cannot be meant, and files that cannot be used, as [`build`](crate::GatewayBuilder::build) would tell them.
    pub fn layer(&self) -> Result<CallersLayer, ConfigError> {
        Ok(CallersLayer::new(self.gate()?))
    }

    /// All of it, checked and ready.
    pub(super) fn gate(&self) -> Result<Arc<dyn Gate>, ConfigError> {
        let issuer = |set| {
            Issuer::new(set, self.every).map_err(|(setting, value, why)| ConfigError::setting(setting, value, why))
        };
        let issuers: Vec<Issuer> = self.issuers.iter().map(issuer).collect::<Result<_, _>>()?;
        for (at, issuer) in issuers.iter().enumerate() {
            let before = issuers.iter().take(at);
            if before.clone().any(|other| other.name() == issuer.name()) {
                let why = "two issuers have this name, and their callers could not be told apart: set .name(..)";
                return Err(ConfigError::setting("name", issuer.name(), why));
            }
            if before.clone().any(|other| other.issuer() == issuer.issuer()) {
                return Err(ConfigError::setting("jwt", issuer.issuer(), "it is set twice: give it one file of keys"));
            }
        }
        let keys = self.api_keys_file.as_ref().map(|path| {
            let open = Watched::open(path, self.every, ApiKeys::read);
            open.map_err(|why| ConfigError::setting("api_keys_file", path.display(), why))
        });
        let keys = keys.transpose()?;
        let asks = !issuers.is_empty() || keys.is_some();
        let rules = Rules::new(&self.rules, asks).map_err(|(rule, why)| ConfigError::setting("rule", rule, why))?;
        let limits = Limits::new(&self.limits).map_err(|(value, why)| ConfigError::setting("limit", value, why))?;
        let accepted = accepted(&issuers, keys.is_some());
        Ok(Arc::new(Gatekeeper { issuers, keys, rules, limits, consume: self.consume, accepted }))
    }
}

impl Default for Callers {
    fn default() -> Self {
        Self::new()
    }
}

/// Looks at each call.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    issuers: Vec<Issuer>,
    keys: Option<Watched<ApiKeys>>,
    rules: Rules,
    limits: Limits,
    consume: bool,
    /// What to send, for who sent nothing.
    accepted: String,
}

impl Gate for Gatekeeper {
    fn check(&self, asked: &Asked<'_>) -> Result<Pass, Answer> {
        let method = called(asked.path);
        let mut held = Held::new();
        self.limits.take(When::BeforeCredentials, asked, method, None, &mut held)?;
        let who = self.rules.of(method);
        let (caller, spent) = match Shown::read(asked.headers, self.keys.is_some(), !self.issuers.is_empty()) {
            Ok(None) if who.is_anybody() => (None, None),
            Ok(None) if self.accepted.is_empty() => {
                return Err(Answer::not_allowed("anybody", method, &who.to_string()));
            }
            Ok(None) => return Err(Answer::no_credentials(method, &self.accepted)),
            Ok(Some(shown)) => match self.verify(&shown) {
                Ok(caller) => (Some(caller), self.consume.then(|| shown.entry())),
                // What an open method gets may be for the service; our own keys are for nobody else.
                Err(_) if who.is_anybody() => {
                    let ours = self.consume && shown.is_ours();
                    (None, ours.then(|| shown.entry()))
                }
                Err(why) => return Err(Answer::bad_credentials(why)),
            },
            Err(_) if who.is_anybody() => (None, None),
            Err(why) => return Err(Answer::bad_credentials(why)),
        };
        if let Some(caller) = &caller
            && !who.holds(caller)
        {
            return Err(Answer::not_allowed(caller.principal.as_str(), method, &who.to_string()));
        }
        self.limits.take(When::After, asked, method, caller.as_deref(), &mut held)?;
        let principal = caller.map(|caller| caller.principal.clone());
        Ok(Pass { vouched: Vouched { principal, spent }, held })
    }
}

impl Gatekeeper {
    fn verify(&self, shown: &Shown<'_>) -> Result<Arc<Caller>, String> {
        match (shown, &self.keys) {
            (Shown::Key { text, .. }, Some(keys)) => keys.current().verify(text),
            (Shown::Token(text), _) if !self.issuers.is_empty() => jwt::verify(&self.issuers, text),
            _ => Err(format!("these credentials are of a kind that is not taken here: send {}", self.accepted)),
        }
    }
}

fn accepted(issuers: &[Issuer], keys: bool) -> String {
    let mut accepted: Vec<String> = issuers
        .iter()
        .map(|issuer| {
            format!("the metadata entry \"authorization: Bearer <token>\" with a token of {}", issuer.issuer())
        })
        .collect();
    if keys {
        accepted.push("the metadata entry \"x-api-key: grk_..\" with an API key of this gateway".to_owned());
    }
    accepted.join(", or ")
}

/// Where an API key may be beside `authorization`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Looked at by one call a second, nobody feels it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
