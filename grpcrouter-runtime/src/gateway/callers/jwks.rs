//! The keys of an issuer, from a JWKS file (RFC 7517). What a key may be used for is decided here, from the key alone:
//! a token is never asked (RFC 8725, 3.1 and 3.2).

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde_json::Value;
use tracing::warn;

use crate::status::shown;

/// All keys of one issuer, and what tokens that they signed must say.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: HashMap<String, VerifyKey>,
    /// Differs from that of any other set in this process.
    pub(super) generation: u64,
}

/// One key.
#[derive(Debug)]
pub(super) struct VerifyKey {
    pub(super) key: DecodingKey,
    /// With the one algorithm of this key.
    pub(super) validation: Validation,
}

impl KeySet {
    /// # Errors
    /// Why the file cannot be used, and what to do.
    pub(super) fn read(content: &[u8], issuer: &str, audiences: &[String]) -> Result<Self, String> {
        let file: Value = serde_json::from_slice(content).map_err(|error| format!("it is no JSON: {error}"))?;
        let Some(entries) = file.get("keys").and_then(Value::as_array) else {
            return Err("it is no JWKS: that is an object with the list \"keys\"".to_owned());
        };
        let mut keys = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            let named = |why: &str| format!("key {}: {why}", at + 1);
            if ["d", "p", "q", "dp", "dq", "qi"].iter().any(|part| entry.get(part).is_some()) {
                return Err(named("it is a private key: only the issuer may have that; put the public one here"));
            }
            let jwk: Jwk = match serde_json::from_value(entry.clone()) {
                Ok(jwk) => jwk,
                // What this cannot read it need not understand (RFC 7517, 5).
                Err(_) => {
                    warn!(key = at + 1, "a key of the JWKS is left out: its type is not known here");
                    continue;
                }
            };
            if !signs(&jwk) {
                continue;
            }
            let algorithm = match algorithm(&jwk) {
                Ok(Some(algorithm)) => algorithm,
                Ok(None) => {
                    warn!(key = at + 1, "a key of the JWKS is left out: its algorithm is not known here");
                    continue;
                }
                Err(why) => return Err(named(&why)),
            };
            let Some(kid) = jwk.common.key_id.clone().filter(|kid| !kid.is_empty()) else {
                return Err(named("it has no \"kid\": tokens are checked with the key that they name"));
            };
            let key = DecodingKey::from_jwk(&jwk).map_err(|_| named("its parts cannot be read"))?;
            let validation = validation(algorithm, issuer, audiences);
            match keys.entry(kid) {
                Entry::Vacant(place) => place.insert(VerifyKey { key, validation }),
                Entry::Occupied(taken) => {
                    return Err(named(&format!("another key has the \"kid\" \"{}\" too", shown(taken.key()))));
                }
            };
        }
        if keys.is_empty() {
            return Err("it has no key that tokens can be checked with".to_owned());
        }
        Ok(Self { keys, generation: GENERATION.fetch_add(1, Ordering::Relaxed) })
    }

    /// The key of exactly this name.
    pub(super) fn find(&self, kid: &str) -> Option<&VerifyKey> {
        self.keys.get(kid)
    }
}

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Whether the key is there to check signatures.
fn signs(jwk: &Jwk) -> bool {
    let for_that = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)));
    let may = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    for_that && jwk.common.key_operations.as_ref().is_none_or(may)
}

/// The one algorithm that a key is used with; None if it is none that is served here.
fn algorithm(jwk: &Jwk) -> Result<Option<Algorithm>, String> {
    use KeyAlgorithm as Named;
    let named = jwk.common.key_algorithm;
    let clash =
        || Err(format!("its \"alg\" {} is not one of its type", named.map_or(String::new(), |it| it.to_string())));
    Ok(Some(match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) => match (&key.curve, named) {
            (EllipticCurve::P256, None | Some(Named::ES256)) => Algorithm::ES256,
            (EllipticCurve::P384, None | Some(Named::ES384)) => Algorithm::ES384,
            (EllipticCurve::P256 | EllipticCurve::P384, Some(_)) => return clash(),
            _ => return Ok(None),
        },
        AlgorithmParameters::OctetKeyPair(key) => match (&key.curve, named) {
            (EllipticCurve::Ed25519, None | Some(Named::EdDSA)) => Algorithm::EdDSA,
            (EllipticCurve::Ed25519, Some(_)) => return clash(),
            _ => return Ok(None),
        },
        AlgorithmParameters::RSA(key) => {
            if bytes(&key.n) < RSA_BYTES {
                return Err(format!("an RSA key has at least {} bits", RSA_BYTES * 8));
            }
            match named {
                // Some issuers do not say it, and mean this.
                None | Some(Named::RS256) => Algorithm::RS256,
                Some(Named::RS384) => Algorithm::RS384,
                Some(Named::RS512) => Algorithm::RS512,
                Some(Named::PS256) => Algorithm::PS256,
                Some(Named::PS384) => Algorithm::PS384,
                Some(Named::PS512) => Algorithm::PS512,
                Some(Named::RSA1_5 | Named::RSA_OAEP | Named::RSA_OAEP_256) => return Ok(None),
                Some(_) => return clash(),
            }
        }
        AlgorithmParameters::OctetKey(key) => {
            let (algorithm, least) = match named {
                Some(Named::HS256) => (Algorithm::HS256, 32),
                Some(Named::HS384) => (Algorithm::HS384, 48),
                Some(Named::HS512) => (Algorithm::HS512, 64),
                None => return Err("a shared secret names its \"alg\", such as HS256".to_owned()),
                Some(_) => return clash(),
            };
            if bytes(&key.value) < least {
                return Err(format!("a secret for {algorithm:?} has at least {least} bytes (RFC 7518, 3.2)"));
            }
            algorithm
        }
        _ => return Ok(None),
    }))
}

