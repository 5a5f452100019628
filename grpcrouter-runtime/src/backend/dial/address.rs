//! The address of a gateway, checked.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use rustls_pki_types::ServerName;

use crate::error::ConfigError;

/// Where a gateway is, and whether it is spoken to over TLS.
#[derive(Clone, Debug)]
pub(crate) struct GatewayAddress {
    uri: Uri,
    host: String,
    port: u16,
    /// The name that its certificate must have; `None` if there is no TLS.
    server_name: Option<ServerName<'static>>,
}

impl GatewayAddress {
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let uri: Uri = text.parse().map_err(|_| {
            ConfigError::setting(
                "gateway",
                format!("{text:?}"),
                "it is not a URI; write https://HOST or http://HOST:PORT",
            )
        })?;
        // Before anything repeats the text.
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let why = "it holds a user or a password, which a gateway does not ask for; give what it asks for with .token(..)";
            return Err(ConfigError::setting("gateway", "…@…", why));
        }
        let wrong = |why: &str| ConfigError::setting("gateway", format!("{text:?}"), why);
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) => return Err(wrong("the scheme must be https or http; write https://HOST or http://HOST:PORT")),
            None => {
                return Err(wrong(&format!("it has no scheme; write https://{text}, or http://{text} without TLS")));
            }
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("a gateway has no path; write https://HOST or http://HOST:PORT"));
        }
        let host = bare(uri.host().unwrap_or_default()).to_owned();
        if host.is_empty() {
            return Err(wrong("it has no host; write https://HOST or http://HOST:PORT"));
        }
        let port = match uri.port_u16() {
            Some(0) => return Err(wrong("nothing can listen at port 0; write the gateway's port")),
            Some(port) => port,
            None if is_tls => HTTPS_PORT,
            None => return Err(wrong(&format!("it has no port; write http://{host}:8080 if that is the gateway's"))),
        };
        let server_name = if is_tls {
            let name = ServerName::try_from(host.clone());
            Some(
                name.map_err(|_| wrong("its host is neither a DNS name nor an IP address, so no certificate fits it"))?,
            )
        } else {
            None
        };
        Ok(Self { uri, host, port, server_name })
    }

    /// A name or an IP address, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The name that its certificate must have; `None` if there is no TLS.
    pub(crate) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// `SCHEME://HOST:PORT`, always with the port and in one spelling.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.server_name.is_some() { "https" } else { "http" };
        let host = self.host.strip_suffix('.').unwrap_or(&self.host).to_ascii_lowercase();
        format!("{scheme}://{}", host_and_port(&host, self.port))
    }

    /// Whether it is on this machine for sure.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    pub(crate) fn register_uri(&self) -> Uri {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static("/grpcrouter.Router/Register"));
        Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone())
    }
}

/// `HOST:PORT`.
impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host_and_port(&self.host, self.port))
    }
}

/// `HOST:PORT`, with brackets around an IPv6 address.
pub(super) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A host as URIs write it, without the brackets of an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => {
            let name = host.strip_suffix('.').unwrap_or(host);
            name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
        }
    }
}

/// Where TLS is expected if nothing else is said; it is the port that most firewalls let out.
const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_gateway_is_an_http_uri_with_a_port_or_an_https_uri() {
        for (uri, expected) in [
            ("http://127.0.0.1:8080", Ok(("127.0.0.1", 8080, false))),
            ("http://gateway.example:80/", Ok(("gateway.example", 80, false))),
            ("http://[::1]:8080", Ok(("::1", 8080, false))),
            ("https://gateway.example", Ok(("gateway.example", 443, true))),
            ("HTTPS://gateway.example:8443/", Ok(("gateway.example", 8443, true))),
            ("https://[2001:db8::1]", Ok(("2001:db8::1", 443, true))),
            ("gateway:8080", Err("no scheme; write https://gateway:8080, or http://gateway:8080 without TLS")),
            ("http://gateway", Err("no port; write http://gateway:8080")),
            ("https://gateway:0", Err("nothing can listen at port 0")),
            ("http://gateway:8080/path", Err("a gateway has no path")),
            ("tcp://gateway:8080", Err("the scheme must be https or http")),
            ("https://-", Err("neither a DNS name nor an IP address")),
            ("", Err("not a URI")),
        ] {
            match (GatewayAddress::parse(uri), expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!((found.host(), found.port(), found.server_name().is_some()), expected, "{uri}");
                }
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{uri}: {error}"),
                (found, _) => panic!("{uri}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_password_in_a_gateways_address_is_refused_and_not_repeated() {
        let error = GatewayAddress::parse("https://ana:geheim@gateway.example").unwrap_err().to_string();

        assert!(error.contains("holds a user or a password") && !error.contains("geheim"), "{error}");
    }

    #[test]
    fn the_register_path_is_put_onto_the_gateways_address() {
        let [plain, tls, six] = ["http://gateway:8080", "https://gateway", "https://[2001:db8::1]"]
            .map(|uri| GatewayAddress::parse(uri).unwrap());

        assert_eq!(plain.register_uri(), "http://gateway:8080/grpcrouter.Router/Register");
        assert_eq!(tls.register_uri(), "https://gateway/grpcrouter.Router/Register");
        assert_eq!([plain, tls, six].map(|a| a.to_string()), ["gateway:8080", "gateway:443", "[2001:db8::1]:443"]);
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (host, here) in
            [("localhost", true), ("Localhost.", true), ("a.localhost", true), ("127.8.0.1", true), ("::1", true)]
                .into_iter()
                .chain([("localhost.example", false), ("10.0.0.1", false), ("0.0.0.0", false), ("::", false)])
        {
            assert_eq!(is_loopback(host), here, "{host}");
        }
    }
}
