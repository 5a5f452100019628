//! Credit: how many bytes one direction of a call may still carry, and when the receiver grants more.
//! Limits are absolute, so saying one twice, late or merged changes nothing.

use std::time::Duration;

use crate::id::MaxData;
use crate::time::Time;

/// What each data part costs beside its bytes; it makes a flood of tiny parts run out of credit too.
pub const PART_OVERHEAD: u64 = 32;

/// What a data part of `len` bytes costs the window on both ends. No data is no part and costs nothing.
pub const fn charge(len: usize) -> u64 {
    if len == 0 { 0 } else { len as u64 + PART_OVERHEAD }
}

/// The sender's end: what may still go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendCredit {
    limit: u64,
    used: u64,
}

impl SendCredit {
    pub(crate) fn new(limit: MaxData) -> Self {
        Self { limit: limit.get(), used: 0 }
    }

    /// Takes a new limit. A lower one is an older one and says nothing.
    pub(crate) fn raise(&mut self, limit: MaxData) {
        self.limit = self.limit.max(limit.get());
    }

    /// The most bytes that the next data part may have.
    pub(crate) fn next_part(self) -> usize {
        let left = self.limit.saturating_sub(self.used).saturating_sub(PART_OVERHEAD);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// A part of `len` bytes goes out.
    pub(crate) fn spend(&mut self, len: usize) {
        self.used = self.used.saturating_add(charge(len));
    }
}

/// The receiver's end: what may still come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveCredit {
    window: u64,
    limit: u64,
    received: u64,
    consumed: u64,
    /// When the window was last looked at: at the start of the call, then whenever half of it was consumed.
    granted: Time,
}

impl ReceiveCredit {
    pub(crate) fn new(window: u64, now: Time) -> Self {
        Self { window, limit: window, received: 0, consumed: 0, granted: now }
    }

    /// The limit that the sender was last told or is about to be told.
    pub(crate) fn limit(self) -> MaxData {
        MaxData::new(self.limit)
    }

    /// How much may be on its way or wait here, in charged bytes.
    pub(crate) fn window(self) -> u64 {
        self.window
    }

    /// What came and was not yet consumed, in charged bytes.
    pub(crate) fn unconsumed(self) -> u64 {
        self.received.saturating_sub(self.consumed)
    }

    /// A part of `len` bytes came. Gives back how far it went beyond the limit: 0 if it was allowed.
    pub(crate) fn receive(&mut self, len: usize) -> u64 {
        self.received = self.received.saturating_add(charge(len));
        if mutant!(CreditOnReceipt) {
            self.consumed = self.received;
        }
        self.received.saturating_sub(self.limit)
    }

    /// A part of `len` bytes was consumed. True when half a window is free: it is time to [`grant`](Self::grant).
    pub(crate) fn consume(&mut self, len: usize) -> bool {
        // Never more than came: a shell that counts wrong must not open the window.
        self.consumed = self.consumed.saturating_add(charge(len)).min(self.received);
        let free = self.consumed.saturating_add(self.window).saturating_sub(self.limit);
        // A little less than half. Parts do not divide a window evenly because of what each costs beside its bytes, and
        // a grant that misses its turn by some bytes would leave half of the window unused for a whole round trip.
        free >= self.window.div_ceil(2) - self.window / 16
    }

    /// How long it took to consume what was consumed since the last grant.
    pub(crate) fn pace(self, now: Time) -> Duration {
        now.since(self.granted)
    }

