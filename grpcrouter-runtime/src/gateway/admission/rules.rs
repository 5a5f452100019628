//! The rules of who may register, checked and ready to be asked. Pure: time is told.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use grpcrouter_protocol::InstanceId;

use super::{credentials::Proof, refusal::Refusal};
use crate::gateway::{
    principal::Principal,
    registration::{Pattern, RegistrationRule, check_live, check_name},
    secrets::SecretHash,
};

/// All rules at one moment.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// By id: whose it is.
    tokens: HashMap<String, Token>,
}

#[derive(Debug)]
struct Rule {
    principal: Principal,
    scope: Arc<Scope>,
    expires: Option<SystemTime>,
    certificates: Vec<Pattern>,
}

#[derive(Debug)]
struct Token {
    rule: usize,
    hash: SecretHash,
    expires: Option<SystemTime>,
    is_revoked: bool,
}

/// What a principal may register.
#[derive(Debug)]
pub(super) struct Scope {
    services: Vec<Pattern>,
    instances: Vec<Pattern>,
    routing_keys: Vec<Pattern>,
    pub(super) max_instances: usize,
}

/// Somebody whose credentials are right.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) principal: Principal,
    pub(super) scope: Arc<Scope>,
    /// From then on they are not right any more.
    pub(super) until: Option<SystemTime>,
}

impl Rules {
    /// Checks the rules, each and against each other. The error says what is wrong with which.
    pub(super) fn new<'a>(
        rules: impl IntoIterator<Item = &'a RegistrationRule>,
        now: SystemTime,
    ) -> Result<Self, String> {
        let mut checked = Self::default();
        for rule in rules {
            checked.add(rule, now).map_err(|why| format!("the rule of {:?}: {why}", rule.name))?;
        }
        Ok(checked)
    }

    fn add(&mut self, rule: &RegistrationRule, now: SystemTime) -> Result<(), String> {
        check_name(&rule.name)?;
        if self.rules.iter().any(|other| other.principal.as_str() == rule.name) {
            return Err("there is another one of this name: join the two, or name one otherwise".to_owned());
        }
        if rule.max_instances == 0 {
            return Err("max_instances must be 1 or more".to_owned());
        }
        check_live(rule, now)?;
        let patterns = |list: &[String], what| match checked(list, Pattern::parse)? {
            none if none.is_empty() => Err(format!("it names no {what}, so nothing could register")),
            some => Ok(some),
        };
        let scope = Scope {
            services: patterns(&rule.services, "services")?,
            instances: patterns(&rule.instances, "instances")?,
            routing_keys: checked(&rule.routing_keys, Pattern::parse)?,
            max_instances: rule.max_instances,
        };
        for record in &rule.tokens {
            let token = Token {
                rule: self.rules.len(),
                hash: record.hash.parse().map_err(|error| format!("the hash of token {}: {error}", record.id))?,
                expires: record.expires,
                is_revoked: record.revoked.is_some(),
            };
            if self.tokens.insert(record.id.clone(), token).is_some() {
                return Err(format!("another token has the id {} too: remove one of them", record.id));
            }
        }
        self.rules.push(Rule {
            principal: Principal::new(&rule.name),
            scope: Arc::new(scope),
            expires: rule.expires,
            certificates: checked(&rule.certificates, Pattern::parse_uri)?,
        });
        Ok(())
    }

    /// How many principals there are.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whom these credentials prove.
    pub(super) fn judge(&self, proof: &Proof, now: SystemTime) -> Result<Verified, Refusal> {
        let (rule, principal, until) = match proof {
            Proof::Token { id, hash } => {
                let (token, rule) = self.token(id, hash)?;
                if token.is_revoked {
                    return Err(Refusal::RevokedToken { id: id.clone() });
                }
                (rule, rule.principal.clone(), token.expires)
            }
            Proof::Certificate { uri } => {
                let (rule, pattern) = self.certificate(uri)?;
                // Of many that one pattern lets in, each is its own.
                let principal = if pattern.is_wild() { Principal::new(uri) } else { rule.principal.clone() };
                (rule, principal, None)
            }
        };
        if let Some(at) = until.filter(|at| *at <= now) {
            return Err(Refusal::Expired { what: "this token".to_owned(), at });
        }
        if let Some(at) = rule.expires.filter(|at| *at <= now) {
            return Err(Refusal::Expired { what: format!("what {principal} may do here"), at });
        }
        let until = [until, rule.expires].into_iter().flatten().min();
        Ok(Verified { principal, scope: rule.scope.clone(), until })
    }

    fn token(&self, id: &str, hash: &SecretHash) -> Result<(&Token, &Rule), Refusal> {
        let known = self.tokens.get(id);
        // An id that nobody has is compared too, so that time does not tell.
        let is_right = *hash == known.map_or_else(SecretHash::of_nothing, |token| token.hash);
        let found = known.filter(|_| is_right).and_then(|token| Some((token, self.rules.get(token.rule)?)));
        found.ok_or_else(|| Refusal::UnknownToken { id: id.to_owned(), is_known: known.is_some() })
    }

    fn certificate(&self, uri: &str) -> Result<(&Rule, &Pattern), Refusal> {
        let mut fits = self.rules.iter().flat_map(|rule| rule.certificates.iter().map(move |pattern| (rule, pattern)));
        let exact = fits.clone().find(|(_, pattern)| !pattern.is_wild() && pattern.matches(uri));
        let fit = exact.or_else(|| fits.find(|(_, pattern)| pattern.matches(uri)));
        fit.ok_or_else(|| Refusal::UnknownCertificate { uri: uri.to_owned() })
    }
}

impl Scope {
    /// Whether `principal` may register just this.
    pub(super) fn allows<'a>(
        &self,
        principal: &Principal,
        id: &InstanceId,
        services: impl IntoIterator<Item = &'a str>,
        routing_keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Refusal> {
        let fits = |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        if let Some(service) = services.into_iter().find(|service| !fits(&self.services, service)) {
            let (principal, service) = (principal.clone(), short(service));
            return Err(Refusal::Service { principal, service, may: listed(&self.services) });
        }
        if !fits(&self.instances, id.as_str()) {
            let (principal, id) = (principal.clone(), short(id.as_str()));
            return Err(Refusal::Instance { principal, id, may: listed(&self.instances) });
        }
        let foreign = |key: &str| key != id.as_str() && !fits(&self.routing_keys, key);
        if let Some(key) = routing_keys.into_iter().find(|key| foreign(key)) {
            let (principal, key) = (principal.clone(), short(key));
            return Err(Refusal::RoutingKey { principal, key, may: listed(&self.routing_keys) });
        }
        Ok(())
    }
}

fn checked(list: &[String], parse: fn(&str) -> Result<Pattern, &'static str>) -> Result<Vec<Pattern>, String> {
    list.iter().map(|text| parse(text).map_err(|why| format!("{text:?} cannot be used: {why}"))).collect()
}

/// What a peer said, in a message to it.
pub(super) fn short(name: &str) -> String {
    crate::status::shown(name).to_string()
}

fn listed(patterns: &[Pattern]) -> String {
    match patterns {
        [] => "none".to_owned(),
        some => some.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", "),
    }
}
