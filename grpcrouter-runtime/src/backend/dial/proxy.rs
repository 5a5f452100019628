//! Proxies: which one a gateway is dialled through, and how it is asked (CONNECT, RFC 9110 section 9.3.6).

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, BytesMut};
use http::Uri;
use http::uri::Scheme;
use percent_encoding::percent_decode_str;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::address::{GatewayAddress, bare, host_and_port};
use super::no_proxy;
use super::road::Road;
use crate::error::{ConfigError, ProxyProblem, Spoken};
use crate::status::shown;

/// Where a backend gets the address of a proxy from.
#[derive(Debug, Default, Clone)]
pub(crate) enum ProxySetting {
    #[default]
    Environment,
    Url(Hidden),
    Never,
}

/// Text that no log may show.
#[derive(Clone)]
pub(crate) struct Hidden(pub(crate) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl ProxySetting {
    /// The proxy to dial `gateway` through, if any. `environment` tells variables.
    pub(crate) fn choose(
        &self,
        gateway: &GatewayAddress,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Proxy>, ConfigError> {
        match self {
            Self::Never => Ok(None),
            Self::Url(url) => Proxy::parse("proxy", &url.0).map(Some),
            Self::Environment => {
                // No proxy can reach this machine's loopback.
                if gateway.is_loopback() {
                    return Ok(None);
                }
                let set = |names: &[&'static str]| {
                    names.iter().find_map(|name| {
                        environment(name).filter(|value| !value.trim().is_empty()).map(|value| (*name, value))
                    })
                };
                // HTTP_PROXY in capitals is what a web server makes of a client's "Proxy" header: curl does not read it.
                let own: &[&str] =
                    if gateway.server_name().is_some() { &["https_proxy", "HTTPS_PROXY"] } else { &["http_proxy"] };
                let Some((name, url)) = set(own).or_else(|| set(&["all_proxy", "ALL_PROXY"])) else { return Ok(None) };
                let exempt = set(&["no_proxy", "NO_PROXY"])
                    .is_some_and(|(_, list)| no_proxy::names(&list, gateway.host(), gateway.port()));
                if exempt { Ok(None) } else { Proxy::parse(name, &url).map(Some) }
            }
        }
    }
}

/// A proxy, checked.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    host: String,
    port: u16,
    /// The name that its certificate must have; `None` if it is spoken to in the clear.
    server_name: Option<ServerName<'static>>,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Hidden>,
}

impl Proxy {
    /// Reads a URL; `setting` is who gave it.
    fn parse(setting: &'static str, url: &str) -> Result<Self, ConfigError> {
        let url = url.trim();
        let wrong = |why: &str| ConfigError::setting(setting, redacted(url), why);
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let no_url = || {
            wrong(
                "it is not a URL; write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %40 for @, %23 for # and \
                 %2F for / in the password",
            )
        };
        let uri: Uri = full.parse().map_err(|_| no_url())?;
        // A password that is not encoded ends the host early, and what is before it would pass for one.
        if full.contains('#') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(no_url());
        }
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            other => {
                let scheme = other.map_or("it", |scheme| scheme.as_str());
                return Err(wrong(&format!(
                    "{scheme} is not spoken, but http and https proxies are; write http://HOST:PORT, or say .no_proxy() if \
                     the gateway is reached without one"
                )));
            }
        };
        let host = bare(uri.host().unwrap_or_default()).to_owned();
        if host.is_empty() {
            return Err(wrong("it has no host; write http://HOST:PORT"));
        }
        let port = match uri.port_u16() {
            Some(0) => return Err(wrong("nothing can listen at port 0; write the proxy's port")),
            Some(port) => port,
            None if is_tls => 443,
            None => 80,
        };
        let server_name = if is_tls {
            let name = ServerName::try_from(host.clone());
            Some(
                name.map_err(|_| wrong("its host is neither a DNS name nor an IP address, so no certificate fits it"))?,
            )
        } else {
            None
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let authorization = authority.rsplit_once('@').map(|(credentials, _)| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let mut plain: Vec<u8> = percent_decode_str(user).collect();
            plain.push(b':');
            plain.extend(percent_decode_str(password));
            Hidden(format!("Basic {}", BASE64_STANDARD.encode(plain)))
        });
        Ok(Self { host, port, server_name, authorization })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The name that its certificate must have; `None` if it is spoken to in the clear.
    pub(super) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// Asks for a connection to `target`, which the road is from then on.
    pub(super) async fn connect(&self, mut road: Road, target: &str) -> Result<Road, ProxyProblem> {
        let authorization = match &self.authorization {
            Some(Hidden(value)) => format!("Proxy-Authorization: {value}\r\n"),
            None => String::new(),
        };
        let agent = concat!("grpcrouter/", env!("CARGO_PKG_VERSION"));
        let request = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}User-Agent: {agent}\r\n\
             Proxy-Connection: keep-alive\r\n\r\n"
        );
        road.write_all(request.as_bytes()).await.map_err(ProxyProblem::Broke)?;
        road.flush().await.map_err(ProxyProblem::Broke)?;

        let heard = road.heard();
        let mut read = BytesMut::with_capacity(1024);
        loop {
            // More than one may be there: an interim answer, and the real one behind it.
            while !read.is_empty() {
                let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
                let mut response = httparse::Response::new(&mut headers);
                match response.parse(&read) {
                    Ok(httparse::Status::Partial) => break,
                    Ok(httparse::Status::Complete(length)) => {
                        let answer = self.read_answer(&response);
                        read.advance(length);
                        match answer {
                            Some(Ok(())) => return Ok(road.behind_proxy(read.freeze())),
                            Some(Err(problem)) => return Err(problem),
                            None => {}
                        }
                    }
                    Err(httparse::Error::TooManyHeaders) => return Err(ProxyProblem::TooLong { limit: MAX_HEAD }),
                    Err(_) if heard.spoken() == Spoken::Tls => return Err(ProxyProblem::SpeaksTls),
                    Err(_) => return Err(ProxyProblem::NotHttp),
                }
            }
            if read.len() >= MAX_HEAD {
                return Err(ProxyProblem::TooLong { limit: MAX_HEAD });
            }
            match road.read_buf(&mut read).await {
                Ok(0) if read.is_empty() => return Err(ProxyProblem::Closed),
                Ok(0) => return Err(ProxyProblem::NotHttp),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Err(ProxyProblem::Closed),
                Err(error) => return Err(ProxyProblem::Broke(error)),
            }
        }
    }

    fn read_answer(&self, response: &httparse::Response<'_, '_>) -> Option<Result<(), ProxyProblem>> {
        let code = response.code.unwrap_or_default();
        let answer = format!("{code} {}", shown(response.reason.unwrap_or_default())).trim_end().to_owned();
        Some(match code {
            100..=199 => return None,
            200..=299 => Ok(()),
            407 => Err(self.wants_credentials(response.headers)),
            401 if self.authorization.is_some() => Err(ProxyProblem::WrongCredentials { code }),
            401 | 403 | 451 => Err(ProxyProblem::Refused { answer }),
            500 | 502..=504 => Err(ProxyProblem::NotReached { answer }),
            _ => Err(ProxyProblem::Other { answer }),
        })
    }

    fn wants_credentials(&self, headers: &[httparse::Header<'_>]) -> ProxyProblem {
        let offered: Vec<String> = headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"))
            .filter_map(|header| std::str::from_utf8(header.value).ok()?.split_whitespace().next().map(shown))
            .collect();
        if offered.is_empty() || offered.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
            match self.authorization {
                Some(_) => ProxyProblem::WrongCredentials { code: 407 },
                None => ProxyProblem::WantsCredentials,
            }
        } else {
            ProxyProblem::OtherCredentials { offered: offered.join(" or ") }
        }
    }
}

