//! Where the gateway lets whom in: its listeners, and whether an address may be open to others as it is.

use std::{net::SocketAddr, sync::Arc};

use super::tls::ServerTls;

/// What the builder said of the gateway's listeners.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// For [`Gateway::listen_and_serve`](super::Gateway::listen_and_serve).
    pub(super) address: Option<String>,
    pub(super) may_be_exposed: bool,
    pub(super) register_elsewhere: bool,
    /// Of the instances' own listener; None: that of the other.
    pub(super) register_tls: Option<Arc<ServerTls>>,
}

/// Whom one listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    All,
    Clients,
    Instances,
}

/// What protects one listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    pub(super) has_tls: bool,
    /// Not everybody may register.
    pub(super) has_policy: bool,
}

/// What is to be done before `address` may be open to others, if anything.
pub(super) fn missing(address: SocketAddr, serves: Serves, guard: Guard) -> Option<String> {
    if address.ip().to_canonical().is_loopback() {
        return None;
    }
    let needs_policy = serves != Serves::Clients && !guard.has_policy;
    let steps: Vec<&str> =
        [(!guard.has_tls).then_some(NO_TLS), needs_policy.then_some(NO_POLICY)].into_iter().flatten().collect();
    (!steps.is_empty()).then(|| {
        format!(
            "others than this machine reach it, and {}; listen at a loopback address such as 127.0.0.1, or allow it as it \
             is with .insecure() [--insecure] in a network that you trust",
            steps.join("; and ")
        )
    })
}

/// Open to this machine alone.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

const NO_TLS: &str =
    "nothing is encrypted: set .tls(GatewayTls::files(\"cert.pem\", \"key.pem\")) [--tls-cert, --tls-key]";

const NO_POLICY: &str = "whoever reaches it may register as any service: set \
                         .registration(RegistrationPolicy::file(\"registration.toml\")) [--registration]";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn says(address: &str, serves: Serves, has_tls: bool, has_policy: bool) -> (bool, bool) {
        let said = missing(address.parse().unwrap(), serves, Guard { has_tls, has_policy }).unwrap_or_default();
        (said.contains(NO_TLS), said.contains(NO_POLICY))
    }

    #[test]
    fn an_address_that_others_reach_needs_tls_and_where_instances_come_a_policy() {
        for (address, serves, has_tls, has_policy, tls, policy) in [
            ("127.0.0.1:1", Serves::All, false, false, false, false),
            ("[::1]:1", Serves::All, false, false, false, false),
            ("[::ffff:127.0.0.1]:1", Serves::All, false, false, false, false),
            ("0.0.0.0:1", Serves::All, false, false, true, true),
            ("[::]:1", Serves::All, false, false, true, true),
            ("192.0.2.1:1", Serves::All, true, false, false, true),
            ("192.0.2.1:1", Serves::All, false, true, true, false),
            ("192.0.2.1:1", Serves::All, true, true, false, false),
            ("192.0.2.1:1", Serves::Clients, true, false, false, false),
            ("192.0.2.1:1", Serves::Clients, false, false, true, false),
            ("192.0.2.1:1", Serves::Instances, true, false, false, true),
        ] {
            assert_eq!(says(address, serves, has_tls, has_policy), (tls, policy), "{address} {serves:?}");
        }
    }
}
