//! The bytes of one connection, with TLS or without, as the HTTP/2 library reads and writes them. An enum and not a type
//! parameter: one branch for each system call, and HTTP/2 is compiled once.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::server::TlsStream;

use super::{
    first::First,
    frames::{Flood, Frames, Seen},
};

/// A stream of which the first bytes were looked at, and are read again.
#[derive(Debug)]
pub(super) struct Rewound<S = TcpStream> {
    stream: S,
    first: First,
}

impl<S> Rewound<S> {
    pub(super) fn new(stream: S, first: First) -> Self {
        Self { stream, first }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        buf.put_slice(this.first.take(buf.remaining()));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// What HTTP/2 reads and writes.
#[derive(Debug)]
pub(super) struct Io {
    layer: Layer,
    frames: Frames,
    verdict: Arc<Verdict>,
}

#[derive(Debug)]
pub(super) enum Layer {
    Plain(Rewound),
    Tls(Box<TlsStream<Rewound>>),
}

/// Where the connection's task finds that its peer sends too much of something.
#[derive(Debug, Default)]
pub(super) struct Verdict(AtomicU8);

impl Verdict {
    pub(super) fn flood(&self) -> Option<Flood> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Flood::Control),
            _ => Some(Flood::Resets),
        }
    }

    fn set(&self, flood: Flood) {
        self.0.store(if flood == Flood::Control { 1 } else { 2 }, Ordering::Relaxed);
    }
}

impl Io {
    pub(super) fn new(layer: Layer) -> Self {
        Self { layer, frames: Frames::new(Instant::now()), verdict: Arc::default() }
    }

    pub(super) fn verdict(&self) -> Arc<Verdict> {
        self.verdict.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.verdict.flood().is_some() {
            // The task that polls this looks at the verdict next; nothing more is taken in.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(match &mut this.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Layer::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        })?;
        let seen = this.frames.read(buf.filled().get(before..).unwrap_or_default());
        if seen == Seen::Doubtful
            && let Err(flood) = this.frames.judge(Instant::now())
        {
            this.verdict.set(flood);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(match &mut this.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Layer::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        })?;
        this.frames.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(match &mut this.layer {
            Layer::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Layer::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, parts),
        })?;
        this.frames.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Plain(stream) => stream.is_write_vectored(),
            Layer::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().layer {
            Layer::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Layer::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().layer {
            Layer::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Layer::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
