//! How gateways are dialled, as it was set; checked for each gateway.

use std::time::Duration;

use super::proxy::ProxySetting;
use super::tls::TlsFiles;
use super::token::Token;
use super::{Dialler, GatewayAddress};
use crate::error::ConfigError;

/// What a builder was told of the way to its gateways.
#[derive(Debug, Clone)]
pub(crate) struct WayOut {
    pub(crate) proxy: ProxySetting,
    pub(crate) tls: TlsFiles,
    pub(crate) token: Token,
    /// Whether a token may go where everybody on the way can read it.
    pub(crate) is_insecure: bool,
    /// For all steps together.
    pub(crate) timeout: Duration,
}

impl Default for WayOut {
    fn default() -> Self {
        Self {
            proxy: ProxySetting::default(),
            tls: TlsFiles::default(),
            token: Token::default(),
            is_insecure: false,
            timeout: TIMEOUT,
        }
    }
}

impl WayOut {
    /// The way to this gateway. `environment` tells variables.
    pub(crate) fn to(
        &self,
        gateway: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Dialler, ConfigError> {
        let gateway = GatewayAddress::parse(gateway)?;
        self.token.check()?;
        if !(SHORTEST..=LONGEST).contains(&self.timeout) {
            return Err(ConfigError::setting(
                "dial_timeout",
                format!("{:?}", self.timeout),
                "it must be from 100 ms to 300 s",
            ));
        }
        let proxy = self.proxy.choose(&gateway, environment)?;
        // A proxy's loopback is not this machine's.
        let is_readable = gateway.server_name().is_none() && (!gateway.is_loopback() || proxy.is_some());
        if is_readable && self.token.is_some() && !self.is_insecure {
            let why = format!(
                "everybody on the way could read the token, for there is no TLS; write https://{}, or allow it with \
                 .insecure() or --insecure in a network that you trust",
                gateway.host()
            );
            return Err(ConfigError::setting("gateway", format!("\"http://{gateway}\""), why));
        }
        Ok(Dialler { gateway, proxy, tls: self.tls.clone(), token: self.token.clone(), timeout: self.timeout })
    }
}

/// Name, TCP, proxy, TLS, HTTP/2, Hello and Welcome together. A gateway that takes longer is of no use.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What may be set: less reaches nobody, and more would leave a dead way unnoticed.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::backend::dial::Hidden;

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine_unless_it_is_allowed_to_be_read() {
        let with_token = |is_insecure| WayOut {
            token: Token::Text(Hidden("grt_1_secret".to_owned())),
            is_insecure,
            ..WayOut::default()
        };
        let none = |_: &str| None;

        let error = with_token(false).to("http://gateway.example:8080", none).unwrap_err().to_string();
        assert_eq!(
            error,
            "gateway(\"http://gateway.example:8080\") cannot be used: everybody on the way could read the token, for there \
             is no TLS; write https://gateway.example, or allow it with .insecure() or --insecure in a network that you trust"
        );
        for fine in ["https://gateway.example", "http://localhost:8080", "http://[::1]:8080"] {
            with_token(false).to(fine, none).unwrap();
        }
        with_token(true).to("http://gateway.example:8080", none).unwrap();
        WayOut::default().to("http://gateway.example:8080", none).unwrap();
    }

    #[test]
    fn a_proxy_of_the_environment_that_cannot_be_used_is_named_by_its_variable() {
        let environment = |name: &str| (name == "HTTPS_PROXY").then(|| "socks5://proxy:1080".to_owned());

        let error = WayOut::default().to("https://gateway.example", environment).unwrap_err().to_string();

        assert!(
            error.starts_with("HTTPS_PROXY(\"socks5://proxy:1080\") cannot be used: socks5 is not spoken"),
            "{error}"
        );
        let never = WayOut { proxy: ProxySetting::Never, ..WayOut::default() };
        assert!(never.to("https://gateway.example", environment).unwrap().proxy.is_none());
    }
}
