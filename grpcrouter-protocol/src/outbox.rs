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
    /// The first batch that the current stream has not carried; `next` when it has carried all.
    again: Seq,
    /// Above this there is no room for another whole batch.
    threshold: usize,
}

impl Outbox {
    /// Keeps at most `limit` bytes of batches, each of at most `max_batch` bytes.
    pub(crate) fn new(limit: usize, max_batch: usize) -> Self {
        let threshold = limit.saturating_sub(max_batch.saturating_add(BATCH_OVERHEAD));
        let next = Seq::STATE.next();
        Self { batches: VecDeque::new(), next, bytes: 0, again: next, threshold }
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
    pub(crate) fn has_room(&self) -> bool {
        self.bytes <= self.threshold || mutant!(NoBound)
    }

    /// Keeps the batch that just got the next number.
    pub(crate) fn push(&mut self, message: Bytes) {
        self.bytes += message.len() + BATCH_OVERHEAD;
        self.batches.push_back(message);
        self.next = self.next.next();
        self.again = self.next;
        if mutant!(DropsUnacked) && !self.has_room() {
            let first = self.first();
            let _ = self.ack(first);
        }
    }

    /// The oldest batch that is kept; the next one if none is.
    pub(crate) fn first(&self) -> Seq {
        Seq::new(self.next.get() - self.batches.len() as u64)
    }

    /// A new stream carries the tunnel, and the other side expects this batch: all from it on go out again. False if it
    /// is none that can be given.
    #[must_use]
    pub(crate) fn replay_from(&mut self, seq: Seq) -> bool {
        let is_kept = self.first() <= seq && seq <= self.next;
        if is_kept {
            self.again = seq;
            if mutant!(ReplaysOneLess) && seq < self.next {
                self.again = seq.next();
            }
            if mutant!(ReplaysOneMore) && seq > self.first() {
                self.again = Seq::new(seq.get() - 1);
            }
        }
        is_kept
    }

    /// True while a batch waits to go out again.
    pub(crate) fn is_replaying(&self) -> bool {
        self.again < self.next
    }

    /// The next batch that goes out again, as it was sent.
    pub(crate) fn replay(&mut self) -> Option<Bytes> {
        let message = self.batches_from(self.again).next().filter(|_| self.is_replaying())?.clone();
        self.again = self.again.next();
        Some(message)
    }

    /// The other side has taken all batches up to `acked`. An older ack says nothing new.
    pub(crate) fn ack(&mut self, acked: Seq) -> Result<(), ProtocolError> {
        if acked >= self.next && !mutant!(FutureAcks) {
            let sent = Seq::new(self.next.get() - 1);
            return Err(ProtocolError::AckOfUnsent { acked, sent });
        }
        let acked = if mutant!(AnyAckFreesAll) { Seq::new(self.next.get() - 1) } else { acked };
        for _ in self.first().get()..=acked.get() {
            if let Some(message) = self.batches.pop_front() {
                self.bytes -= message.len() + BATCH_OVERHEAD;
            }
        }
        self.again = self.again.max(self.first());
        Ok(())
    }

    /// The unacked batches from this one on, in order, as they were sent.
    pub(crate) fn batches_from(&self, seq: Seq) -> impl Iterator<Item = &Bytes> {
        let skipped = usize::try_from(seq.get().saturating_sub(self.first().get())).unwrap_or(usize::MAX);
        self.batches.iter().skip(skipped)
    }

    /// Forgets all batches: the tunnel is over.
    pub(crate) fn clear(&mut self) {
        self.batches = VecDeque::new();
        self.bytes = 0;
        self.again = self.next;
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
    fn a_new_stream_carries_again_what_the_other_side_expects_and_nothing_else() {
        let mut outbox = outbox_of(4);
        outbox.ack(Seq::new(1)).unwrap();
        let mut replayed = |seq| {
            let is_kept = outbox.replay_from(Seq::new(seq));
            (is_kept, std::iter::from_fn(|| outbox.replay()).count())
        };
        assert_eq!([1, 2, 4, 5, 6].map(&mut replayed), [(false, 0), (true, 3), (true, 1), (true, 0), (false, 0)]);
    }

    #[test]
    fn what_is_acked_while_it_waits_to_go_again_does_not_go() {
        let mut outbox = outbox_of(3);
        assert!(outbox.replay_from(Seq::new(1)));
        outbox.ack(Seq::new(2)).unwrap();
        assert_eq!(std::iter::from_fn(|| outbox.replay()).count(), 1);
    }

    #[test]
    fn there_is_room_only_for_a_whole_batch() {
        assert!(outbox_of(5).has_room(), "820 + 164 fit 1000");
        assert!(!outbox_of(6).has_room(), "984 + 164 do not");
    }
}
