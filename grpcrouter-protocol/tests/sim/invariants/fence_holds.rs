//! Nothing of a stream that carries the tunnel no more is taken, whatever still comes on it, and nothing is written to it.

use grpcrouter_protocol::{Totals, Tunnel};

/// What came on such a stream was handed in.
pub(crate) fn took_nothing(before: Totals, tunnel: &Tunnel) {
    assert_eq!(before, tunnel.totals(), "a fenced stream is read");
}

/// Somebody wanted to write to a stream.
pub(crate) fn wrote(is_carrier: bool, wanted: bool, has_written: bool) {
    assert_eq!(is_carrier && wanted, has_written, "only the stream that carries a tunnel is written");
}
