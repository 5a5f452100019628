//! Certificates made while the tests run: an authority, and what it signs, as files in a folder that goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// An authority of its own. Two of them do not trust each other.
#[derive(Debug)]
pub struct Certs {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Certs {
    /// Makes an authority and writes its certificate.
    #[allow(clippy::new_without_default, reason = "two authorities are never alike")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("test authority {}", rand::random::<u64>()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        fs::write(folder.path().join("ca.pem"), cert.pem()).expect("a file");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// The file of the authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server at this machine: `localhost` and 127.0.0.1. Writes `server.pem` and `server.key`.
    pub fn server(&self) -> Pair {
        self.server_at(&["localhost", "127.0.0.1"])
    }

    /// A server at these names. Writes the same files again.
    pub fn server_at(&self, names: &[&str]) -> Pair {
        self.issue("server", with_names(names), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A server at this machine in files of this name.
    pub fn server_in(&self, name: &str) -> Pair {
        self.issue(name, with_names(&["localhost", "127.0.0.1"]), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client whose certificate has just this URI, such as `spiffe://hospital.example/orders`. Writes `client.pem` and
    /// `client.key`.
    pub fn client(&self, uri: &str) -> Pair {
        self.client_with("client", &[uri])
    }

    /// A client with any number of URIs, in files of this name.
    pub fn client_with(&self, name: &str, uris: &[&str]) -> Pair {
        self.issue(name, with_uris(uris), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client whose certificate ended long ago.
    pub fn expired_client(&self, uri: &str) -> Pair {
        let mut params = with_uris(&[uri]);
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        self.issue("expired", params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate that is good for servers alone, and has this URI all the same.
    pub fn not_a_client(&self, uri: &str) -> Pair {
        self.issue("not-a-client", with_uris(&[uri]), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Signs anything, in files of this name.
    pub fn issue(&self, name: &str, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = Pair { cert: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        fs::write(&pair.cert, cert.pem()).expect("a file");
        fs::write(&pair.key, key.serialize_pem()).expect("a file");
        pair
    }

    /// A client of rustls that trusts this authority, shows `identity`, and offers HTTP/2.
    pub fn trusting(&self, identity: Option<&Pair>) -> ClientConfig {
        self.trusting_with(identity, rustls::ALL_VERSIONS)
    }

    /// The same, of these versions of TLS.
    pub fn trusting_with(
        &self,
        identity: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.ca())).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(pair) => config
                .with_client_auth_cert(
                    vec![certificate(&pair.cert)],
                    PrivateKeyDer::from_pem_file(&pair.key).expect("a key"),
                )
                .expect("a pair"),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

fn with_names(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names")
}

fn with_uris(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("a URI"))).collect();
    params
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}
