//! What people want to know of a certificate: whose it is, who issued it, and until when.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use crate::status::shown;

/// A certificate as messages name it. It may come from anybody: all text is escaped and short.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// Its subject; where that is empty, its names.
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// The DNS names and IP addresses that it is for.
    pub(crate) names: String,
    /// Days, as `2026-11-21`.
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    pub(crate) is_self_signed: bool,
}

impl Summary {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            let unreadable = || "an unreadable name".to_owned();
            return Self { subject: unreadable(), issuer: unreadable(), names: unreadable(), ..Self::default() };
        };
        let subject = parsed.subject().to_string();
        let issuer = parsed.issuer().to_string();
        let names = names(&parsed);
        Self {
            subject: if subject.is_empty() { names.clone() } else { shown(&subject) },
            is_self_signed: subject == issuer,
            issuer: if issuer.is_empty() { "a CA without a name".to_owned() } else { shown(&issuer) },
            names,
            not_before: day(parsed.validity().not_before),
            not_after: day(parsed.validity().not_after),
        }
    }
}

/// Today, as the clock of this machine has it.
pub(super) fn today() -> String {
    day(ASN1Time::now())
}

fn names(certificate: &X509Certificate<'_>) -> String {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return "no name at all".to_owned() };
    let names = &alternative.value.general_names;
    let named: Vec<String> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some(shown(name)),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect();
    match named.as_slice() {
        [] => "no name at all".to_owned(),
        named if named.len() > MOST_NAMES => {
            let some = named.get(..MOST_NAMES).unwrap_or_default();
            format!("{} and {} more", some.join(", "), named.len() - MOST_NAMES)
        }
        named => named.join(", "),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn day(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

/// Names of a certificate that a message lists.
const MOST_NAMES: usize = 5;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_certificate_is_told_by_its_names_its_issuer_and_its_days() {
        let mut params = rcgen::CertificateParams::new(vec!["gateway.test".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "it\nself");
        params.not_before = rcgen::date_time_ymd(2020, 1, 2);
        params.not_after = rcgen::date_time_ymd(2021, 3, 4);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();

        let summary = Summary::of(certificate.der());

        assert_eq!(summary.subject, "CN=it\\nself");
        assert_eq!(summary.issuer, "CN=it\\nself");
        assert!(summary.is_self_signed);
        assert_eq!(summary.names, "gateway.test, 10.0.0.1");
        assert_eq!((summary.not_before.as_str(), summary.not_after.as_str()), ("2020-01-02", "2021-03-04"));
    }

    #[test]
    fn a_certificate_for_the_whole_world_is_told_in_short() {
        let names: Vec<String> = (0..40).map(|number| format!("host-{number}.test")).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();

        let summary = Summary::of(certificate.der());

        assert!(summary.names.ends_with("host-4.test and 35 more"), "{}", summary.names);
        assert_eq!(summary.subject, summary.names);
    }

    #[test]
    fn what_is_no_certificate_is_told_as_such() {
        assert_eq!(Summary::of(&CertificateDer::from(vec![1, 2, 3])).issuer, "an unreadable name");
    }
}
