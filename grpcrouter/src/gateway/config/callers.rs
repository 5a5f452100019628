//! Who may call, and how often, as the file says it.

use std::path::PathBuf;

use grpcrouter_runtime::{By, JwtIssuer, RateLimit, Who};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// `[callers]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct Callers {
    api_keys_file: Option<PathBuf>,
    consume_credentials: Option<bool>,
    #[serde(default)]
    jwt: Vec<Jwt>,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    limits: Vec<Limit>,
}

/// `[[callers.jwt]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwt {
    issuer: String,
    audiences: Vec<String>,
    jwks_file: PathBuf,
    name: Option<String>,
    scope_claim: Option<String>,
}

/// `[[callers.rules]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    methods: String,
    who: Vec<Whom>,
}

/// `[[callers.limits]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    #[serde(default = "all_methods")]
    methods: String,
    /// Of calls in time or at once, at least one.
    rate: Rate,
    burst: Option<u32>,
    concurrency: Option<usize>,
    key: Option<Key>,
    most_keys: Option<usize>,
}

/// One of those whom a rule lets in.
#[derive(Debug, Clone)]
struct Whom(Who);

/// `100/s`, `600/m`, or how many at once.
#[derive(Debug, Clone, Copy)]
enum Rate {
    PerSecond(u32),
    PerMinute(u32),
    Concurrent(usize),
}

#[derive(Debug, Clone)]
struct Key(By);

impl Callers {
    /// As the library takes them.
    pub(in crate::gateway) fn callers(&self) -> grpcrouter_runtime::Callers {
        let mut callers = grpcrouter_runtime::Callers::new();
        if let Some(file) = &self.api_keys_file {
            callers = callers.api_keys_file(file);
        }
        if let Some(consume) = self.consume_credentials {
            callers = callers.consume_credentials(consume);
        }
        callers = self.jwt.iter().fold(callers, |callers, jwt| callers.jwt(jwt.issuer()));
        for Rule { methods, who } in &self.rules {
            let mut who: Vec<Who> = who.iter().map(|Whom(who)| who.clone()).collect();
            let who = if who.len() == 1 { who.remove(0) } else { Who::AnyOf(who) };
            callers = callers.rule(methods, who);
        }
        self.limits.iter().fold(callers, |callers, limit| callers.limit(limit.limit()))
    }

    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.api_keys_file.iter_mut().chain(self.jwt.iter_mut().map(|jwt| &mut jwt.jwks_file))
    }
}

impl Jwt {
    fn issuer(&self) -> JwtIssuer {
        let mut issuer = JwtIssuer::new(&self.issuer).jwks_file(&self.jwks_file);
        for audience in &self.audiences {
            issuer = issuer.audience(audience);
        }
        if let Some(name) = &self.name {
            issuer = issuer.name(name);
        }
        if let Some(claim) = &self.scope_claim {
            issuer = issuer.scope_claim(claim);
        }
        issuer
    }
}

impl Limit {
    fn limit(&self) -> RateLimit {
        let mut limit = match self.rate {
            Rate::PerSecond(calls) => RateLimit::per_second(calls),
            Rate::PerMinute(calls) => RateLimit::per_minute(calls),
            Rate::Concurrent(calls) => RateLimit::concurrent(calls),
        };
        limit = limit.methods(&self.methods);
        if let Some(burst) = self.burst {
            limit = limit.burst(burst);
        }
        if let Some(calls) = self.concurrency {
            limit = limit.concurrency(calls);
        }
        if let Some(Key(key)) = &self.key {
            limit = limit.key(key.clone());
        }
        if let Some(keys) = self.most_keys {
            limit = limit.most_keys(keys);
        }
        limit
    }
}

impl<'de> Deserialize<'de> for Whom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self(match text.as_str() {
            "anybody" => Who::Anybody,
            "verified" => Who::Verified,
            "nobody" => Who::Nobody,
            _ => match text.strip_prefix("scope:") {
                Some(scope) => Who::scope(scope),
                None if text.contains(':') => Who::principal(text),
                None => {
                    let what = "write anybody, verified, nobody, scope:NAME, key:NAME or jwt:SUBJECT";
                    return Err(D::Error::custom(format!("{text:?} is nobody that a rule knows; {what}")));
                }
            },
        }))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom(format!("{text:?} is no rate; write 100/s, 600/m or \"20 at once\""));
        if let Some(calls) = text.strip_suffix(" at once") {
            return calls.parse().map(Self::Concurrent).map_err(|_| wrong());
        }
        let (calls, unit) = text.split_once('/').ok_or_else(wrong)?;
        let calls = calls.parse().map_err(|_| wrong())?;
        match unit {
            "s" => Ok(Self::PerSecond(calls)),
            "m" => Ok(Self::PerMinute(calls)),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self(match text.as_str() {
            "principal" => By::Principal,
            "address" => By::Address,
            "method" => By::Method,
            _ => match text.strip_prefix("metadata:") {
                Some(entry) if !entry.is_empty() => By::Metadata(entry.to_owned()),
                _ => {
                    let what = "write principal, address, method or metadata:NAME";
                    return Err(D::Error::custom(format!("{text:?} is nothing to count calls by; {what}")));
                }
            },
        }))
    }
}

fn all_methods() -> String {
    "*".to_owned()
}
