//! Bytes of a request that wait for credit, without gaps: many small DATA frames become one buffer.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A queue of bytes. Large chunks stay as they are, small ones are joined.
#[derive(Debug, Default)]
pub(super) struct Staging {
    chunks: VecDeque<Bytes>,
    /// Comes after the chunks.
    tail: BytesMut,
    /// Bytes of all.
    len: usize,
}

impl Staging {
    pub(super) fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.len += data.len();
        if data.len() >= LARGE {
            self.close_tail();
            self.chunks.push_back(data);
        } else if self.tail.is_empty() {
            match self.chunks.pop_back() {
                // Alone yet, and may leave as it came: nothing is copied.
                None => self.chunks.push_back(data),
                Some(last) if last.len() < LARGE => {
                    self.tail.reserve(ROOM);
                    self.tail.extend_from_slice(&last);
                    self.tail.extend_from_slice(&data);
                }
                Some(last) => {
                    self.chunks.push_back(last);
                    self.chunks.push_back(data);
                }
            }
        } else {
            self.tail.extend_from_slice(&data);
            if self.tail.len() >= LARGE {
                self.close_tail();
            }
        }
    }

    /// The next bytes, at most `most`; empty if there are none.
    pub(super) fn pop(&mut self, most: usize) -> Bytes {
        if self.chunks.is_empty() {
            self.close_tail();
        }
        let data = match self.chunks.front_mut() {
            None => Bytes::new(),
            Some(front) if front.len() > most => front.split_to(most),
            Some(_) => self.chunks.pop_front().unwrap_or_default(),
        };
        self.len -= data.len();
        data
    }

    /// All of it, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.chunks.iter().map(|chunk| &chunk[..]).chain([&self.tail[..]])
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

/// From here on a chunk is worth more than its copy costs.
const LARGE: usize = 8 * 1024;

/// Room for a buffer of joined chunks.
const ROOM: usize = 2 * LARGE;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(staging: &mut Staging, most: usize) -> Vec<Bytes> {
        std::iter::from_fn(|| (!staging.is_empty()).then(|| staging.pop(most))).collect()
    }

    #[test]
    fn bytes_come_out_in_order_however_they_came() {
        let sizes = [1, 3, 9000, 2, 2, 20_000, 5, 8191, 8192, 1, 1, 1];
        let mut staging = Staging::default();
        let mut expected = Vec::new();
        for (number, size) in sizes.into_iter().enumerate() {
            let data = vec![u8::try_from(number).unwrap_or(0); size];
            expected.extend_from_slice(&data);
            staging.push(data.into());
            assert_eq!(staging.len(), expected.len());
        }

        assert_eq!(drain(&mut staging, 4000).concat(), expected);
    }

    #[test]
    fn small_chunks_are_joined() {
        let mut staging = Staging::default();
        for _ in 0..1000 {
            staging.push(Bytes::from_static(b"xyz"));
        }

        let chunks = drain(&mut staging, usize::MAX);

        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks.concat().len(), 3000);
    }

    #[test]
    fn a_chunk_alone_is_not_copied() {
        let data = Bytes::from(vec![1; 100]);
        let mut staging = Staging::default();
        staging.push(data.clone());

        assert_eq!(staging.pop(1000).as_ptr(), data.as_ptr());
    }
}