fn bytes(base64: &str) -> usize {
    URL_SAFE_NO_PAD.decode(base64).map_or(0, |bytes| bytes.iter().skip_while(|byte| **byte == 0).count())
}

fn validation(algorithm: Algorithm, issuer: &str, audiences: &[String]) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(audiences);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation
}

/// Seconds by which two clocks may differ.
pub(super) const LEEWAY: u64 = 30;

/// 2048 bits: NIST SP 800-131A allows no less.
const RSA_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::*;

    fn read(keys: &Value) -> Result<KeySet, String> {
        KeySet::read(json!({ "keys": keys }).to_string().as_bytes(), "https://issuer", &["us".to_owned()])
    }

    fn ec(more: &Value) -> Value {
        let mut key = json!({ "kty": "EC", "crv": "P-256", "kid": "a",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    #[test]
    fn the_algorithm_is_the_keys_own() {
        let modulus = "_".repeat(341);
        let rsa = |more: &str| format!(r#"{{ "kty": "RSA", "n": "{modulus}w", "e": "AQAB"{more} }}"#);
        let of = |key: &str| algorithm(&serde_json::from_str(key).unwrap());

        assert_eq!(of(&ec(&json!({})).to_string()), Ok(Some(Algorithm::ES256)));
        assert_eq!(of(&rsa("")), Ok(Some(Algorithm::RS256)));
        assert_eq!(of(&rsa(r#", "alg": "PS512""#)), Ok(Some(Algorithm::PS512)));
        assert_eq!(of(&rsa(r#", "alg": "RSA-OAEP""#)), Ok(None));
        assert!(of(&rsa(r#", "alg": "HS256""#)).is_err());
        assert!(of(&ec(&json!({ "alg": "ES384" })).to_string()).is_err());
        assert_eq!(of(&ec(&json!({ "crv": "P-521" })).to_string()), Ok(None));
    }

    #[test]
    fn a_file_that_cannot_be_meant_is_refused_with_the_reason() {
        for (keys, why) in [
            (json!([]), "no key that tokens can be checked with"),
            (json!([ec(&json!({ "use": "enc" }))]), "no key that tokens can be checked with"),
            (json!([ec(&json!({ "key_ops": ["sign"] }))]), "no key that tokens can be checked with"),
            (json!([{ "kty": "new", "kid": "a" }]), "no key that tokens can be checked with"),
            (json!([ec(&json!({})), ec(&json!({}))]), "key 2: another key has the \"kid\" \"a\" too"),
            (json!([ec(&json!({ "kid": "" }))]), "key 1: it has no \"kid\""),
            (json!([ec(&json!({ "d": "AQAB" }))]), "key 1: it is a private key"),
            (json!([{ "kty": "oct", "k": "c2hvcnQ", "alg": "HS256", "kid": "h" }]), "at least 32 bytes"),
            (json!([{ "kty": "oct", "k": "c2hvcnQ", "kid": "h" }]), "names its \"alg\""),
            (json!([{ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "r" }]), "at least 2048 bits"),
            (json!({}), "it is no JWKS"),
        ] {
            let error = read(&keys).unwrap_err();
            assert!(error.contains(why), "{keys}: {error}");
        }
        assert!(KeySet::read(b"{", "i", &[]).unwrap_err().starts_with("it is no JSON"));
    }

    #[test]
    fn keys_of_kinds_that_are_not_known_do_no_harm_to_the_others() {
        let set =
            read(&json!([{ "kty": "new", "kid": "n" }, ec(&json!({})), ec(&json!({ "kid": "b", "use": "sig" }))]));

        let set = set.unwrap();
        assert!(set.find("a").is_some() && set.find("b").is_some() && set.find("n").is_none());
        assert_eq!(set.find("b").unwrap().validation.algorithms, [Algorithm::ES256]);
    }
}
