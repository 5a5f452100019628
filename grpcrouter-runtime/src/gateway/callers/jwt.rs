//! Callers that show a JWT: what is demanded of it (RFC 7519, RFC 8725), and which were good lately.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dashmap::DashMap;
use jsonwebtoken::{Header, dangerous, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{
    caller::Caller,
    jwks::{KeySet, LEEWAY, VerifyKey},
    watched::Watched,
};
use crate::status::shown;

/// Somebody who issues JSON Web Tokens to callers, such as an OpenID Connect provider.
///
/// A token must be signed by one of the issuer's keys, which it names by `kid`, with the algorithm of that key: RS256 and
/// its relatives, ES256, ES384, EdDSA, or HS256 and its relatives with a shared secret. It must have `iss`, `aud`, `sub`
/// and `exp`; `nbf` holds where it stands; clocks may differ by 30 s. It has at most 8 KiB. Keys that a token brings or
/// points to (`jwk`, `jku`, `x5u`) are never looked at.
#[derive(Debug, Clone)]
pub struct JwtIssuer {
    issuer: String,
    name: String,
    audiences: Vec<String>,
    jwks_file: Option<PathBuf>,
    scope_claim: Option<String>,
}

impl JwtIssuer {
    /// The one whose tokens say `iss` = `issuer`, exactly.
    pub fn new(issuer: impl Into<String>) -> Self {
        let name = "jwt".to_owned();
        Self { issuer: issuer.into(), name, audiences: Vec::new(), jwks_file: None, scope_claim: None }
    }

    /// For whom the tokens are: `aud` must name it. May be set several times; a token needs one of them. There is no
    /// default: a token for somebody else is none for you.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Where the issuer's public keys are, a JWKS (RFC 7517). It is read again when it changes; a bad one is refused
    /// with a warning, and the old keys hold. Fetch it with whatever you fetch files with: the gateway dials nobody.
    pub fn jwks_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.jwks_file = Some(path.into());
        self
    }

    /// What stands before the colon in its callers' principals. Default `jwt`; give each a name of its own where there
    /// are several issuers. Letters, digits and dashes; `key` is that of API keys.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The claim that holds the caller's scopes, a list or words with blanks between them. Default `scope` (RFC 8693),
    /// and `scp` if that is missing.
    pub fn scope_claim(mut self, claim: impl Into<String>) -> Self {
        self.scope_claim = Some(claim.into());
        self
    }
}

/// One issuer, ready.
#[derive(Debug)]
pub(super) struct Issuer {
    issuer: String,
    name: String,
    scope_claim: Option<String>,
    keys: Watched<KeySet>,
    /// By the SHA-256 of the token, which is kept nowhere.
    good: DashMap<[u8; 32], Good>,
}

/// A token that was good.
#[derive(Debug)]
struct Good {
    caller: Arc<Caller>,
    /// Of the keys that it was checked with: when they change, it is checked again.
    generation: u64,
}