/// Without its user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.server_name.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}", host_and_port(&self.host, self.port))
    }
}

/// A URL as it may stand in an error: nothing of what is before its last `@`.
fn redacted(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("\"…@{}\"", shown(host)),
        None => format!("\"{}\"", shown(url)),
    }
}

/// The head of a proxy's answer: many send a few hundred bytes, some a page of headers.
const MAX_HEAD: usize = 8 * 1024;

/// Lines of that head.
const MAX_HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn chosen(gateway: &str, environment: &[(&str, &str)]) -> Option<String> {
        let read = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let gateway = GatewayAddress::parse(gateway).unwrap();
        ProxySetting::Environment.choose(&gateway, read).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_environment_chooses_the_proxy_as_it_does_for_curl() {
        let all = [
            ("HTTPS_PROXY", "http://secure:1"),
            ("http_proxy", "plain:2"),
            ("HTTP_PROXY", "http://never:3"),
            ("ALL_PROXY", "https://any"),
            ("NO_PROXY", ".inside, 10.0.0.0/8"),
        ];
        for (gateway, environment, expected) in [
            ("https://gateway.example", &all[..], Some("http://secure:1")),
            ("http://gateway.example:8080", &all[..], Some("http://plain:2")),
            ("https://gateway.inside", &all[..], None),
            ("https://10.1.2.3", &all[..], None),
            ("https://localhost:8443", &all[..], None),
            ("http://127.0.0.1:8080", &all[..], None),
            ("http://gateway.example:8080", &all[2..], Some("https://any:443")),
            ("http://gateway.example:8080", &all[2..3], None),
            (
                "https://gateway.example",
                &[("https_proxy", "http://small:1"), ("HTTPS_PROXY", "http://big:1")],
                Some("http://small:1"),
            ),
            ("https://gateway.example", &[("HTTPS_PROXY", " "), ("all_proxy", "http://any:1")], Some("http://any:1")),
            ("https://gateway.example", &[], None),
        ] {
            assert_eq!(chosen(gateway, environment).as_deref(), expected, "{gateway} {environment:?}");
        }
    }

    #[test]
    fn a_user_and_a_password_are_decoded_and_shown_nowhere() {
        let proxy = Proxy::parse("proxy", "http://ana%40site:p%23%3A%20w@proxy.example:3128").unwrap();

        let sent = proxy.authorization.as_ref().unwrap().0.strip_prefix("Basic ").unwrap();
        assert_eq!(BASE64_STANDARD.decode(sent).unwrap(), b"ana@site:p#: w");
        assert_eq!(proxy.to_string(), "http://proxy.example:3128");
        assert!(!format!("{proxy:?}").contains(sent));
    }

    #[test]
    fn a_url_that_cannot_be_used_is_told_without_its_password() {
        for (url, said) in [
            ("http://ana:ge#heim@proxy.example", "proxy(\"…@proxy.example\") cannot be used: it is not a URL; write"),
            ("http://ana:ge heim@proxy.example", "proxy(\"…@proxy.example\") cannot be used: it is not a URL; write"),
            (
                "socks5://ana:geheim@proxy:1080",
                "proxy(\"…@proxy:1080\") cannot be used: socks5 is not spoken, but http",
            ),
            ("http://ana:geheim@proxy:0", "port 0"),
            ("http://ana:ge/heim@proxy.example", "it is not a URL; write"),
            ("http://", "it is not a URL"),
        ] {
            let error = Proxy::parse("proxy", url).unwrap_err().to_string();
            assert!(error.contains(said), "{url}: {error}");
            assert!(!error.contains("heim"), "{error}");
        }
    }
}
