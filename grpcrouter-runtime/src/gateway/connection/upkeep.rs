//! Ends connections that nobody uses: no first call in time, no answer to a ping, no call for long. One timer for all of
//! it, which is looked at and set anew a few times a minute, never for a call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

/// The times that a connection is given; the builder sets them.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    /// For TLS, the preface and the first call, all together.
    pub(crate) opening: Duration,
    /// Without any call.
    pub(crate) idle: Duration,
    /// Between two pings, and for the answer.
    pub(crate) ping_every: Duration,
    pub(crate) ping_patience: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { opening: OPENING, idle: IDLE, ping_every: PING_EVERY, ping_patience: PING_PATIENCE }
    }
}

/// What a connection is used for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Calls are open, or a tunnel.
    Busy,
    Quiet,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Told to end, once it is quiet.
    Unused(&'static str),
    /// Now.
    Over(&'static str),
}

/// The clock of one connection.
pub(super) struct Upkeep {
    timer: Pin<Box<Sleep>>,
    pings: Option<PingPong>,
    times: Times,
    ping: Instant,
    /// A ping is out.
    waiting: bool,
    /// When to look whether it is used. At first: when the first call is due.
    look: Instant,
    /// Looks in a row that found it quiet.
    quiet: u32,
    /// Whether a call came since the last look, and whether any ever did.
    called: bool,
    ever: bool,
    /// It was told to end.
    ending: Option<Ending>,
}

/// Whether a connection that was told to end may finish its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Calls,
    Nothing,
}

impl Upkeep {
    /// For a connection whose first call is due then.
    pub(super) fn new(times: Times, pings: Option<PingPong>, first_due: Instant) -> Self {
        let ping = Instant::now() + times.ping_every;
        Self {
            timer: Box::pin(sleep_until(ping.min(first_due))),
            pings,
            times,
            ping,
            waiting: false,
            look: first_due,
            quiet: 0,
            called: false,
            ever: false,
            ending: None,
        }
    }

    /// A call came.
    pub(super) fn called(&mut self) {
        self.called = true;
    }

    /// It was told to end: it has a moment for its last words, and then as long as its calls take, if it may finish them.
    pub(super) fn ending(&mut self, may_finish: Ending) {
        self.ending = Some(may_finish);
        self.look = Instant::now() + LAST_WORDS;
        self.set();
    }

    /// Ready when the connection is to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, busy: impl Fn() -> Use) -> Poll<End> {
        loop {
            if self.waiting
                && let Some(pings) = &mut self.pings
            {
                match pings.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.waiting = false;
                        self.ping = Instant::now() + self.times.ping_every;
                        self.set();
                    }
                    // The connection is over; whoever polls it will know why.
                    Poll::Ready(Err(_)) => self.pings = None,
                    Poll::Pending => {}
                }
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.ping <= now {
                if self.waiting {
                    return Poll::Ready(End::Over("no answer to a ping"));
                }
                match self.pings.as_mut().map(|pings| pings.send_ping(Ping::opaque())) {
                    Some(Ok(())) => {
                        self.waiting = true;
                        self.ping = now + self.times.ping_patience;
                    }
                    // As above.
                    _ => self.ping = now + self.times.ping_every,
                }
            }
            if self.look <= now
                && let Some(end) = self.look(now, busy())
            {
                self.set();
                return Poll::Ready(end);
            }
            self.set();
        }
    }

    fn look(&mut self, now: Instant, found: Use) -> Option<End> {
        if let Some(ending) = self.ending {
            self.look = now + LAST_WORDS;
            return (found == Use::Quiet || ending == Ending::Nothing).then_some(End::Over("told to end"));
        }
        self.look = now + self.times.idle / QUIET_LOOKS;
        let called = std::mem::take(&mut self.called);
        let first = !std::mem::replace(&mut self.ever, true);
        if called || found == Use::Busy {
            self.quiet = 0;
            return None;
        }
        self.quiet += 1;
        if first {
            return Some(End::Unused("no call came in time"));
        }
        (self.quiet > QUIET_LOOKS).then_some(End::Unused("no call for long"))
    }

    fn set(&mut self) {
        let next = self.ping.min(self.look);
        self.timer.as_mut().reset(next);
    }
}

/// TCP is up but nothing is said: as long as a slow network may need for TLS, the preface and a call. A client that
/// connects long before it calls connects once more then.
const OPENING: Duration = Duration::from_secs(10);

/// Longer than proxies and NATs on the way keep a silent connection; who comes back connects again in a round trip.
const IDLE: Duration = Duration::from_secs(300);

/// Rare enough to cost nothing, often enough that what a router in between forgets is noticed.
const PING_EVERY: Duration = Duration::from_secs(60);

/// Time for an answer over a bad line.
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// An idle connection ends at most a quarter late.
const QUIET_LOOKS: u32 = 4;

/// For the last words to come through, and to be understood.
const LAST_WORDS: Duration = Duration::from_secs(1);
