//! A call whose consumer takes nothing stops no other call.

use crate::sim::model::Call;

/// True when every call that does not stall, and could be opened, has ended.
pub(crate) fn holds(calls: &[Call]) -> bool {
    calls.iter().all(|call| call.plan.stalls() || !(call.gateway.is_open || call.instance.is_open))
}
