//! Finds out that a silent connection is dead: calls that wait on it would wait for ever.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// Pings the peer now and then.
pub(super) struct Keepalive {
    pings: PingPong,
    next: Pin<Box<Sleep>>,
    /// A ping is out.
    waiting: bool,
}

impl Keepalive {
    pub(super) fn new(pings: PingPong) -> Self {
        Self { pings, next: Box::pin(sleep(EVERY)), waiting: false }
    }

    /// Ready when the peer is dead.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting {
                match self.pings.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.waiting = false;
                        self.next.as_mut().reset(Instant::now() + EVERY);
                    }
                    // The connection is over; whoever polls it will know why.
                    Poll::Ready(Err(_)) => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if self.next.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.waiting || self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.waiting = true;
            self.next.as_mut().reset(Instant::now() + PATIENCE);
        }
    }
}

/// Rare enough to cost nothing, often enough that what a router in between forgets is noticed.
const EVERY: Duration = Duration::from_secs(60);

/// Time for an answer over a bad line.
const PATIENCE: Duration = Duration::from_secs(20);
