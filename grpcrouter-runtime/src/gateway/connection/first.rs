//! What a client speaks, by the first bytes that it sends: enough of them to tell, and no more.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first bytes of a connection. They are read again by whoever speaks that language.
#[derive(Debug, Default)]
pub(super) struct First {
    bytes: [u8; PREFACE.len()],
    /// Those from here on are still to be read again.
    at: usize,
    have: usize,
}

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/2 with prior knowledge.
    Http2,
    Tls,
    /// HTTP/1, or at least words.
    Http1,
    /// Nothing that could be answered.
    Unknown,
    /// It left before it said anything.
    Nothing,
}

impl First {
    /// Reads as much as it takes to tell.
    ///
    /// # Cancel safety
    /// What was read is in here.
    pub(super) async fn listen(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Speaks> {
        loop {
            if let Some(speaks) = tell(self.said()) {
                return Ok(speaks);
            }
            let Some(room) = self.bytes.get_mut(self.have..) else { return Ok(Speaks::Unknown) };
            match stream.read(room).await? {
                0 if self.have == 0 => return Ok(Speaks::Nothing),
                0 => return Ok(Speaks::Unknown),
                more => self.have += more,
            }
        }
    }

    /// What was said so far.
    pub(super) fn said(&self) -> &[u8] {
        self.bytes.get(..self.have).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.have
    }

    /// The next bytes, so many at most.
    pub(super) fn take(&mut self, most: usize) -> &[u8] {
        let from = self.at;
        self.at = self.have.min(from.saturating_add(most));
        self.bytes.get(from..self.at).unwrap_or_default()
    }
}

/// None: it could still be several.
fn tell(said: &[u8]) -> Option<Speaks> {
    match said {
        [] => None,
        [TLS_HANDSHAKE, ..] => Some(Speaks::Tls),
        said if said == PREFACE => Some(Speaks::Http2),
        said if PREFACE.starts_with(said) => None,
        [letter, ..] if letter.is_ascii_uppercase() => Some(Speaks::Http1),
        _ => Some(Speaks::Unknown),
    }
}

/// What every HTTP/2 client says first: RFC 9113, section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The type of the record that a ClientHello comes in.
const TLS_HANDSHAKE: u8 = 22;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[tokio::test]
    async fn what_a_client_speaks_is_told_by_its_first_bytes_and_they_can_be_read_again() {
        for (said, speaks, taken) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"[..], Speaks::Http2, 24),
            (b"\x16\x03\x01\x02\0\x01", Speaks::Tls, 6),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Speaks::Http1, 24),
            (b"PROPFIND / HTTP/1.1\r\n\r\n", Speaks::Http1, 23),
            (b"PRI * HTTP/2.0\r\n", Speaks::Unknown, 16),
            (b"\0\x01\x02", Speaks::Unknown, 3),
            (b"", Speaks::Nothing, 0),
        ] {
            let (mut first, mut stream) = (First::default(), said);

            assert_eq!(first.listen(&mut stream).await.unwrap(), speaks, "{said:?}");

            let again = [first.take(5).to_vec(), first.take(100).to_vec()].concat();
            assert_eq!(again, said.get(..taken).unwrap());
            assert!(first.is_empty());
        }
    }

    #[tokio::test]
    async fn the_preface_is_known_byte_by_byte() {
        let mut first = First::default();
        let (mut client, mut stream) = tokio::io::duplex(1);
        let sent = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut client, PREFACE).await.unwrap();
            client
        });

        assert_eq!(first.listen(&mut stream).await.unwrap(), Speaks::Http2);
        drop(sent.await.unwrap());
    }
}
