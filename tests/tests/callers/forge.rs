//! Issues tokens, good ones and any others.

use std::{
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use rsa::{RsaPrivateKey, pkcs1::EncodeRsaPrivateKey as _, rand_core::OsRng};
use serde_json::{Value, json};

use crate::{AUDIENCE, ISSUER};

/// A key pair of the issuer.
pub(crate) struct Key {
    pub(crate) kid: &'static str,
    pub(crate) algorithm: Algorithm,
    pub(crate) private: EncodingKey,
}

/// One of each kind.
pub(crate) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    vec![
        Key { kid: "rsa", algorithm: Algorithm::RS256, private: rsa_key() },
        Key { kid: "ec", algorithm: Algorithm::ES256, private: ec_key() },
        Key { kid: "ed", algorithm: Algorithm::EdDSA, private: ed_key() },
        Key { kid: "hs", algorithm: Algorithm::HS256, private: EncodingKey::from_secret(SHARED) },
    ]
});

/// The secret of the key `hs`.
pub(crate) const SHARED: &[u8] = b"a shared secret has 32 bytes or more";

pub(crate) fn key(kid: &str) -> &'static Key {
    KEYS.iter().find(|key| key.kid == kid).unwrap()
}

fn rsa_key() -> EncodingKey {
    let key = RsaPrivateKey::new(&mut OsRng, 2048).unwrap();
    EncodingKey::from_rsa_der(key.to_pkcs1_der().unwrap().as_bytes())
}

pub(crate) fn ec_key() -> EncodingKey {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    EncodingKey::from_ec_der(&key.serialize_der())
}

fn ed_key() -> EncodingKey {
    // PKCS #8 of the first version (RFC 8410, 7), which all libraries read.
    let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    EncodingKey::from_ed_der(&[&head[..], &rand::random::<[u8; 32]>()].concat())
}

/// The public side of a key.
pub(crate) fn jwk(kid: &str, private: &EncodingKey, algorithm: Algorithm) -> Value {
    let mut jwk = Jwk::from_encoding_key(private, algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).unwrap()
}

/// What the issuer publishes.
pub(crate) fn jwks() -> Value {
    json!({ "keys": KEYS.iter().map(|key| jwk(key.kid, &key.private, key.algorithm)).collect::<Vec<_>>() })
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a good token says.
pub(crate) fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now() + 300, "scope": "orders.read profile" })
}

/// `base` with these changes; null takes an entry away.
pub(crate) fn but(mut base: Value, changes: Value) -> Value {
    let map = base.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap().clone() {
        if value.is_null() {
            map.remove(&name)
        } else {
            map.insert(name, value)
        };
    }
    base
}

/// The header of a token of this key.
pub(crate) fn header(kid: &str) -> Value {
    json!({ "typ": "JWT", "alg": format!("{:?}", key(kid).algorithm), "kid": kid })
}

pub(crate) fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

/// Signed by `private`, whatever it says.
pub(crate) fn signed(header: &Value, claims: &Value, private: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = crypto::sign(message.as_bytes(), private, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// Signed by the issuer's key.
pub(crate) fn token(kid: &str, claims: &Value) -> String {
    signed(&header(kid), claims, &key(kid).private, key(kid).algorithm)
}

/// A good one.
pub(crate) fn good() -> String {
    token("ec", &claims())
}
