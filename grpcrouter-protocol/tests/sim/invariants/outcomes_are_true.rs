//! What is said of a call that did not end by itself is true: one that comes back never started and is whole, and one that
//! is in doubt may have been written. A call starts at most once, in whatever tunnels it was tried.

use grpcrouter_protocol::OpenCall;

use crate::sim::model::{Call, Direction, bytes};

/// A call came back, to be opened elsewhere.
pub(crate) fn comes_back_whole(call: &Call, back: &OpenCall) {
    assert!(!call.instance.is_open && call.instance.end.is_none(), "it never started");
    assert_eq!(back.start.path.as_str(), format!("/sim/{}", call.index));
    assert_eq!(back.data, bytes(call.index, Direction::Request, 0, call.gateway.gave));
    assert_eq!(back.half_close, call.gateway.gave_end);
    assert_eq!(back.deadline, call.deadline);
}

/// A call may have been executed.
pub(crate) fn is_in_doubt(call: &Call) {
    assert!(call.may_be_sent, "nothing was written since it was opened: {call:?}");
}

/// A handler is asked for.
pub(crate) fn starts(call: &Call) {
    assert!(!call.instance.is_open && call.instance.end.is_none(), "a call starts once: {call:?}");
}
