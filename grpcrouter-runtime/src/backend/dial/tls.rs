//! TLS to a gateway, or to a proxy: who is trusted, who one is, and what to say when it comes to nothing.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;

use super::certificate::{Summary, today};
use super::road::{Heard, Road, rustls_error};
use crate::error::{ConnectError, Spoken, TlsProblem, Whom};
use crate::tls::{Identity, TlsFileError, provider, read_certificates, read_identity};

/// The files that a backend was given. They are read again with each dial, so that who renews them restarts nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<PathBuf>,
    /// Certificate and key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

/// What was in those files, and who else is trusted.
#[derive(Debug)]
pub(super) struct Trust {
    roots: Arc<RootCertStore>,
    /// Why there is no root of the system's.
    without_system: Option<String>,
    identity: Option<Identity>,
}

/// What TLS agreed on.
#[derive(Debug)]
pub(crate) struct TlsSeen {
    pub(crate) version: &'static str,
    pub(crate) certificate: Summary,
}

impl TlsFiles {
    /// Reads the files and the system's roots, some hundred kilobytes.
    pub(super) fn read(&self) -> Result<Trust, TlsFileError> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        let without_system = roots.is_empty().then(|| match system.errors.first() {
            Some(error) => error.to_string(),
            None => "this system has none".to_owned(),
        });
        if let Some(path) = &self.ca {
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(|error| TlsFileError::Malformed {
                    path: path.clone(),
                    what: "certificate",
                    why: error.to_string(),
                })?;
            }
        }
        let identity = self.client.as_ref().map(|(cert, key)| read_identity(cert, key)).transpose()?;
        Ok(Trust { roots: Arc::new(roots), without_system, identity })
    }
}

impl Trust {
    /// TLS over `road`, with a gateway or a proxy of this name. With a gateway HTTP/2 is agreed on, and a client
    /// certificate is shown if it asks for one; a proxy gets none.
    pub(super) async fn handshake(
        &self,
        road: Road,
        name: &ServerName<'static>,
        whom: Whom,
        address: &str,
    ) -> Result<(Road, TlsSeen), ConnectError> {
        let failed = |problem| ConnectError::Tls { whom, address: address.to_owned(), problem };
        if self.roots.is_empty() {
            let why = self.without_system.clone().unwrap_or_default();
            return Err(failed(TlsProblem::NoRoots { why }));
        }
        let shown = Arc::new(OnceLock::new());
        let config =
            self.config(whom, shown.clone()).map_err(|error| failed(TlsProblem::Other(io::Error::other(error))))?;
        let heard = road.heard();
        let stream = match TlsConnector::from(Arc::new(config)).connect(name.clone(), road).await {
            Ok(stream) => stream,
            Err(error) => return Err(failed(self.problem(error, name, &heard, shown.get()))),
        };
        let connection = stream.get_ref().1;
        if whom == Whom::Gateway && connection.alpn_protocol() != Some(ALPN) {
            return Err(failed(TlsProblem::NoHttp2));
        }
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS 1.3",
        };
        let certificate = shown.get().map(Summary::of).unwrap_or_default();
        Ok((Road::tls(stream), TlsSeen { version, certificate }))
    }

    /// What a connection that broke after the handshake broke with, if TLS did.
    pub(super) fn late_problem(&self, error: &rustls::Error) -> Option<TlsProblem> {
        match error {
            rustls::Error::AlertReceived(alert) => self.alert(*alert),
            _ => None,
        }
    }

    fn config(&self, whom: Whom, shown: Arc<OnceLock<CertificateDer<'static>>>) -> Result<ClientConfig, String> {
        let inner = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Noting { inner, shown }));
        let identity = self.identity.as_ref().filter(|_| whom == Whom::Gateway);
        let mut config = match identity {
            Some(Identity { chain, key }) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|error| format!("the client certificate cannot be used: {error}"))?,
            None => builder.with_no_client_auth(),
        };
        if whom == Whom::Gateway {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(config)
    }

    fn problem(
        &self,
        error: io::Error,
        name: &ServerName<'_>,
        heard: &Heard,
        shown: Option<&CertificateDer<'static>>,
    ) -> TlsProblem {
        match rustls_error(&error) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                certificate_problem(why, name, &shown.map(Summary::of).unwrap_or_default())
            }
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => TlsProblem::NoHttp2,
            Some(rustls::Error::AlertReceived(alert)) => {
                self.alert(*alert).unwrap_or(TlsProblem::Alert { alert: *alert })
            }
            Some(rustls::Error::InvalidMessage(_)) if heard.spoken() != Spoken::Tls => {
                TlsProblem::NoTls(heard.spoken())
            }
            None if is_cut(&error) => TlsProblem::Closed,
            _ => TlsProblem::Other(error),
        }
    }

    /// Alerts that are about the certificate of this side.
    fn alert(&self, alert: AlertDescription) -> Option<TlsProblem> {
        use AlertDescription as Alert;
        match alert {
            Alert::CertificateRequired => Some(TlsProblem::WantsClientCertificate),
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied => Some(match self.identity {
                Some(_) => TlsProblem::RefusesClientCertificate { alert },
                None => TlsProblem::WantsClientCertificate,
            }),
            _ => None,
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe)
}

fn certificate_problem(why: &CertificateError, name: &ServerName<'_>, shown: &Summary) -> TlsProblem {
    let Summary { subject, issuer, names, not_before, not_after, is_self_signed } = shown.clone();
    match why {
        CertificateError::UnknownIssuer if is_self_signed => TlsProblem::SelfSigned { subject },
        CertificateError::UnknownIssuer => TlsProblem::UnknownIssuer { subject, issuer },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsProblem::OtherName { host: name.to_str().into_owned(), names, issuer }
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            TlsProblem::Expired { subject, issuer, not_after, today: today() }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsProblem::NotYetValid { subject, issuer, not_before, today: today() }
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            TlsProblem::CaItself { subject }
        }
        why => TlsProblem::Unusable { subject, issuer, error: rustls::Error::InvalidCertificate(why.clone()) },
    }
}

/// Checks as rustls does, and keeps what was shown: its errors do not tell whose certificate it was.
#[derive(Debug)]
struct Noting {
    inner: Arc<WebPkiServerVerifier>,
    shown: Arc<OnceLock<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let _ = self.shown.set(end_entity.clone().into_owned());
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}

/// What a gateway speaks over TLS.
const ALPN: &[u8] = b"h2";
