//! Time as it is made here: it goes on only when nothing is left to do now, and faster while nothing happens at all. So a
//! machine that is slow makes a schedule slow, and not another one.

use std::{future::poll_fn, pin::pin, task::Poll, thread, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, advance},
};

/// Runs `work` to its end and makes time pass for it. None: it had not ended after `limit`.
///
/// `moved` counts what happens, such as bytes that went somewhere.
pub(crate) async fn drive<T>(work: impl Future<Output = T>, moved: impl Fn() -> u64, limit: Duration) -> Option<T> {
    let mut work = pin!(work);
    let (began, mut quiet, mut last) = (Instant::now(), 0, moved());
    while began.elapsed() < limit {
        // Each turn runs what is ready and then asks the sockets.
        for _ in 0..TURNS {
            if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
                return Some(done);
            }
            yield_now().await;
        }
        let now = moved();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
        // What was sent may still be on its way through this machine's network, which keeps a time of its own.
        let (tick, pause) = if quiet < QUIET { (TICK, BREATH) } else { (LONG_TICK, LONG_BREATH) };
        thread::sleep(pause); // waits because the machine's network has to move before time does
        advance(tick).await;
    }
    None
}

/// A call crosses this many tasks and sockets within one tick, and goes on in the next one.
const TURNS: usize = 6;

const TICK: Duration = Duration::from_millis(1);

/// So many ticks in which nothing happened: all wait for a timer.
const QUIET: u32 = 20;

const LONG_TICK: Duration = Duration::from_millis(40);

const BREATH: Duration = Duration::from_micros(20);

const LONG_BREATH: Duration = Duration::from_micros(200);