impl Issuer {
    /// # Errors
    /// The setting that cannot be used, what was set, and why not.
    pub(super) fn new(set: &JwtIssuer, every: Duration) -> Result<Self, (&'static str, String, String)> {
        let wrong = |what, value: &str, why: &str| Err((what, value.to_owned(), why.to_owned()));
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if set.issuer.is_empty() {
            return wrong("issuer", "", "it is what tokens say in \"iss\", such as https://login.example.org");
        }
        if !is_name(&set.name) || set.name == "key" {
            return wrong("name", &set.name, "it stands before a colon: letters, digits, dashes, and not \"key\"");
        }
        if set.audiences.is_empty() {
            return wrong(
                "audience",
                "",
                "say for whom tokens of the issuer must be, or one for anybody would be good",
            );
        }
        let Some(path) = &set.jwks_file else {
            return wrong("jwks_file", "", "say where the issuer's public keys are");
        };
        let (issuer, audiences) = (set.issuer.clone(), set.audiences.clone());
        let keys = Watched::open(path, every, move |content| KeySet::read(content, &issuer, &audiences))
            .map_err(|why| ("jwks_file", path.display().to_string(), why))?;
        let (issuer, name, scope_claim) = (set.issuer.clone(), set.name.clone(), set.scope_claim.clone());
        Ok(Self { issuer, name, scope_claim, keys, good: DashMap::new() })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A token that was checked before.
    fn known(&self, hash: &[u8; 32], now: u64) -> Option<Arc<Caller>> {
        let generation = self.keys.current().generation;
        let good = self.good.get(hash)?;
        (good.generation == generation && now < good.caller.until).then(|| good.caller.clone())
    }

    /// Checks a token that says it is of this issuer.
    fn check(&self, token: &str, header: &Header, now: u64) -> Result<(Arc<Caller>, u64), String> {
        let keys = self.keys.current();
        let Some(kid) = &header.kid else {
            return Err("the token names no key: its header must have \"kid\"".to_owned());
        };
        let Some(VerifyKey { key, validation }) = keys.find(kid) else {
            return Err(format!("the token names the key \"{}\", which its issuer does not have", shown(kid)));
        };
        let claims = decode::<Map<String, Value>>(token, key, validation)
            .map_err(|error| told(error.kind(), token, now))?
            .claims;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        // A list of issuers is no issuer.
        if text("iss") != Some(&self.issuer) {
            return Err("the token's \"iss\" is not one text".to_owned());
        }
        let subject = text("sub").filter(|subject| !subject.is_empty() && subject.len() <= LONGEST_SUBJECT);
        let Some(subject) = subject else {
            return Err(format!("the token's \"sub\" must be a text of 1 to {LONGEST_SUBJECT} bytes"));
        };
        let until = seconds(claims.get("exp")).unwrap_or(0).saturating_add(LEEWAY);
        let caller = Caller::new(&self.name, subject, self.scopes(&claims), until);
        Ok((Arc::new(caller), keys.generation))
    }

    fn scopes(&self, claims: &Map<String, Value>) -> Vec<String> {
        let found = match &self.scope_claim {
            Some(claim) => claims.get(claim),
            None => claims.get("scope").or_else(|| claims.get("scp")),
        };
        match found {
            Some(Value::String(words)) => words.split_ascii_whitespace().map(str::to_owned).collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    fn remember(&self, hash: [u8; 32], caller: &Arc<Caller>, generation: u64, now: u64) {
        if self.good.len() >= MOST_GOOD {
            self.good.retain(|_, good| good.generation == generation && now < good.caller.until);
            if self.good.len() >= MOST_GOOD {
                // They are only checked once more.
                self.good.clear();
            }
        }
        self.good.insert(hash, Good { caller: caller.clone(), generation });
    }
}

/// Whose token it is, if it is good.
///
/// # Errors
/// Why it is not, for the one who sent it.
pub(super) fn verify(issuers: &[Issuer], token: &str) -> Result<Arc<Caller>, String> {
    if token.len() > LONGEST {
        return Err(format!("the token has {} bytes: at most {LONGEST} are read", token.len()));
    }
    let now = unix_now();
    let hash: [u8; 32] = Sha256::digest(token).into();
    if let Some(caller) = issuers.iter().find_map(|issuer| issuer.known(&hash, now)) {
        return Ok(caller);
    }
    let header = decode_header(token).map_err(|_| NO_JWT.to_owned())?;
    if header.crit.is_some() {
        return Err("the token's header has \"crit\": nothing that it could name is known here".to_owned());
    }
    if header.typ.as_deref().is_some_and(|typ| !TYPES.iter().any(|known| known.eq_ignore_ascii_case(typ))) {
        return Err("the token's header says a \"typ\" that is no access token: JWT or at+jwt".to_owned());
    }
    // Not believed before the signature: it only tells whose keys to try.
    let claims: Map<String, Value> = dangerous::insecure_decode_claims(token).map_err(|_| NO_JWT.to_owned())?;
    let Some(says) = claims.get("iss").and_then(Value::as_str) else {
        return Err("the token does not say who issued it: it must have \"iss\"".to_owned());
    };
    let Some(issuer) = issuers.iter().find(|issuer| issuer.issuer == says) else {
        return Err(format!("the token is of the issuer \"{}\", whose tokens are not taken here", shown(says)));
    };
    let (caller, generation) = issuer.check(token, &header, now)?;
    issuer.remember(hash, &caller, generation, now);
    Ok(caller)
}

/// What is wrong with a token, in words for its owner; what it should say instead is told where that is no secret.
fn told(error: &ErrorKind, token: &str, now: u64) -> String {
    let claim = |name: &str| {
        let claims: Option<Map<String, Value>> = dangerous::insecure_decode_claims(token).ok();
        claims.and_then(|claims| seconds(claims.get(name)))
    };
    match error {
        ErrorKind::ExpiredSignature => {
            let ago = now.saturating_sub(claim("exp").unwrap_or(now));
            format!("the token expired {ago} s ago: get a new one")
        }
        ErrorKind::ImmatureSignature => {
            let wait = claim("nbf").unwrap_or(now).saturating_sub(now);
            format!("the token is good only in {wait} s (\"nbf\"): are the clocks right?")
        }
        ErrorKind::InvalidAudience => {
            "the token is for somebody else: ask its issuer for one with this gateway's \"aud\"".to_owned()
        }
        ErrorKind::MissingRequiredClaim(claim) => format!("the token must have \"{claim}\", and of its type"),
        ErrorKind::InvalidClaimFormat(claim) => format!("the token's \"{claim}\" is not of its type"),
        ErrorKind::InvalidAlgorithm => "the token is signed with another algorithm than its key is for".to_owned(),
        ErrorKind::InvalidSignature => {
            "the token's signature is wrong: it was changed, or signed with another key".to_owned()
        }
        _ => NO_JWT.to_owned(),
    }
}

fn seconds(claim: Option<&Value>) -> Option<u64> {
    let claim = claim?;
    // Of what is no whole number the part after the point does not matter.
    claim.as_u64().or_else(|| claim.as_f64().filter(|time| *time >= 0.0).map(|time| time as u64))
}

/// Now, in seconds of Unix time.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const NO_JWT: &str = "the token is no JWT that can be checked here: three parts of base64url with dots between them, with \
                      a header that names a signing algorithm";

/// The types of token that this takes; others, such as logout tokens, are signed by the same keys and mean other things.
const TYPES: &[&str] = &["JWT", "at+jwt", "application/at+jwt"];

/// Bytes of a token. HTTP/2 peers take about 16 KiB of headers in all.
const LONGEST: usize = 8 * 1024;

/// Bytes of a subject: it is sent on with each call.
const LONGEST_SUBJECT: usize = 256;

/// Tokens that need not be checked again; each costs some 200 bytes.
const MOST_GOOD: usize = 10_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn issuer(directory: &tempfile::TempDir) -> Issuer {
        let path = directory.path().join("jwks.json");
        let key =
            r#"{"keys":[{"kty":"oct","alg":"HS256","kid":"a","k":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"}]}"#;
        std::fs::write(&path, key).unwrap();
        let set = JwtIssuer::new("https://issuer").audience("us").jwks_file(path);
        Issuer::new(&set, Duration::ZERO).unwrap()
    }

    fn hash(number: usize) -> [u8; 32] {
        Sha256::digest(number.to_be_bytes()).into()
    }

    #[test]
    fn what_is_known_of_good_tokens_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let issuer = issuer(&directory);
        let generation = issuer.keys.current().generation;
        let until = |until| Arc::new(Caller::new("jwt", "a", Vec::new(), until));

        for number in 0..MOST_GOOD {
            issuer.remember(hash(number), &until(if number < 10 { 2_000 } else { 1_000 }), generation, 0);
        }
        issuer.remember(hash(MOST_GOOD), &until(2_000), generation, 1_500);

        assert_eq!(issuer.good.len(), 11, "those that are over went first");
        for number in 0..2 * MOST_GOOD {
            issuer.remember(hash(number), &until(2_000), generation, 1_500);
            assert!(issuer.good.len() <= MOST_GOOD);
        }
    }

    #[test]
    fn a_token_is_known_until_it_ends_and_as_long_as_the_keys_stay() {
        let directory = tempfile::tempdir().unwrap();
        let issuer = issuer(&directory);
        let generation = issuer.keys.current().generation;
        issuer.remember(hash(1), &Arc::new(Caller::new("jwt", "a", Vec::new(), 1_000)), generation, 0);

        assert!(issuer.known(&hash(1), 999).is_some());
        assert!(issuer.known(&hash(1), 1_000).is_none() && issuer.known(&hash(2), 0).is_none());
        let file = directory.path().join("jwks.json");
        let other = std::fs::read_to_string(&file).unwrap().replace("\"kid\":\"a\"", "\"kid\":\"b\"");
        std::fs::write(&file, other).unwrap();
        assert!(issuer.known(&hash(1), 999).is_none(), "the keys have changed");
    }

    #[test]
    fn scopes_are_read_in_the_shapes_that_issuers_use() {
        let directory = tempfile::tempdir().unwrap();
        let mut issuer = issuer(&directory);
        let scopes = |issuer: &Issuer, claims: &str| issuer.scopes(&serde_json::from_str(claims).unwrap());

        assert_eq!(scopes(&issuer, r#"{"scope":"a  b","scp":"c"}"#), ["a", "b"]);
        assert_eq!(scopes(&issuer, r#"{"scp":["a","b c",7]}"#), ["a", "b c"]);
        assert_eq!(scopes(&issuer, r#"{"scope":7}"#), [""; 0]);
        issuer.scope_claim = Some("roles".to_owned());
        assert_eq!(scopes(&issuer, r#"{"scope":"a","roles":["b"]}"#), ["b"]);
    }
}
