//! Batches are numbered without a gap and taken without a gap, each once, whatever streams carry them; and each end says
//! so when it asks for another stream.

use grpcrouter_protocol::{ProtocolError, ResumePoint, Resumed};

/// The last batch that one end has sent and taken.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Numbers {
    pub(crate) sent: u64,
    pub(crate) taken: u64,
}

impl Numbers {
    /// A message went out: the next batch, one again, or one of state alone.
    pub(crate) fn send(&mut self, message: &[u8]) {
        let Some(number) = number_of(message) else { return };
        assert!(number <= self.sent + 1, "batch {number} after {}", self.sent);
        self.sent = self.sent.max(number);
    }

    /// A message was taken.
    pub(crate) fn take(&mut self, message: &[u8]) {
        let Some(number) = number_of(message) else { return };
        assert_eq!(number, self.taken + 1, "a batch is taken out of turn");
        self.taken = number;
    }

    /// The instance asks for another stream.
    pub(crate) fn ask(&self, point: &ResumePoint) {
        assert_eq!((point.rx_next.get(), point.tx_next.get()), (self.taken + 1, self.sent + 1));
        assert!(point.tx_first <= point.tx_next, "{point:?}");
    }

    /// The gateway answers.
    pub(crate) fn answer(&self, resumed: &Resumed) {
        assert_eq!(resumed.rx_next.get(), self.taken + 1);
    }
}

/// What a peer said was a batch for the second time, or an ack of one that was never sent.
pub(crate) fn refused(answer: &Result<(), ProtocolError>) {
    let is_named = matches!(answer, Err(ProtocolError::UnexpectedSeq { .. } | ProtocolError::AckOfUnsent { .. }));
    assert!(is_named, "nonsense is taken: {answer:?}");
}

/// A batch of state alone that acks what nobody sent: 16,383.
pub(crate) const FUTURE_ACK: &[u8] = &[2 << 3, 0xff, 0x7f];

/// The number of a batch, if it has one: its first field.
pub(crate) fn number_of(message: &[u8]) -> Option<u64> {
    let (&field, number) = message.split_first()?;
    let bytes = number.iter().enumerate().take_while(|(at, _)| *at == 0 || number[at - 1] & 0x80 != 0);
    (field == 1 << 3).then(|| bytes.fold(0, |sum, (at, byte)| sum | u64::from(byte & 0x7f) << (7 * at)))
}
