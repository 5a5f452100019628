//! A call ends exactly once on each side, and nothing of it comes after its end.

use crate::sim::model::{Call, End, Side};

/// Something of a call came.
pub(crate) fn event(side: &Side) {
    assert!(side.is_open, "an event of a call that is not open: {side:?}");
}

/// A call ends on one side.
pub(crate) fn end(side: &mut Side, end: End) {
    assert!(side.is_open && side.end.is_none(), "a second end, {end:?}: {side:?}");
    side.is_open = false;
    side.end = Some(end);
    side.pending.clear();
}

/// At rest every call that was opened has ended on both sides, and the two ends fit.
pub(crate) fn at_rest(calls: &[Call]) {
    for call in calls {
        let (gateway, instance) = (call.gateway.end, call.instance.end);
        assert!(gateway.is_some() && !call.instance.is_open, "still open: {call:?}");
        match (gateway, instance) {
            // What the client saw as an answer is what the handler gave.
            (Some(End::Answered | End::GaveUp), instance) => assert_eq!(instance, gateway, "{call:?}"),
            (Some(End::Refused), instance) => assert_eq!(instance, None, "{call:?}"),
            _ => {}
        }
    }
}