    /// Opens the window again, with this size. True if the sender may send more than it was told before.
    pub(crate) fn grant(&mut self, window: u64, now: Time) -> bool {
        self.window = window;
        self.granted = now;
        let limit = self.consumed.saturating_add(window);
        let is_more = limit > self.limit;
        self.limit = self.limit.max(limit);
        is_more
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Time = Time::from_nanos(0);

    #[test]
    fn a_part_costs_its_bytes_and_the_overhead() {
        assert_eq!((charge(0), charge(1), charge(100)), (0, 33, 132));
    }

    #[test]
    fn a_sender_may_use_all_of_its_limit_and_no_more() {
        let mut credit = SendCredit::new(MaxData::new(100));
        assert_eq!(credit.next_part(), 68);
        credit.spend(68);
        assert_eq!(credit.next_part(), 0);
    }

    #[test]
    fn an_older_limit_does_not_lower_a_newer_one() {
        let mut credit = SendCredit::new(MaxData::new(100));
        credit.raise(MaxData::new(200));
        credit.raise(MaxData::new(150));
        assert_eq!(credit.next_part(), 168);
    }

    #[test]
    fn credit_goes_back_when_half_a_window_is_consumed() {
        let mut credit = ReceiveCredit::new(200, T0);
        assert_eq!(credit.receive(50), 0);
        assert_eq!(credit.receive(60), 0);
        assert!(!credit.consume(50), "82 of 200 is not half");
        assert!(credit.consume(60));
        assert!(credit.grant(200, T0));
        assert_eq!(credit.limit(), MaxData::new(374));
    }

    #[test]
    fn two_parts_of_four_are_half_a_window_each_time() {
        let (window, part) = (64 << 10, 16 << 10);
        let mut credit = ReceiveCredit::new(window, T0);
        let mut sender = SendCredit::new(credit.limit());
        for round in 0..100 {
            let mut parts = 0;
            while sender.next_part() > 0 {
                let len = sender.next_part().min(part);
                sender.spend(len);
                assert_eq!(credit.receive(len), 0);
                if credit.consume(len) {
                    credit.grant(window, T0);
                }
                parts += 1;
            }
            assert!(parts >= 3, "round {round}: {parts} parts in a round trip");
            sender.raise(credit.limit());
        }
    }

    #[test]
    fn a_smaller_window_takes_nothing_back() {
        let mut credit = ReceiveCredit::new(200, T0);
        credit.receive(68);
        assert!(credit.consume(68));
        assert!(!credit.grant(100, T0), "100 more were allowed already");
        assert_eq!((credit.limit(), credit.window()), (MaxData::new(200), 100));
        credit.receive(18);
        assert!(credit.consume(18), "and then half of the smaller one counts");
    }

    #[test]
    fn what_is_beyond_the_limit_is_told_to_the_byte() {
        let mut credit = ReceiveCredit::new(100, T0);
        assert_eq!(credit.receive(68), 0);
        assert_eq!(credit.receive(1), 33);
    }

    #[test]
    fn consuming_more_than_came_opens_nothing() {
        let mut credit = ReceiveCredit::new(100, T0);
        assert!(!credit.consume(1_000));
        assert_eq!(credit.limit(), MaxData::new(100));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the parts, the window sizes and the order in which things happen: nobody who keeps to what was said
        /// goes over it, what waits fits the largest window so far, and when all is consumed at least half is free.
        #[test]
        fn a_sender_and_a_receiver_agree(
            first in 64_u64..5_000,
            steps in proptest::collection::vec((1_usize..900, 0_u64..4, 0_u64..8), 1..200),
        ) {
            let mut receiver = ReceiveCredit::new(first, T0);
            let mut sender = SendCredit::new(receiver.limit());
            let (mut waiting, mut largest, mut told) = (Vec::new(), first, receiver.limit());
            for (len, consumed, size) in steps {
                let len = len.min(sender.next_part());
                if len > 0 {
                    sender.spend(len);
                    prop_assert_eq!(receiver.receive(len), 0);
                    waiting.push(len);
                }
                prop_assert!(receiver.unconsumed() <= largest);
                for _ in 0..consumed {
                    let Some(len) = waiting.pop() else { break };
                    if receiver.consume(len) {
                        let window = (first * size / 4).max(first);
                        largest = largest.max(window);
                        receiver.grant(window, T0);
                    }
                }
                // What is said may be late or twice, and never takes anything back.
                sender.raise(told);
                told = receiver.limit();
                sender.raise(told);
            }
            for len in waiting.drain(..) {
                if receiver.consume(len) {
                    receiver.grant(first, T0);
                }
            }
            sender.raise(receiver.limit());
            prop_assert_eq!(receiver.unconsumed(), 0);
            prop_assert!(sender.next_part() as u64 + PART_OVERHEAD > first / 2);
        }
    }
}
