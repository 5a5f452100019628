//! The bytes of one connection, whatever it goes through: TCP, TLS, and TLS inside of a proxy's.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::error::Spoken;

/// A connection. Beyond what it goes through, it costs a branch for each read and each write.
#[derive(Debug)]
pub(crate) struct Road {
    io: Io,
    /// What was read together with a proxy's answer and came from beyond it.
    ahead: Bytes,
    heard: Arc<Heard>,
    /// Whether nothing was read yet.
    is_silent: bool,
    /// What a write failed with, while it is read what the other side said last. Over TLS alone.
    broken: Option<io::Error>,
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    /// Inside of it may be another one: that of a proxy.
    Tls(Box<TlsStream<Road>>),
}

/// What was heard on a road, for who must say what is wrong with it when an error of HTTP/2 tells too little.
#[derive(Debug, Default)]
pub(super) struct Heard {
    first: OnceLock<Spoken>,
    tls: OnceLock<rustls::Error>,
}

impl Heard {
    /// What the other side began to speak.
    pub(super) fn spoken(&self) -> Spoken {
        self.first.get().copied().unwrap_or(Spoken::Nothing)
    }

    fn note(&self, error: &io::Error) {
        if let Some(error) = rustls_error(error) {
            let _ = self.tls.set(error.clone());
        }
    }

    /// What TLS broke with after the handshake.
    pub(super) fn tls_error(&self) -> Option<&rustls::Error> {
        self.tls.get()
    }
}

impl Road {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self::new(Io::Tcp(stream))
    }

    pub(super) fn tls(stream: TlsStream<Road>) -> Self {
        Self::new(Io::Tls(Box::new(stream)))
    }

    /// The same, as it is from a proxy's answer on: `ahead` came already.
    pub(super) fn behind_proxy(self, ahead: Bytes) -> Self {
        let heard = Arc::<Heard>::default();
        if !ahead.is_empty() {
            let _ = heard.first.set(spoken(&ahead));
        }
        Self { is_silent: ahead.is_empty(), ahead, heard, ..self }
    }

    pub(super) fn heard(&self) -> Arc<Heard> {
        self.heard.clone()
    }

    /// A write over TLS failed: the other side may have said why before it hung up, and nobody would read it now.
    fn last_words<T>(&mut self, cx: &mut Context<'_>, error: io::Error) -> Poll<io::Result<T>> {
        self.broken = Some(error);
        self.part(cx)
    }

    /// Reads what the other side said last, and ends with what the write failed with. The end comes for sure, for it has
    /// hung up.
    fn part<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if let Io::Tls(io) = &mut self.io {
            loop {
                let mut space = [0; 512];
                let mut space = ReadBuf::new(&mut space);
                match ready!(Pin::new(io.as_mut()).poll_read(cx, &mut space)) {
                    Ok(()) if space.filled().is_empty() => break,
                    Ok(()) => {}
                    Err(error) => {
                        self.heard.note(&error);
                        break;
                    }
                }
            }
        }
        Poll::Ready(Err(self.broken.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }

    fn new(io: Io) -> Self {
        Self { io, ahead: Bytes::new(), heard: Arc::default(), is_silent: true, broken: None }
    }
}

impl AsyncRead for Road {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = match &mut this.io {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buf),
        };
        match &read {
            Poll::Ready(Ok(())) if this.is_silent => {
                let new = buf.filled().get(before..).unwrap_or_default();
                if !new.is_empty() {
                    this.is_silent = false;
                    let _ = this.heard.first.set(spoken(new));
                }
            }
            Poll::Ready(Err(error)) => this.heard.note(error),
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Road {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.io {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(_) if this.broken.is_some() => this.part(cx),
            Io::Tls(io) => match Pin::new(io.as_mut()).poll_write(cx, buf) {
                Poll::Ready(Err(error)) => this.last_words(cx, error),
                written => written,
            },
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.io {
            Io::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(_) if this.broken.is_some() => this.part(cx),
            Io::Tls(io) => match Pin::new(io.as_mut()).poll_write_vectored(cx, bufs) {
                Poll::Ready(Err(error)) => this.last_words(cx, error),
                written => written,
            },
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.io {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(_) if this.broken.is_some() => this.part(cx),
            Io::Tls(io) => match Pin::new(io.as_mut()).poll_flush(cx) {
                Poll::Ready(Err(error)) => this.last_words(cx, error),
                written => written,
            },
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }
}

/// What of rustls is in an error of I/O.
pub(super) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn spoken(first: &[u8]) -> Spoken {
    match first {
        [] => Spoken::Nothing,
        // A record of TLS: its kind, then version 3.
        [0x14..=0x17, 3, ..] => Spoken::Tls,
        // A frame of HTTP/2 that a server may begin with: SETTINGS, or GOAWAY.
        [0, _, _, 4 | 7, ..] => Spoken::Http2,
        _ if first.starts_with(b"HTTP/") => Spoken::Http1,
        _ => Spoken::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_side_speaks_is_known_by_its_first_bytes() {
        for (first, expected) in [
            (&b""[..], Spoken::Nothing),
            (b"\x15\x03\x03\x00\x02\x02\x46", Spoken::Tls),
            (b"\x16\x03\x03", Spoken::Tls),
            (b"\x00\x00\x12\x04\x00", Spoken::Http2),
            (b"HTTP/1.1 400 Bad Request", Spoken::Http1),
            (b"SSH-2.0-OpenSSH", Spoken::Other),
        ] {
            assert_eq!(spoken(first), expected, "{first:?}");
        }
    }
}
