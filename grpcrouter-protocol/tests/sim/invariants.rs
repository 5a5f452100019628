//! What must hold whatever happens, one promise a file.

pub(crate) mod acks_in_time;
pub(crate) mod all_returns;
pub(crate) mod attached_as_told;
pub(crate) mod bytes_in_order;
pub(crate) mod credit_returns;
pub(crate) mod deadlines_run;
pub(crate) mod each_call_ends_once;
pub(crate) mod fence_holds;
pub(crate) mod nobody_waits_for_a_stalled_call;
pub(crate) mod numbers_rise;
pub(crate) mod outbox_bounded;
pub(crate) mod outcomes_are_true;
pub(crate) mod over_for_a_reason;
pub(crate) mod tokens_hold;
pub(crate) mod windows_hold;
