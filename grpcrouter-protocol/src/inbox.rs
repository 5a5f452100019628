//! Which batch of the other side is due, and when to say that it came.
//! An ack rides on any batch that goes out; alone it goes after a delay or after many bytes.

use std::time::Duration;

use crate::error::ProtocolError;
use crate::id::Seq;
use crate::time::Time;

/// What came from the other side.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The last batch taken.
    taken: Seq,
    /// The last ack that went out.
    acked: Seq,
    /// Bytes taken since.
    unacked: usize,
    /// When the ack goes out alone.
    due: Option<Time>,
    is_due: bool,
    delay: Duration,
    most_unacked: usize,
}

impl Inbox {
    /// Acks wait at most so long and for so many bytes.
    pub(crate) const fn new(delay: Duration, most_unacked: usize) -> Self {
        Self { taken: Seq::STATE, acked: Seq::STATE, unacked: 0, due: None, is_due: false, delay, most_unacked }
    }

    /// Checks that a numbered batch is the next one.
    pub(crate) fn expect(&self, received: Seq) -> Result<(), ProtocolError> {
        let expected = self.expected();
        if received != expected && !mutant!(SeqNotChecked) {
            return Err(ProtocolError::UnexpectedSeq { expected, received });
        }
        Ok(())
    }

    /// The next batch, of `len` bytes, is in the calls' state now.
    pub(crate) fn take(&mut self, len: usize, now: Time) {
        self.taken = self.taken.next();
        self.unacked += len;
        self.is_due |= self.unacked >= self.most_unacked;
        self.due.get_or_insert(now + self.delay);
    }

    /// The last batch taken.
    pub(crate) const fn taken(&self) -> Seq {
        self.taken
    }

    /// The batch that is due.
    pub(crate) const fn expected(&self) -> Seq {
        self.taken.next()
    }

    /// A new stream carries the tunnel: what was acked on the old one may never have arrived.
    pub(crate) fn say_again(&mut self) {
        self.is_due = true;
    }

    /// The last ack that went out.
    pub(crate) const fn acked(&self) -> Seq {
        self.acked
    }

    /// True if the ack is not to wait for another batch.
    pub(crate) const fn is_due(&self) -> bool {
        self.is_due
    }

    /// When the ack goes out alone.
    pub(crate) const fn poll_timeout(&self) -> Option<Time> {
        // Once it is due it waits for the writer, not for the clock.
        if self.is_due { None } else { self.due }
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        self.is_due |= self.due.is_some_and(|due| due <= now);
    }

    /// All that was taken is acked by a batch that goes out.
    pub(crate) fn ack(&mut self) {
        self.acked = self.taken;
        self.unacked = 0;
        self.due = None;
        self.is_due = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_nanos(0);
    const DELAY: Duration = Duration::from_millis(25);

    fn inbox() -> Inbox {
        Inbox::new(DELAY, 1_000)
    }

    #[test]
    fn only_the_next_batch_is_taken() {
        let mut inbox = inbox();
        inbox.take(1, T0);
        assert_eq!(inbox.expect(Seq::new(2)), Ok(()));
        for seq in [Seq::new(1), Seq::new(3)] {
            let error = ProtocolError::UnexpectedSeq { expected: Seq::new(2), received: seq };
            assert_eq!(inbox.expect(seq), Err(error));
        }
    }

    #[test]
    fn an_ack_goes_alone_after_the_delay_since_the_first_batch() {
        let mut inbox = inbox();
        inbox.take(1, T0);
        inbox.take(1, T0 + DELAY / 2);
        assert_eq!(inbox.poll_timeout(), Some(T0 + DELAY));
        inbox.handle_timeout(T0 + DELAY);
        assert!(inbox.is_due() && inbox.poll_timeout().is_none());
        inbox.ack();
        assert_eq!((inbox.is_due(), inbox.acked(), inbox.poll_timeout()), (false, Seq::new(2), None));
    }

    #[test]
    fn an_ack_goes_at_once_after_many_bytes() {
        let mut inbox = inbox();
        inbox.take(999, T0);
        assert!(!inbox.is_due());
        inbox.take(1, T0);
        assert!(inbox.is_due());
    }
}
