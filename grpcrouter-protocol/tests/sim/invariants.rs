//! What must hold, one promise a file.

pub(crate) mod acks_in_time;
pub(crate) mod all_returns;
pub(crate) mod bytes_in_order;
pub(crate) mod credit_returns;
pub(crate) mod each_call_ends_once;
pub(crate) mod nobody_waits_for_a_stalled_call;
pub(crate) mod outbox_bounded;
pub(crate) mod windows_hold;
