//! Which of several answers a call. A balancer thinks when the set changes and makes a picker; a picker looks, once for
//! each call, without a lock.

mod round_robin;

use std::{fmt::Debug, sync::Arc};

pub(super) use self::round_robin::RoundRobin;

/// Makes pickers. Kept from one set to the next, so that it can remember.
pub(super) trait Balancer<T>: Debug + Send {
    /// A picker over `ready`, which may be empty.
    fn picker(&mut self, ready: Vec<Arc<T>>) -> Arc<dyn Picker<T>>;
}

/// Answers for one set that does not change any more.
pub(super) trait Picker<T>: Debug + Send + Sync {
    /// One of those that suit; `None` if none does.
    fn pick(&self, suits: &dyn Fn(&T) -> bool) -> Option<Arc<T>>;
}
