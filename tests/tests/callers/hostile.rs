//! Tokens that somebody forged, changed, borrowed or kept too long.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::{
    Files, ISSUER, Place, UNAUTHENTICATED, challenge,
    forge::{self, but, claims, header, key, now, part, signed, token},
    refusal,
};

/// A good token whose claims are changed like this.
fn saying(changes: Value) -> String {
    token("ec", &but(claims(), changes))
}

/// A token with a good signature, whose header is changed like this.
fn headed(changes: Value) -> String {
    signed(&but(header("ec"), changes), &claims(), &key("ec").private, Algorithm::ES256)
}

/// The three parts of a good token.
fn parts(kid: &str) -> [String; 3] {
    let token = token(kid, &claims());
    token.split('.').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
}

/// A good token of a key whose signature is changed like this.
fn resigned(kid: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let [head, claims, signature] = parts(kid);
    format!("{head}.{claims}.{}", BASE64.encode(change(BASE64.decode(signature).unwrap())))
}

/// In DER, as certificates have it.
fn der(signature: Vec<u8>) -> Vec<u8> {
    let number = |half: &[u8]| [&[2, 33, 0][..], half].concat();
    let (r, s) = signature.split_at(32);
    let body = [number(r), number(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat()
}

/// Signed with what everybody can read: the public key as a shared secret.
fn confused(kid: &str, public: &[u8]) -> String {
    let head = but(header(kid), json!({ "alg": "HS256" }));
    signed(&head, &claims(), &EncodingKey::from_secret(public), Algorithm::HS256)
}

fn public(kid: &str) -> Value {
    forge::jwk(kid, &key(kid).private, key(kid).algorithm)
}

fn none(alg: &str, signature: &str) -> String {
    format!("{}.{}.{signature}", part(&but(header("rsa"), json!({ "alg": alg }))), part(&claims()))
}

/// Each with a part of what its owner is told.
fn hostile() -> Vec<(&'static str, String, &'static str)> {
    let [head, body, signature] = parts("ec");
    let other = forge::ec_key();
    let rsa = public("rsa");
    let modulus = BASE64.decode(rsa["n"].as_str().unwrap()).unwrap();
    let with_key = |kid: Value| signed(&but(header("ec"), json!({ "kid": kid })), &claims(), &other, Algorithm::ES256);
    let by_other = |changes: Value| signed(&but(header("ec"), changes), &claims(), &other, Algorithm::ES256);
    let duplicate = format!(r#"{{"iss":"{ISSUER}","aud":"shop","sub":"alice","sub":"root","exp":{}}}"#, now() + 300);
    let duplicate = {
        let message = format!("{}.{}", part(&header("ec")), BASE64.encode(duplicate));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key("ec").private, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    };
    vec![
        // Who signs.
        ("alg none", none("none", ""), "no JWT that can be checked"),
        ("alg None", none("None", ""), "no JWT that can be checked"),
        ("alg none with a signature", none("none", &signature), "no JWT that can be checked"),
        ("alg empty", none("", ""), "no JWT that can be checked"),
        ("no alg", headed(json!({ "alg": null })), "no JWT that can be checked"),
        ("HS256 with the RSA modulus", confused("rsa", &modulus), "another algorithm than its key is for"),
        (
            "HS256 with the RSA key as text",
            confused("rsa", rsa.to_string().as_bytes()),
            "another algorithm than its key",
        ),
        ("HS256 with the EC key", confused("ec", public("ec")["x"].as_str().unwrap().as_bytes()), "another algorithm"),
        ("RS256 for a key of PS256's kind", headed(json!({ "alg": "PS256" })), "another algorithm than its key is for"),
        ("ES256 for a shared secret", headed(json!({ "kid": "hs" })), "another algorithm than its key is for"),
        ("signed by another", by_other(json!({})), "signature is wrong"),
        (
            "its own key in the header",
            by_other(json!({ "jwk": forge::jwk("ec", &other, Algorithm::ES256) })),
            "signature is",
        ),
        ("its own keys at a URL", by_other(json!({ "jku": "http://127.0.0.1:1/jwks.json" })), "signature is wrong"),
        ("a certificate at a URL", by_other(json!({ "x5u": "http://127.0.0.1:1/a.pem" })), "signature is wrong"),
        ("a certificate in the header", by_other(json!({ "x5c": ["MIIB"] })), "signature is wrong"),
        ("kid a path", with_key(json!("../../../../dev/null")), "which its issuer does not have"),
        ("kid a URL", with_key(json!("http://127.0.0.1:1/key")), "which its issuer does not have"),
        ("kid SQL", with_key(json!("x' UNION SELECT 'key';--")), "which its issuer does not have"),
        ("kid with a newline", with_key(json!("ec\n")), "which its issuer does not have"),
        ("kid in capitals", with_key(json!("EC")), "which its issuer does not have"),
        ("kid a number", with_key(json!(1)), "no JWT that can be checked"),
        ("no kid", headed(json!({ "kid": null })), "names no key"),
        ("crit", headed(json!({ "crit": ["exp"] })), "\"crit\""),
        ("a logout token", headed(json!({ "typ": "logout+jwt" })), "\"typ\""),
        // What was signed.
        (
            "claims changed",
            format!("{head}.{}.{signature}", part(&but(claims(), json!({ "sub": "root" })))),
            "signature is",
        ),
        (
            "header changed",
            format!("{}.{body}.{signature}", part(&but(header("ec"), json!({ "a": 1 })))),
            "signature is",
        ),
        ("signature cut", resigned("ec", |bytes| bytes[..63].to_vec()), "signature is wrong"),
        ("signature longer", resigned("ec", |bytes| [bytes, vec![0]].concat()), "signature is wrong"),
        ("signature in DER", resigned("ec", der), "signature is wrong"),
        ("signature of zeros", resigned("ec", |_| vec![0; 64]), "signature is wrong"),
        ("signature of the curve's order", resigned("ec", |_| vec![0xff; 64]), "signature is wrong"),
        (
            "one bit of an EdDSA signature",
            resigned("ed", |mut bytes| {
                bytes[5] ^= 1;
                bytes
            }),
            "signature is wrong",
        ),
        (
            "one bit of an RSA signature",
            resigned("rsa", |mut bytes| {
                bytes[5] ^= 1;
                bytes
            }),
            "signature is wrong",
        ),
        ("no signature", format!("{head}.{body}."), "signature is wrong"),
        // What it says.
        ("no exp", saying(json!({ "exp": null })), "\"exp\""),
        ("no aud", saying(json!({ "aud": null })), "\"aud\""),
        ("no sub", saying(json!({ "sub": null })), "\"sub\""),
        ("no iss", saying(json!({ "iss": null })), "\"iss\""),
        ("another aud", saying(json!({ "aud": "bank" })), "for somebody else"),
        ("another aud in a list", saying(json!({ "aud": ["bank", "shop2"] })), "for somebody else"),
        ("another iss", saying(json!({ "iss": "https://evil.test" })), "whose tokens are not taken here"),
        ("iss with a slash more", saying(json!({ "iss": format!("{ISSUER}/") })), "whose tokens are not taken here"),
        ("iss a list", saying(json!({ "iss": [ISSUER] })), "must have \"iss\""),
        ("expired", saying(json!({ "exp": now() - 31 })), "expired 3"),
        ("exp a text", saying(json!({ "exp": (now() + 300).to_string() })), "\"exp\""),
        ("exp below zero", saying(json!({ "exp": -1 })), "\"exp\""),
        ("not yet good", saying(json!({ "nbf": now() + 60 })), "good only in"),
        ("nbf a text", saying(json!({ "nbf": "soon" })), "\"nbf\""),
        ("sub empty", saying(json!({ "sub": "" })), "\"sub\""),
        ("sub a number", saying(json!({ "sub": 7 })), "\"sub\""),
        ("sub too long", saying(json!({ "sub": "s".repeat(257) })), "\"sub\""),
        ("sub twice", duplicate, "no JWT that can be checked"),
        (
            "claims a list",
            signed(&header("ec"), &json!([1]), &key("ec").private, Algorithm::ES256),
            "no JWT that can be",
        ),
        // What is no token.
        ("two parts", format!("{head}.{body}"), "no JWT that can be checked"),
        ("four parts", format!("{head}.{body}.{signature}.{signature}"), "no JWT that can be checked"),
        ("three dots", "...".to_owned(), "no JWT that can be checked"),
        ("no base64", format!("{head}.{body}.!{signature}"), "no JWT that can be checked"),
        ("base64 with padding", format!("{head}=.{body}.{signature}"), "no JWT that can be checked"),
        ("nothing", String::new(), "no JWT that can be checked"),
        ("huge", saying(json!({ "sub": "s".repeat(7000) })), "at most 8192 are read"),
    ]
}

#[tokio::test]
async fn no_hostile_token_is_let_in_and_each_is_told_what_is_wrong() {
    let files = Files::new();
    let place = Place::new(files.callers()).await;
    let hostile = hostile();
    assert!(hostile.len() >= 30);

    for (name, token, told) in hostile {
        let end = place.with_token(&token).await;

        let (code, reason, text) = refusal(&end);
        assert_eq!((code, reason.as_str()), (UNAUTHENTICATED, "BAD_CREDENTIALS"), "{name}: {text}");
        assert_eq!(challenge(&end), "Bearer error=\"invalid_token\"", "{name}");
        assert_eq!(end.reason().1, "NOT_SENT", "{name}");
        assert!(text.contains(told), "{name}: {text}");
        assert!(!text.contains("shop\""), "{name} tells for whom tokens are: {text}");
    }

    assert_eq!(place.seen(), 0, "the service has seen none of them");
    assert_eq!(place.with_token(&forge::good()).await.code(), 0, "and nobody is kept out by them");
    place.stop().await;
}
