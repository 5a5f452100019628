//! Deadlines to try one after the other, where something must have happened before one passes: how long that takes
//! depends on the machine.

use std::time::Duration;

/// The last is longer than any machine needs.
const DEADLINES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(4), Duration::from_secs(30)];

/// What `one_try` gives with the first deadline that is long enough: None asks for a longer one.
///
/// # Panics
/// If none is.
pub async fn long_enough<T>(mut one_try: impl AsyncFnMut(Duration) -> Option<T>) -> T {
    for deadline in DEADLINES {
        if let Some(done) = one_try(deadline).await {
            return done;
        }
    }
    panic!("not even {:?} was long enough", DEADLINES.last());
}

/// As the header `grpc-timeout` says it.
pub fn grpc_timeout(deadline: Duration) -> String {
    format!("{}m", deadline.as_millis())
}
