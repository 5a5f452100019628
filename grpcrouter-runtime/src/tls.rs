//! What both ends need of TLS: one provider of cryptography, and certificates and keys read from PEM files, checked
//! against each other before anybody relies on them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

/// The one provider of cryptography: named wherever it is used, so that a process with another default is no different.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate with its chain, and the private key that belongs to it.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The certificate itself comes first, then those that vouch for it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Its `Debug` shows no secret.
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Reads a certificate with its chain, and its private key, from PEM files, and checks that the two belong together.
pub(crate) fn read_identity(cert: &Path, key: &Path) -> Result<Identity, TlsFileError> {
    parse_identity((cert, &read(cert)?), (key, &read(key)?))
}

/// Reads all certificates of a PEM file, at least one.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    parse_certificates(path, &read(path)?)
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    fs::read(path).map_err(|error| TlsFileError::Unreadable { path: path.into(), error })
}

/// The same as [`read_identity`], of what was read already.
pub(crate) fn parse_identity(cert: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Identity, TlsFileError> {
    let chain = parse_certificates(cert.0, cert.1)?;
    let private = parse_key(key.0, key.1)?;
    match CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider()) {
        Ok(_) => Ok(Identity { chain, key: private }),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsFileError::Mismatch { cert: cert.0.into(), key: key.0.into() })
        }
        Err(error @ rustls::Error::InvalidCertificate(_)) => {
            Err(TlsFileError::Malformed { path: cert.0.into(), what: "certificate", why: error.to_string() })
        }
        Err(error) => Err(TlsFileError::Malformed { path: key.0.into(), what: "private key", why: error.to_string() }),
    }
}

/// The same as [`read_certificates`], of what was read already.
pub(crate) fn parse_certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| malformed(path, "certificate", &error))?;
    if certificates.is_empty() {
        return Err(TlsFileError::NoCertificate { path: path.into(), instead: instead(text) });
    }
    Ok(certificates)
}

fn parse_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    if contains(text, "-----BEGIN ENCRYPTED PRIVATE KEY") || contains(text, "Proc-Type: 4,ENCRYPTED") {
        return Err(TlsFileError::EncryptedKey { path: path.into() });
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsFileError::NoKey { path: path.into(), instead: instead(text) },
        error => malformed(path, "private key", &error),
    })
}

/// Never what the file holds: it may be a key.
fn malformed(path: &Path, what: &'static str, error: &pem::Error) -> TlsFileError {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a block has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is broken",
        pem::Error::Base64Decode(_) => "a block is not base64",
        _ => "it is no PEM file",
    };
    TlsFileError::Malformed { path: path.into(), what, why: why.to_owned() }
}

/// What a file holds that lacks what was looked for.
fn instead(text: &[u8]) -> &'static str {
    if text.iter().all(u8::is_ascii_whitespace) {
        "it is empty"
    } else if contains(text, "PRIVATE KEY-----") {
        "it holds a private key: are the two files exchanged?"
    } else if contains(text, "-----BEGIN CERTIFICATE-----") {
        "it holds a certificate: are the two files exchanged?"
    } else if matches!(text, [0x30, 0x81..=0x84, ..]) {
        "it looks like DER: write it as PEM with openssl, -inform DER -outform PEM"
    } else {
        "it holds nothing of the kind"
    }
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A file of certificates or keys that cannot be used.
///
/// Its text is the whole story, with what the system said; so it names no [`source`](std::error::Error::source). It
/// never shows what a file holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFileError {
    /// The file could not be read.
    #[error("cannot read {}: {error}; check the path, and that this process may read it", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },

    /// The file holds no certificate.
    #[error(
        "no certificate in {}: {instead}; it must be PEM, with one or more blocks that begin with \
         -----BEGIN CERTIFICATE-----, the certificate itself first and then its chain",
        .path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What it holds instead.
        instead: &'static str,
    },

    /// The file holds no private key.
    #[error(
        "no private key in {}: {instead}; it must be PEM, with a block that begins with -----BEGIN PRIVATE KEY-----",
        .path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What it holds instead.
        instead: &'static str,
    },

    /// The private key is protected by a password.
    #[error(
        "the private key in {} is encrypted, and nobody is here to type its password: decrypt it with \
         `openssl pkey -in OLD -out NEW` and let only this process read the result",
        .path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },

    /// What the file holds is broken, or of a kind that is not supported.
    #[error("the {what} in {} cannot be used: {why}; write the file again, as PEM", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },

    /// The private key belongs to another certificate.
    #[error(
        "the private key in {} does not belong to the certificate in {}: give the two that were made together; if they \
         were just renewed, one of them is not written yet",
        .key.display(), .cert.display()
    )]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the private key.
        key: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// A certificate and its key, as PEM.
    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn identity(cert: &str, key: &str) -> Result<Identity, String> {
        let (cert, key) = ((Path::new("cert.pem"), cert.as_bytes()), (Path::new("key.pem"), key.as_bytes()));
        parse_identity(cert, key).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_with_its_chain_and_its_key_are_an_identity_that_shows_no_secret() {
        let ((cert, key), (issuer, _)) = (pair(), pair());

        let identity = identity(&format!("{cert}{issuer}"), &key).unwrap();

        assert_eq!(identity.chain.len(), 2);
        assert!(format!("{identity:?}").contains("[secret key elided]"));
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_to_do() {
        let ((cert, key), (_, other)) = (pair(), pair());
        let broken = cert.replace("MII", "M!!");
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");

        for (cert, key, said) in [
            ("", key.as_str(), "no certificate in cert.pem: it is empty; "),
            (&key, &cert, "no certificate in cert.pem: it holds a private key: are the two files exchanged?"),
            (&cert, &cert, "no private key in key.pem: it holds a certificate: are the two files exchanged?"),
            (&cert, "0x", "no private key in key.pem: it holds nothing of the kind"),
            (&cert, &encrypted, "the private key in key.pem is encrypted, "),
            (&broken, &key, "the certificate in cert.pem cannot be used: a block is not base64; "),
            (&cert, &key[..60], "the private key in key.pem cannot be used: a block has no END line; "),
            (&cert, &other, "the private key in key.pem does not belong to the certificate in cert.pem: "),
        ] {
            let error = identity(cert, key).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read_certificates(Path::new("/nowhere/clients.pem")).unwrap_err().to_string();

        assert!(error.starts_with("cannot read /nowhere/clients.pem: "), "{error}");
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused_however_well_they_are_wrapped() {
        let (_, key) = pair();
        let wrapped = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

        let error = identity(wrapped, &key).unwrap_err();

        assert!(error.starts_with("the certificate in cert.pem cannot be used: "), "{error}");
    }
}
