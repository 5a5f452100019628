//! Batches sent and not yet acked, kept as the very bytes that were sent, so that they can be sent or read again.
//! Bounded: at the bound no data and no start goes out.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::error::ProtocolError;
use crate::id::Seq;

/// The unacked batches.
#[derive(Debug)]
pub(crate) struct Outbox {
    batches: VecDeque<Bytes>,
    /// The number that the next batch gets.
    next: Seq,
    bytes: usize,
    /// Above this there is no room for another whole batch.
    threshold: usize,
}

impl Outbox {
    /// Keeps at most `limit` bytes of batches, each of at most `max_batch` bytes.
    pub(crate) fn new(limit: usize, max_batch: usize) -> Self {
        let threshold = limit.saturating_sub(max_batch.saturating_add(BATCH_OVERHEAD));
        Self { batches: VecDeque::new(), next: Seq::STATE.next(), bytes: 0, threshold }
    }

    /// The number that the next batch gets.
    pub(crate) const fn next(&self) -> Seq {
        self.next
    }

    /// Charged bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if one more batch of any size fits.
    pub(crate) const fn has_room(&self) -> bool {
        self.bytes <= self.threshold
    }

    /// Keeps the batch that just got the next number.
    pub(crate) fn push(&mut self, message: Bytes) {
        self.bytes += message.len() + BATCH_OVERHEAD;
        self.batches.push_back(message);
        self.next = self.next.next();
    }

    /// The other side has taken all batches up to `acked`. An older ack says nothing new.
    pub(crate) fn ack(&mut self, acked: Seq) -> Result<(), ProtocolError> {
        if acked >= self.next {
            let sent = Seq::new(self.next.get() - 1);
            return Err(ProtocolError::AckOfUnsent { acked, sent });
        }
        let first = self.next.get() - self.batches.len() as u64;
        for _ in first..=acked.get() {
            if let Some(message) = self.batches.pop_front() {
                self.bytes -= message.len() + BATCH_OVERHEAD;
            }
        }
        Ok(())
    }

    /// The unacked batches from this one on, in order, as they were sent.
    pub(crate) fn batches_from(&self, seq: Seq) -> impl Iterator<Item = &Bytes> {
        let first = self.next.get() - self.batches.len() as u64;
        let skipped = usize::try_from(seq.get().saturating_sub(first)).unwrap_or(usize::MAX);
        self.batches.iter().skip(skipped)
    }

    /// Forgets all batches: the tunnel is over.
    pub(crate) fn clear(&mut self) {
        self.batches = VecDeque::new();
        self.bytes = 0;
    }
}

/// What a kept batch costs beside its bytes: its handle here and in the writer.
const BATCH_OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    fn outbox_of(batches: usize) -> Outbox {
        let mut outbox = Outbox::new(1_000, 100);
        for _ in 0..batches {
            outbox.push(Bytes::from_static(&[0; 100]));
        }
        outbox
    }

    #[test]
    fn an_ack_frees_all_batches_up_to_it() {
        let mut outbox = outbox_of(3);
        outbox.ack(Seq::new(2)).unwrap();
        assert_eq!((outbox.batches_from(Seq::STATE).count(), outbox.bytes(), outbox.next()), (1, 164, Seq::new(4)));
    }

    #[test]
    fn an_ack_said_again_or_an_older_one_changes_nothing() {
        let mut outbox = outbox_of(3);
        outbox.ack(Seq::new(2)).unwrap();
        outbox.ack(Seq::new(2)).unwrap();
        outbox.ack(Seq::new(1)).unwrap();
        outbox.ack(Seq::STATE).unwrap();
        assert_eq!(outbox.batches_from(Seq::STATE).count(), 1);
    }

    #[test]
    fn an_ack_of_a_batch_never_sent_is_refused() {
        let error = ProtocolError::AckOfUnsent { acked: Seq::new(4), sent: Seq::new(3) };
        assert_eq!(outbox_of(3).ack(Seq::new(4)), Err(error));
    }

    #[test]
    fn batches_are_read_again_from_a_number_on() {
        let mut outbox = outbox_of(4);
        outbox.ack(Seq::new(1)).unwrap();
        let from = |seq| outbox.batches_from(Seq::new(seq)).count();
        assert_eq!((from(1), from(2), from(3), from(4), from(5)), (3, 3, 2, 1, 0));
    }

    #[test]
    fn there_is_room_only_for_a_whole_batch() {
        assert!(outbox_of(5).has_room(), "820 + 164 fit 1000");
        assert!(!outbox_of(6).has_room(), "984 + 164 do not");
    }
}
