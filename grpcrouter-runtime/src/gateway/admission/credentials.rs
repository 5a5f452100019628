//! What an instance shows to be known by: a token in the request's headers, or the certificate of its connection.

use std::fmt;

use http::{HeaderMap, header::AUTHORIZATION};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::refusal::Refusal;
use crate::gateway::{
    peer::Peer,
    registration::PREFIX,
    secrets::{Secret, SecretHash},
};

/// What is kept of it while the instance is here, to ask again when the rules change. No secret.
#[derive(Clone, PartialEq)]
pub(super) enum Proof {
    Token {
        id: String,
        hash: SecretHash,
    },
    /// TLS judged its time when the connection was made. Its end does not cut a stream: those that live for an hour are
    /// renewed for the next connection.
    Certificate {
        uri: String,
    },
}

impl Proof {
    /// Reads what a request shows. A token counts alone where there is one: who sends a wrong one meant it.
    pub(super) fn read(headers: &HeaderMap, peer: Option<&Peer>) -> Result<Self, Refusal> {
        let mut tokens = headers.get_all(AUTHORIZATION).iter();
        if let Some(token) = tokens.next() {
            let more = tokens.count();
            if more > 0 {
                return Err(Refusal::ManyTokens { count: more + 1 });
            }
            let secret = token.to_str().ok().and_then(bearer).and_then(|text| Secret::parse(PREFIX, text));
            let secret = secret.ok_or(Refusal::MalformedToken)?;
            return Ok(Self::Token { id: secret.id().to_owned(), hash: secret.hash() });
        }
        match peer.and_then(|peer| peer.tls.as_ref()?.certificates.first()) {
            Some(certificate) => of_certificate(certificate).map_err(|why| Refusal::Certificate { why }),
            None => Err(Refusal::NoCredentials),
        }
    }
}

/// By what, for logs.
impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { id, .. } => write!(f, "token {id}"),
            Self::Certificate { uri } => write!(f, "certificate {uri}"),
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The credentials of the scheme Bearer, whose name has no case (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The one URI of a certificate for clients that TLS has verified.
fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Proof, &'static str> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| "it cannot be read")?;
    let usage = certificate.extended_key_usage().map_err(|_| "its extended key usage cannot be read")?;
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err("it is not meant for clients: issue it with the extended key usage clientAuth");
    }
    let names = certificate.subject_alternative_name().map_err(|_| "its alternative names cannot be read")?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.to_owned(),
        (None, _) => return Err(NO_URI),
        (Some(_), Some(_)) => {
            return Err("it names more than one URI, so it cannot be told who this is: issue it with one");
        }
    };
    Ok(Proof::Certificate { uri })
}

const NO_URI: &str = "it names no URI: issue it with one as subject alternative name, such as \
                      spiffe://hospital.example/site-a; the common name does not count";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::sync::Arc;

    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};

    use super::*;
    use crate::gateway::peer::PeerTls;

    /// What a connection with a certificate of these names and this usage proves.
    fn shown(uris: &[&str], usage: &[ExtendedKeyUsagePurpose]) -> Result<String, Refusal> {
        let mut params = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "spiffe://hospital.example/site-a");
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.extended_key_usages = usage.to_vec();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        let tls = Some(PeerTls { certificates: Arc::new([certificate]) });
        let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), tls };
        Proof::read(&HeaderMap::new(), Some(&peer)).map(|proof| proof.to_string())
    }

    #[test]
    fn a_certificate_is_its_one_uri_whatever_its_common_name_says() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let refused = |why: &str, shown: Result<String, Refusal>| match shown {
            Err(Refusal::Certificate { why: said }) => assert!(said.starts_with(why), "{said}"),
            other => panic!("{other:?}"),
        };

        let proof = shown(&["spiffe://hospital.example/site-b"], &[ServerAuth, ClientAuth]);
        assert_eq!(proof, Ok("certificate spiffe://hospital.example/site-b".to_owned()));
        refused("it names no URI", shown(&[], &[ClientAuth]));
        refused("it names more than one URI", shown(&["a://b/c", "a://b/c"], &[ClientAuth]));
        refused("it is not meant for clients", shown(&["a://b/c"], &[ServerAuth]));
        refused("it is not meant for clients", shown(&["a://b/c"], &[]));
    }

    #[test]
    fn nothing_shows_the_secret_of_a_token() {
        let secret = "s".repeat(32);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer grt_7Qd0aVbC2e_{secret}").parse().unwrap());

        let proof = Proof::read(&headers, None).unwrap();

        assert_eq!(format!("{proof} {proof:?}"), "token 7Qd0aVbC2e token 7Qd0aVbC2e");
    }
}
