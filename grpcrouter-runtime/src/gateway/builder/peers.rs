//! Where this gateway is for instances, and which others they may go to.

use super::GatewayBuilder;
use crate::{
    error::ConfigError,
    gateway::peers::{MAX_PEERS, PeerUri, Peers},
};

/// What was said of this gateway and the others.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    own: Option<String>,
    list: Vec<String>,
    name: Option<String>,
}

/// Of several gateways that serve the same instances.
impl GatewayBuilder {
    /// Where instances reach this gateway, `https://HOST` or `http://HOST:PORT`: the name under which the others list it.
    /// Default: none. It is left out of the lists that this gateway tells, so that all can be given the same
    /// [`peers`](Self::peers).
    ///
    /// Give instances one of these addresses to dial: behind a load balancer a lost connection may be dialled again to
    /// another gateway, which does not hold the tunnel, and the calls in it end.
    pub fn advertise(mut self, uri: impl Into<String>) -> Self {
        self.said_of_peers.own = Some(uri.into());
        self
    }

    /// The other gateways, each as it is [advertised](Self::advertise). At most 64; default none.
    ///
    /// Every instance that registers is told of them and, unless it does not follow, registers there too; when this
    /// gateway stops, instances are at the others already. An instance trusts them as it trusts this one: with its own
    /// certificates of authorities, and its token.
    pub fn peers<U: Into<String>>(mut self, uris: impl IntoIterator<Item = U>) -> Self {
        self.said_of_peers.list = uris.into_iter().map(Into::into).collect();
        self
    }

    /// The same, but looked up: `http://NAME:PORT` stands for a gateway at that port of each address that DNS has for the
    /// name, such as that of a headless service. Looked up every 30 s while [`Gateway::serve`](crate::Gateway::serve)
    /// runs; every instance is told of a change. A look that fails changes nothing.
    ///
    /// What instances are told are addresses: with `https` the certificates of the gateways must hold them. Say with
    /// [`advertise`](Self::advertise) which address is this one's, or it tells instances of itself too.
    pub fn peers_dns(mut self, uri: impl Into<String>) -> Self {
        self.said_of_peers.name = Some(uri.into());
        self
    }
}

impl Said {
    /// Checked.
    pub(super) fn peers(&self) -> Result<Peers, ConfigError> {
        let read = |setting: &'static str, text: &String| {
            // A password in it is for nobody's log.
            let shown = if text.contains('@') { "…@…".to_owned() } else { format!("{text:?}") };
            PeerUri::parse(text).map_err(|why| ConfigError::setting(setting, shown, why))
        };
        if self.name.is_some() && !self.list.is_empty() {
            let why = "the other gateways are written down with .peers(..) too; give one of the two";
            return Err(ConfigError::setting("peers_dns", "..", why));
        }
        if self.list.len() > MAX_PEERS {
            let why = format!("a gateway tells of at most {MAX_PEERS} others; instances go to a few of them anyhow");
            return Err(ConfigError::setting("peers", format!("{} gateways", self.list.len()), why));
        }
        let own = self.own.as_ref().map(|text| read("advertise", text)).transpose()?;
        let list = self.list.iter().map(|text| read("peers", text)).collect::<Result<Vec<_>, _>>()?;
        let name = self.name.as_ref().map(|text| read("peers_dns", text)).transpose()?;
        Ok(Peers::new(own, &list, name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use crate::{
        Gateway,
        gateway::{GatewayBuilder, tests::OrdersRouter},
    };

    fn told(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Result<Vec<String>, String> {
        let built = settings(Gateway::builder().add_router::<OrdersRouter>()).build();
        built.map(|gateway| gateway.core().peers.list()).map_err(|error| error.to_string())
    }

    #[test]
    fn all_gateways_can_be_given_one_list_and_each_tells_of_the_others() {
        let all = ["https://a.example", "https://b.example"];

        assert_eq!(
            told(|builder| builder.advertise("https://a.example:443").peers(all)).unwrap(),
            ["https://b.example:443"]
        );
        assert_eq!(told(|builder| builder).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_meant_is_told_when_the_gateway_is_built() {
        for (error, said) in [
            (
                told(|it| it.advertise("a.example:443")),
                "advertise(\"a.example:443\") cannot be used: it has no scheme; ",
            ),
            (told(|it| it.peers(["https://a", "http://b"])), "peers(\"http://b\") cannot be used: it has no port; "),
            (told(|it| it.peers_dns("tcp://b:1")), "peers_dns(\"tcp://b:1\") cannot be used: its scheme is neither "),
            (told(|it| it.peers(["https://me:secret@b"])), "peers(…@…) cannot be used: it holds a user "),
            (told(|it| it.peers(["https://a"]).peers_dns("http://b:1")), "peers_dns(..) cannot be used: "),
            (told(|it| it.peers((0..65).map(|n| format!("https://g{n}")))), "peers(65 gateways) cannot be used: "),
        ] {
            let error = error.unwrap_err();
            assert!(error.starts_with(said), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
