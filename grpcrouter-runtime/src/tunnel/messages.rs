//! Splits the body of a gRPC stream into its messages. A message that arrives in one piece is not copied.

use std::{fmt::Display, future::poll_fn, pin::Pin};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;

/// A batch has at most 64 KiB; the slack lets a peer be a little wrong about what it counts.
const MAX_MESSAGE: usize = 68 * 1024;
/// gRPC's length prefix: one byte of flags, four of length.
const PREFIX: usize = 5;

/// The messages of `B`.
#[derive(Debug)]
pub(crate) struct Messages<B> {
    body: B,
    /// What the last chunk still holds.
    chunk: Bytes,
    /// A message of which the end has not come yet; empty while `chunk` is not.
    partial: BytesMut,
    trailers: Option<HeaderMap>,
    received: u64,
}

/// Why no further message comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessagesError {
    #[error("a message of {0} bytes, over the limit of {MAX_MESSAGE}")]
    TooLarge(usize),
    #[error("a compressed message; Register streams are not compressed")]
    Compressed,
    #[error("the stream ended inside a message")]
    Truncated,
    #[error("{0}")]
    Body(String),
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    pub(crate) fn new(body: B) -> Self {
        Self { body, chunk: Bytes::new(), partial: BytesMut::new(), trailers: None, received: 0 }
    }

    /// The next message, without its prefix; `None` at the end of the stream.
    ///
    /// # Cancel safety
    /// What was read stays here; dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, MessagesError> {
        loop {
            if let Some(message) = self.split()? {
                return Ok(Some(message));
            }
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                None if self.partial.is_empty() => return Ok(None),
                None => return Err(MessagesError::Truncated),
                Some(Err(error)) => return Err(MessagesError::Body(error.to_string())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    /// The trailers, once [`next`](Self::next) gave `None`.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// Bytes that came so far, also of a message that is not whole yet: a slow peer is not a silent one.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    fn take(&mut self, data: Bytes) {
        self.received += data.len() as u64;
        if self.partial.is_empty() {
            self.chunk = data;
        } else {
            self.partial.extend_from_slice(&data);
        }
    }

    fn split(&mut self) -> Result<Option<Bytes>, MessagesError> {
        if !self.partial.is_empty() {
            let Some(length) = whole(&self.partial)? else { return Ok(None) };
            self.partial.advance(PREFIX);
            let message = self.partial.split_to(length).freeze();
            // What follows is looked at in place, without another copy.
            self.chunk = self.partial.split().freeze();
            return Ok(Some(message));
        }
        if self.chunk.is_empty() {
            return Ok(None);
        }
        let Some(length) = whole(&self.chunk)? else {
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return Ok(None);
        };
        self.chunk.advance(PREFIX);
        Ok(Some(self.chunk.split_to(length)))
    }
}

/// The length of the message at the front of `bytes`, if it is all there.
fn whole(bytes: &[u8]) -> Result<Option<usize>, MessagesError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [flag, length @ ..] = prefix;
    if *flag != 0 {
        return Err(MessagesError::Compressed);
    }
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_MESSAGE {
        return Err(MessagesError::TooLarge(length));
    }
    Ok((rest.len() >= length).then_some(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::{collections::VecDeque, convert::Infallible, task};

    use http_body::Frame;

    use super::*;

    #[derive(Default)]
    struct Chunks(VecDeque<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            task::Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    fn message(length: usize, fill: u8) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(PREFIX + length, fill);
        bytes
    }

    #[tokio::test]
    async fn messages_come_out_whole_however_the_stream_is_cut() {
        let wire: Vec<u8> = (0..20u8).flat_map(|i| message(usize::from(i) * 7, i)).collect();
        for cut in 1..200 {
            let body = Chunks(wire.chunks(cut).map(Bytes::copy_from_slice).collect());
            let mut messages = Messages::new(body);
            for i in 0..20u8 {
                assert_eq!(messages.next().await.unwrap().unwrap(), vec![i; usize::from(i) * 7], "cut {cut}");
            }
            assert!(messages.next().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_before_anything_is_stored() {
        let body = Chunks([Bytes::from_static(&[0, 0xff, 0, 0, 0])].into());
        assert!(matches!(Messages::new(body).next().await, Err(MessagesError::TooLarge(0xff00_0000))));
    }

    #[tokio::test]
    async fn an_end_inside_a_message_is_an_error() {
        let body = Chunks([Bytes::from_static(&[0, 0, 0, 0, 9, 1])].into());
        assert!(matches!(Messages::new(body).next().await, Err(MessagesError::Truncated)));
    }
}
