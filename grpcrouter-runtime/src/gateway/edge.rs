//! Where a stream of gRPC messages stands: how many have begun, and whether it is inside of one.

/// Follows the length prefixes of what passes, wherever it is cut.
#[derive(Debug, Default)]
pub(super) struct Edge {
    /// Bytes of the message that are still to come.
    left: u64,
    /// Bytes of the next prefix that have come.
    prefix: u8,
    length: u32,
    begun: usize,
}

impl Edge {
    pub(super) fn pass(&mut self, mut data: &[u8]) {
        loop {
            if self.left >= data.len() as u64 {
                self.left -= data.len() as u64;
                return;
            }
            data = data.get(usize::try_from(self.left).unwrap_or(usize::MAX)..).unwrap_or_default();
            self.left = 0;
            while self.prefix < PREFIX {
                let Some((byte, rest)) = data.split_first() else { return };
                // The first byte, the flag, is shifted out at the end.
                self.length = self.length << 8 | u32::from(*byte);
                self.prefix += 1;
                data = rest;
            }
            self.left = self.length.into();
            self.prefix = 0;
            self.begun += 1;
        }
    }

    /// How many messages have begun: their prefix has come.
    pub(super) fn begun(&self) -> usize {
        self.begun
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
            counts.push(edge.begun());
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
}
