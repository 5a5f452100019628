//! Who may register, and where.

use std::net::SocketAddr;

use super::GatewayBuilder;
use crate::{
    error::ConfigError,
    gateway::{
        doors::{Guard, Serves, missing},
        registration::RegistrationPolicy,
        tls::GatewayTls,
    },
};

/// What was said of the gateway's listeners.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) policy: Option<RegistrationPolicy>,
    pub(super) listen: Option<String>,
    pub(super) insecure: bool,
    pub(super) register_elsewhere: bool,
    pub(super) register_tls: Option<GatewayTls>,
}

/// Of those who register, and of the addresses that they and clients reach.
impl GatewayBuilder {
    /// Who may register: nobody but those whom this names, each only what is said of it. Default: none, so whoever reaches
    /// the gateway may register anything.
    ///
    /// An instance id is its principal's for as long as it is here and five minutes more; nobody else gets it in that
    /// time, nor its calls. The rules are asked at Hello, at each Update, and again when they change or a time in them is
    /// over: who may not be here any more is cut off within a second, and its calls end UNAVAILABLE.
    pub fn registration(mut self, policy: RegistrationPolicy) -> Self {
        self.said.policy = Some(policy);
        self
    }

    /// Lets the gateway listen where others than this machine reach it without TLS or without a
    /// [`registration`](Self::registration) policy. Default: that fails, when it is built or served. What is set of the
    /// two holds all the same. For networks that you trust, and behind a proxy that brings the TLS.
    pub fn insecure(mut self) -> Self {
        self.said.insecure = true;
        self
    }

    /// The address for [`Gateway::listen_and_serve`](crate::Gateway::listen_and_serve), as `HOST:PORT`. `build()` checks
    /// that it may be open to others. Default `127.0.0.1:8080`: open to this machine alone.
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.said.listen = Some(address.to_string());
        self
    }

    /// No instance registers at the listener of [`Gateway::serve`](crate::Gateway::serve): they come to that of
    /// [`Gateway::serve_register`](crate::Gateway::serve_register), and a firewall can tell the two apart.
    pub fn register_elsewhere(mut self) -> Self {
        self.said.register_elsewhere = true;
        self
    }

    /// TLS for [`Gateway::serve_register`](crate::Gateway::serve_register). Default: the same as [`tls`](Self::tls).
    pub fn register_tls(mut self, value: GatewayTls) -> Self {
        self.said.register_tls = Some(value);
        self
    }

    /// Of the address that is known already. A name is looked up, and then checked, when the gateway listens.
    pub(super) fn check_exposure(&self) -> Result<(), ConfigError> {
        let Said { policy, listen, insecure, register_elsewhere, .. } = &self.said;
        let Some(address) = listen.as_deref().and_then(|address| address.parse::<SocketAddr>().ok()) else {
            return Ok(());
        };
        let serves = if *register_elsewhere { Serves::Clients } else { Serves::All };
        let guard = Guard { has_tls: self.tls.is_some(), has_policy: policy.is_some() };
        match missing(address, serves, guard) {
            Some(why) if !insecure => Err(ConfigError::setting("listen", address, why)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use crate::{
        Gateway, RegistrationPolicy, RegistrationRule,
        gateway::{GatewayBuilder, tests::OrdersRouter},
    };

    fn built(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Result<Gateway, String> {
        settings(Gateway::builder().add_router::<OrdersRouter>()).build().map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_for_everybody_without_tls_and_policy_says_what_to_do_unless_that_is_wanted() {
        let error = built(|builder| builder.listen("0.0.0.0:8080")).unwrap_err();

        assert!(
            error.starts_with("listen(0.0.0.0:8080) cannot be used: others than this machine reach it, "),
            "{error}"
        );
        for step in [".tls(", "--tls-cert", ".registration(", "--registration", "127.0.0.1", ".insecure()"] {
            assert!(error.contains(step), "{step} {error}");
        }
        assert!(built(|builder| builder.listen("0.0.0.0:8080").insecure()).is_ok());
        assert!(built(|builder| builder.listen("127.0.0.1:8080")).is_ok());
    }

    #[test]
    fn a_policy_with_a_mistake_is_told_when_the_gateway_is_built() {
        let with =
            |rules: Vec<RegistrationRule>| built(|builder| builder.registration(RegistrationPolicy::rules(rules)));
        let rule = || RegistrationRule::new("site-a").services(["shop.*"]);

        assert!(with(vec![rule()]).is_ok());
        for (rules, said) in [
            (vec![RegistrationRule::new("site-a")], "the rule of \"site-a\": it names no services"),
            (vec![RegistrationRule::new("").services(["*"])], "the rule of \"\": the name \"\" cannot be used"),
            (vec![rule(), rule()], "the rule of \"site-a\": there is another one of this name"),
            (vec![rule().max_instances(0)], "the rule of \"site-a\": max_instances must be 1 or more"),
            (vec![rule().certificate("site-a")], "the rule of \"site-a\": \"site-a\" cannot be used: it is no URI"),
        ] {
            let error = with(rules).unwrap_err();
            assert!(error.starts_with(&format!("registration(rules) cannot be used: {said}")), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told_with_what_makes_one() {
        let error = built(|builder| builder.registration(RegistrationPolicy::file("/nowhere/r.toml"))).unwrap_err();

        assert!(error.contains("cannot read /nowhere/r.toml: "), "{error}");
        assert!(error.contains("grpcrouter token create"), "{error}");
    }
}
