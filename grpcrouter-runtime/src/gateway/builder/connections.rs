//! What a gateway's own listener is to be: its TLS, and what each connection may cost.

use std::time::Duration;

use super::GatewayBuilder;
use crate::{error::ConfigError, gateway::tls::GatewayTls};

/// Of the connections to the gateway's own listeners.
impl GatewayBuilder {
    /// Serves TLS: [`Gateway::serve`](crate::Gateway::serve) speaks nothing else then, to clients and to instances. The
    /// files are read by `build()`, and again whenever they change. Default: no TLS.
    pub fn tls(mut self, value: GatewayTls) -> Self {
        self.tls = Some(value);
        self
    }

    /// How many of [`max_connections`](Self::max_connections) may come from one IP address, or one /64 of IPv6; one more
    /// is closed at once. Default 1,000: one address takes a tenth of the gateway at most, and a whole site of instances
    /// behind one NAT or proxy has room. Raise it where a load balancer hides who connects. At least 1.
    pub fn max_connections_per_address(mut self, value: usize) -> Self {
        self.max_connections_per_address = value;
        self
    }

    /// How long a new connection may take for TLS, the preface of HTTP/2 and the head of its first call, all together;
    /// then it is closed. Default 10 s: enough for a slow network, too little to fill the gateway with connections that
    /// say nothing. A client that connects and calls later connects once more then, by itself.
    pub fn opening_timeout(mut self, value: Duration) -> Self {
        self.times.opening = value;
        self
    }

    /// How long a connection without any call stays; then it is told to end, in the way of HTTP/2 that loses no call.
    /// Default 300 s. Connections of instances stay.
    pub fn idle_timeout(mut self, value: Duration) -> Self {
        self.times.idle = value;
        self
    }

    /// How often a connection is pinged, and how long its answer may take before it counts as dead and its calls as
    /// cancelled. Default every 60 s, and 20 s for the answer: what a router on the way forgot is noticed, and nobody is
    /// cut off for a bad line.
    pub fn keepalive(mut self, every: Duration, patience: Duration) -> Self {
        (self.times.ping_every, self.times.ping_patience) = (every, patience);
        self
    }

    pub(super) fn check_connections(&self) -> Result<(), ConfigError> {
        for (setting, value) in [
            ("max_connections", self.max_connections),
            ("max_connections_per_address", self.max_connections_per_address),
        ] {
            if value == 0 {
                return Err(ConfigError::setting(setting, 0, "nobody could connect: use 1 or more"));
            }
        }
        for (setting, value) in [
            ("opening_timeout", self.times.opening),
            ("idle_timeout", self.times.idle),
            ("keepalive", self.times.ping_every),
            ("keepalive", self.times.ping_patience),
        ] {
            if value.is_zero() {
                return Err(ConfigError::setting(setting, "0 s", "every connection would end at once: use more"));
            }
        }
        Ok(())
    }
}

/// A tenth of all, and several hundred instances of one site.
pub(super) const MAX_CONNECTIONS_PER_ADDRESS: usize = 1_000;
