//! Where a stream of gRPC messages stands, told from the length prefixes alone: how many have begun, whether it is inside
//! of one, and what of that a method or a limit forbids.

use crate::status::{Answer, Outcome};

/// What the messages of a request must keep to. Looked at as they come, before any of them is kept.
#[derive(Debug)]
pub(super) struct Messages {
    /// `None` if there is nothing to keep to.
    edge: Option<Edge>,
    /// The method takes exactly one.
    one: bool,
    /// Bytes of each.
    most: usize,
}

/// What is wrong with the messages of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breach {
    /// The method takes one message, this call has so many.
    Number(usize),
    /// A message over the limit.
    TooLong(TooLong),
}

/// A message of so many bytes is over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong {
    size: u32,
    most: usize,
    /// Where it begins in the data that was looked at; 0 if it began before.
    at: usize,
}

impl Messages {
    pub(super) fn new(one: bool, most: usize) -> Self {
        Self { edge: (one || is_limit(most)).then(Edge::default), one, most }
    }

    /// Looks at what comes next.
    pub(super) fn pass(&mut self, data: &[u8]) -> Result<(), Breach> {
        let Some(edge) = &mut self.edge else { return Ok(()) };
        edge.pass_up_to(data, self.most).map_err(Breach::TooLong)?;
        if self.one && edge.begun > 1 { Err(Breach::Number(edge.begun)) } else { Ok(()) }
    }

    /// The client has ended its stream.
    pub(super) fn end(&self) -> Result<(), Breach> {
        match &self.edge {
            Some(edge) if self.one && edge.begun == 0 => Err(Breach::Number(0)),
            _ => Ok(()),
        }
    }
}

impl Breach {
    /// What the caller of `path` is told, and what became of the call.
    pub(super) fn answer(self, path: &str, outcome: Outcome) -> Answer {
        match self {
            Self::Number(count) => Answer::wrong_number_of_messages(path, count).outcome(outcome),
            Self::TooLong(long) => long.answer("a message of the request", outcome),
        }
    }
}

impl TooLong {
    /// How much of the data that was looked at is before the message.
    pub(super) fn at(self) -> usize {
        self.at
    }

    /// What the client is told of `what`, the message, and of the call.
    pub(super) fn answer(self, what: &str, outcome: Outcome) -> Answer {
        Answer::too_large(what, usize::try_from(self.size).unwrap_or(usize::MAX), self.most).outcome(outcome)
    }
}

/// Whether any message can be over `most`.
pub(super) fn is_limit(most: usize) -> bool {
    u32::try_from(most).is_ok_and(|most| most < u32::MAX)
}

/// Follows the length prefixes of what passes, wherever it is cut.
#[derive(Debug, Default)]
pub(super) struct Edge {
    /// Bytes of the message that are still to come.
    left: u64,
    /// Bytes of the next prefix that have come.
    prefix: u8,
    length: u32,
    /// How many messages have begun: their prefix has come.
    begun: usize,
}

impl Edge {
    pub(super) fn pass(&mut self, data: &[u8]) {
        // Nothing is longer than that.
        let _ = self.pass_up_to(data, usize::MAX);
    }

    /// The same, as far as no message is longer than `most` bytes.
    pub(super) fn pass_up_to(&mut self, data: &[u8], most: usize) -> Result<(), TooLong> {
        let whole = data.len();
        let mut data = data;
        loop {
            if self.left >= data.len() as u64 {
                self.left -= data.len() as u64;
                return Ok(());
            }
            data = data.get(usize::try_from(self.left).unwrap_or(usize::MAX)..).unwrap_or_default();
            self.left = 0;
            let at = if self.prefix == 0 { whole - data.len() } else { 0 };
            while self.prefix < PREFIX {
                let Some((byte, rest)) = data.split_first() else { return Ok(()) };
                // The first byte, the flag, is shifted out at the end.
                self.length = self.length << 8 | u32::from(*byte);
                self.prefix += 1;
                data = rest;
            }
            if usize::try_from(self.length).unwrap_or(usize::MAX) > most {
                return Err(TooLong { size: self.length, most, at });
            }
            self.left = self.length.into();
            self.prefix = 0;
            self.begun += 1;
        }
    }

    /// No message has begun and not ended.
    pub(super) fn is_between_messages(&self) -> bool {
        self.left == 0 && self.prefix == 0
    }
}

/// gRPC's length prefix: a flag and four bytes, the highest first.
const PREFIX: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_between_after(data: &[u8], cut: usize) -> bool {
        let mut edge = Edge::default();
        data.chunks(cut).for_each(|chunk| edge.pass(chunk));
        edge.is_between_messages()
    }

    #[test]
    fn messages_count_from_their_prefix_on() {
        let mut edge = Edge::default();
        let mut counts = Vec::new();

        for part in [&[0, 0, 0, 0][..], &[0], &[0, 0, 0, 0, 2], b"ab", &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0]] {
            edge.pass(part);
            counts.push(edge.begun);
        }

        assert_eq!(counts, [0, 1, 2, 2, 4]);
    }

    #[test]
    fn a_stream_is_between_messages_when_all_are_whole() {
        let wire = [&[0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 0], &[0, 0, 0, 1, 0], &[7; 256]].concat();

        for cut in 1..=wire.len() {
            assert!(is_between_after(&wire, cut), "cut {cut}");
        }
        assert!(is_between_after(&[], 1));
    }

    #[test]
    fn a_stream_is_inside_a_message_when_its_last_is_not_whole() {
        let wire = [&[0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 9], b"12345678"].concat();

        for (length, between) in [(1, false), (5, false), (7, false), (8, true), (9, false), (wire.len(), false)] {
            for cut in 1..=length {
                assert_eq!(
                    is_between_after(wire.get(..length).unwrap_or_default(), cut),
                    between,
                    "{length}, cut {cut}"
                );
            }
        }
    }

    #[test]
    fn a_message_over_the_limit_is_found_by_its_prefix_wherever_it_is_cut() {
        let wire = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 4], b"abcd", &[0, 0, 0, 1, 0]].concat();

        for cut in 1..=wire.len() {
            let mut edge = Edge::default();
            let found: Vec<_> = wire.chunks(cut).map(|chunk| edge.pass_up_to(chunk, 4)).collect();
            let (last, before) = found.split_last().unwrap_or((&Ok(()), &[]));
            assert!(before.iter().all(Result::is_ok), "cut {cut}");
            let at = if wire.len() - 1 - (wire.len() - 1) % cut <= 17 { 17 % cut } else { 0 };
            assert_eq!(*last, Err(TooLong { size: 256, most: 4, at }), "cut {cut}");
        }
    }

    #[test]
    fn a_method_that_takes_one_message_takes_neither_none_nor_two() {
        let one = [0, 0, 0, 0, 1, 7];
        let mut messages = Messages::new(true, usize::MAX);
        assert_eq!(messages.end(), Err(Breach::Number(0)));
        assert_eq!((messages.pass(&one), messages.end()), (Ok(()), Ok(())));
        assert_eq!(messages.pass(&one), Err(Breach::Number(2)));

        let mut stream = Messages::new(false, usize::MAX);
        assert_eq!((stream.end(), stream.pass(&one), stream.pass(&one)), (Ok(()), Ok(()), Ok(())));
    }

    #[test]
    fn four_gibibytes_are_no_limit() {
        assert!(is_limit(0) && is_limit(4 << 20));
        assert!(!is_limit(usize::MAX) && !is_limit(0xffff_ffff));
    }
}
