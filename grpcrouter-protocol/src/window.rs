//! Credit: how many bytes one direction of a call may still carry, and when the receiver grants more.
//! Limits are absolute, so saying one twice, late or merged changes nothing.

use crate::id::MaxData;

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
}

impl ReceiveCredit {
    pub(crate) fn new(window: u64) -> Self {
        Self { window, limit: window, received: 0, consumed: 0 }
    }

    /// The limit that the sender was last told or is about to be told.
    pub(crate) fn limit(self) -> MaxData {
        MaxData::new(self.limit)
    }

    /// What came and was not yet consumed, in charged bytes.
    pub(crate) fn unconsumed(self) -> u64 {
        self.received.saturating_sub(self.consumed)
    }

    /// A part of `len` bytes came. Gives back how far it went beyond the limit: 0 if it was allowed.
    pub(crate) fn receive(&mut self, len: usize) -> u64 {
        self.received = self.received.saturating_add(charge(len));
        self.received.saturating_sub(self.limit)
    }

    /// A part of `len` bytes was consumed. True when half a window is free: the new limit is to be said.
    pub(crate) fn consume(&mut self, len: usize) -> bool {
        // Never more than came: a shell that counts wrong must not open the window.
        self.consumed = self.consumed.saturating_add(charge(len)).min(self.received);
        let next = self.consumed.saturating_add(self.window);
        if (next - self.limit.min(next)) < self.window.div_ceil(2) {
            return false;
        }
        self.limit = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut credit = ReceiveCredit::new(200);
        assert_eq!(credit.receive(60), 0);
        assert_eq!(credit.receive(60), 0);
        assert!(!credit.consume(60), "92 of 200 is not half");
        assert!(credit.consume(60));
        assert_eq!(credit.limit(), MaxData::new(384));
    }

    #[test]
    fn what_is_beyond_the_limit_is_told_to_the_byte() {
        let mut credit = ReceiveCredit::new(100);
        assert_eq!(credit.receive(68), 0);
        assert_eq!(credit.receive(1), 33);
    }

    #[test]
    fn consuming_more_than_came_opens_nothing() {
        let mut credit = ReceiveCredit::new(100);
        assert!(!credit.consume(1_000));
        assert_eq!(credit.limit(), MaxData::new(100));
    }
}
