//! Unacked and queued bytes stay within what the limits say.

use grpcrouter_protocol::{Config, Tunnel};

use crate::sim::model::LONGEST;

/// What a source gives at most beyond the capacity that it was told.
const CHUNK: usize = 400;

pub(crate) fn always(tunnel: &Tunnel, config: &Config) {
    let calls = config.max_open_calls as usize;
    // Control goes out beyond the limit: at most a cancel or a refusal for each call that was ever let in unacked.
    let control = config.replay_limit / 2 + calls * 32;
    let unacked = tunnel.unacked_bytes();
    assert!(unacked <= config.replay_limit + control, "{unacked} of {}", config.replay_limit);
    let queued = tunnel.queued_bytes();
    // A first chunk may come with the call, whatever its size.
    assert!(queued <= calls * (config.initial_window as usize + 2 * CHUNK + LONGEST), "{queued} queued");
}
