//! The shell's clock: tells the core what time it is. Tokio's, so that tests can pause it.

use std::sync::LazyLock;

use grpcrouter_protocol::Time;
use tokio::time::Instant;

/// One origin for the process: a deadline taken in one tunnel means the same in the next.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, as the core counts it.
pub(crate) fn now() -> Time {
    let origin = *ORIGIN;
    let elapsed = Instant::now().saturating_duration_since(origin);
    Time::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// The core's `time` as tokio counts it.
pub(crate) fn instant(time: Time) -> Instant {
    *ORIGIN + std::time::Duration::from_nanos(time.as_nanos())
}
