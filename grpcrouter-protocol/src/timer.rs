//! The timers of a tunnel: the deadlines of its calls, and the heartbeat.
//! The ack's timer lives with what it acks, in the inbox.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::PeerSilent;
use crate::frame::Heartbeat;
use crate::id::CallId;
use crate::time::Time;

/// The deadlines of calls, next first. Calls that end leave theirs behind; they are dropped when they come up, or
/// all at once when they are more than the live ones, so setting and forgetting a deadline costs next to nothing.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Time, CallId)>>,
}

impl Deadlines {
    /// Sets the deadline of a call. `is_live` tells whether a call still has a deadline; `open` calls may.
    pub(crate) fn set(&mut self, at: Time, call: CallId, open: usize, is_live: impl Fn(CallId, Time) -> bool) {
        if self.heap.len() >= 2 * open + SLACK {
            let mut left = std::mem::take(&mut self.heap).into_vec();
            left.retain(|&Reverse((at, call))| is_live(call, at));
            // A peer may say the same deadline any number of times.
            left.sort_unstable();
            left.dedup();
            self.heap = left.into();
        }
        self.heap.push(Reverse((at, call)));
    }

    /// The next deadline; it may be one that a call left behind.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|&Reverse((at, _))| at)
    }

    /// Takes the next deadline that has passed and is live, and drops those left behind before the next live one.
    pub(crate) fn pop(&mut self, now: Time, is_live: impl Fn(CallId, Time) -> bool) -> Option<CallId> {
        while let Some(&Reverse((at, call))) = self.heap.peek() {
            let is_live = is_live(call, at);
            if is_live && at > now {
                return None;
            }
            self.heap.pop();
            if is_live {
                return Some(call);
            }
        }
        None
    }

    /// How many are kept, those left behind included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Forgets all deadlines: the tunnel is over.
    pub(crate) fn clear(&mut self) {
        self.heap = BinaryHeap::new();
    }
}

/// Tells a silent peer from a dead one.
#[derive(Debug)]
pub(crate) struct Pulse {
    heartbeat: Heartbeat,
    heard: Time,
    due: Time,
    unanswered: u32,
}

/// What the heartbeat wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing yet.
    Wait,
    /// A ping.
    Ping,
}

impl Pulse {
    /// The peer was heard just now.
    pub(crate) fn new(heartbeat: Heartbeat, now: Time) -> Self {
        Self { heartbeat, heard: now, due: now + heartbeat.idle, unanswered: 0 }
    }

    /// Something came, while so many calls are open.
    pub(crate) fn heard(&mut self, open: usize, now: Time) {
        self.heard = now;
        self.unanswered = 0;
        self.due = now + self.interval(open);
    }

    /// The first call opened. Only ever makes the next ping earlier, so that calls which come and go on a dead
    /// stream cannot put it off.
    pub(crate) fn busy(&mut self, now: Time) {
        self.due = self.due.min(now + self.heartbeat.busy);
    }

    pub(crate) const fn poll_timeout(&self) -> Time {
        self.due
    }

    /// The peer was heard within the time after which it is pinged.
    pub(crate) const fn is_answered(&self) -> bool {
        self.unanswered == 0
    }

    pub(crate) fn handle_timeout(&mut self, open: usize, now: Time) -> Result<Beat, PeerSilent> {
        if now < self.due {
            return Ok(Beat::Wait);
        }
        if self.unanswered >= self.heartbeat.unanswered {
            return Err(PeerSilent { silent_for: now.since(self.heard) });
        }
        self.unanswered += 1;
        self.due = now + self.interval(open);
        Ok(Beat::Ping)
    }

    const fn interval(&self, open: usize) -> std::time::Duration {
        if open == 0 { self.heartbeat.idle } else { self.heartbeat.busy }
    }
}

/// Deadlines left behind that are not worth a clean-up.
const SLACK: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use std::time::Duration;

    use super::*;

    const A: CallId = CallId::new(1, 0);
    const B: CallId = CallId::new(2, 1);
    const HEARTBEAT: Heartbeat =
        Heartbeat { busy: Duration::from_secs(3), idle: Duration::from_secs(10), unanswered: 3 };

    fn at(seconds: u64) -> Time {
        Time::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn deadlines_come_up_in_order_when_they_have_passed() {
        let mut deadlines = Deadlines::default();
        deadlines.set(at(9), A, 2, |_, _| true);
        deadlines.set(at(5), B, 2, |_, _| true);
        assert_eq!(deadlines.pop(at(4), |_, _| true), None);
        assert_eq!(deadlines.pop(at(9), |_, _| true), Some(B));
        assert_eq!(deadlines.pop(at(9), |_, _| true), Some(A));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn a_deadline_left_behind_never_comes_up() {
        let mut deadlines = Deadlines::default();
        deadlines.set(at(5), A, 2, |_, _| true);
        deadlines.set(at(9), B, 2, |_, _| true);
        assert_eq!(deadlines.pop(at(5), |call, _| call == B), None);
        assert_eq!(deadlines.next(), Some(at(9)));
    }

    #[test]
    fn deadlines_left_behind_are_bounded() {
        let mut deadlines = Deadlines::default();
        for counter in 0..10_000 {
            deadlines.set(at(60), CallId::new(counter, 0), 1, |_, _| false);
        }
        assert!(deadlines.len() <= 2 + SLACK + 1);
    }

    #[test]
    fn a_deadline_that_is_said_again_and_again_is_kept_once() {
        let mut deadlines = Deadlines::default();
        for _ in 0..10_000 {
            deadlines.set(at(60), A, 1, |_, _| true);
        }
        assert!(deadlines.len() <= 2 + SLACK + 1, "{}", deadlines.len());
    }

    #[test]
    fn a_busy_peer_is_dead_after_three_unanswered_pings() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        pulse.heard(1, at(0));
        for second in [3, 6, 9] {
            assert_eq!(pulse.handle_timeout(1, at(second)), Ok(Beat::Ping));
        }
        assert_eq!(pulse.handle_timeout(1, at(12)), Err(PeerSilent { silent_for: Duration::from_secs(12) }));
    }

    #[test]
    fn anything_heard_puts_the_ping_off() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        pulse.heard(0, at(4));
        assert_eq!((pulse.handle_timeout(0, at(13)), pulse.poll_timeout()), (Ok(Beat::Wait), at(14)));
        for second in [14, 24, 34] {
            assert_eq!(pulse.handle_timeout(0, at(second)), Ok(Beat::Ping));
        }
        pulse.heard(0, at(35));
        assert_eq!(pulse.handle_timeout(0, at(45)), Ok(Beat::Ping), "the count begins again");
    }

    #[test]
    fn calls_that_come_and_go_do_not_put_the_ping_off() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        for second in 1..=9 {
            pulse.busy(at(second));
        }
        assert_eq!(pulse.poll_timeout(), at(4));
    }
}
