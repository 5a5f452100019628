//! What came is acked within the delay, or at once when it is much.

use bytes::Bytes;
use grpcrouter_protocol::{Config, Time, Tunnel};

use super::numbers_rise::number_of;

/// What one side has taken since it last wrote a batch; each batch carries an ack.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    since: Option<Time>,
    bytes: usize,
}

impl Owed {
    /// A batch comes.
    pub(crate) fn read(&mut self, message: &Bytes, now: Time) {
        // A batch of state alone is not acked.
        if number_of(message).is_some() {
            self.since.get_or_insert(now);
            self.bytes += message.len();
        }
    }

    /// A new stream carries the tunnel: what was acked before may not have arrived.
    pub(crate) fn attached(&mut self, now: Time) {
        *self = Self { since: Some(now), bytes: 0 };
    }

    /// A batch went out.
    pub(crate) fn wrote(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn always(&self, tunnel: &Tunnel, config: &Config, now: Time) {
        let waits = tunnel.wants_transmit() || tunnel.is_closed();
        assert!(waits || self.bytes < config.ack_bytes, "{} bytes and no ack", self.bytes);
        // A timer that is due and has not run yet may still bring it.
        if tunnel.poll_timeout().is_none_or(|at| at > now) {
            self.after_timers(tunnel, config, now);
        }
    }

    /// The tunnel was just told what time it is.
    pub(crate) fn after_timers(&self, tunnel: &Tunnel, config: &Config, now: Time) {
        let is_late = self.since.is_some_and(|since| since + config.ack_delay <= now);
        let waits = tunnel.wants_transmit() || tunnel.is_closed();
        assert!(waits || !is_late, "no ack since {:?}, it is {now:?}", self.since);
    }
}
