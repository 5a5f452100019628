//! Where an upstream listens: a TCP address or a Unix socket.

use std::fmt;
use std::io;
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::error::ConfigError;

/// The address of an upstream, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A name is looked up anew with each dial.
    Tcp { host: String, port: u16 },
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Address {
    /// # Errors
    /// It is none, and why.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |why: &str| ConfigError::setting("upstream", format!("{text:?}"), why);
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path, wrong);
        }
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(("https", _)) => {
                return Err(wrong(
                    "an upstream is spoken to without TLS, on this machine; write HOST:PORT of a plain port",
                ));
            }
            Some(_) => return Err(wrong(WRITE)),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("it has no port; write HOST:PORT"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(['/', '@', '?', '#']) || host.chars().any(char::is_whitespace) {
            return Err(wrong(WRITE));
        }
        match port.parse() {
            Ok(0) => Err(wrong("nothing can listen at port 0; write the port of the server")),
            Ok(port) => Ok(Self::Tcp { host: host.to_owned(), port }),
            Err(_) => Err(wrong(WRITE)),
        }
    }

    #[cfg(unix)]
    fn unix(path: &str, wrong: impl Fn(&str) -> ConfigError) -> Result<Self, ConfigError> {
        // gRPC's own two ways to write it: unix:path and unix:///absolute.
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() { Err(wrong("it names no socket; write unix:/PATH")) } else { Ok(Self::Unix(path.into())) }
    }

    #[cfg(not(unix))]
    fn unix(_: &str, wrong: impl Fn(&str) -> ConfigError) -> Result<Self, ConfigError> {
        Err(wrong("this system has no Unix sockets; write HOST:PORT"))
    }

    /// # Errors
    /// What the system says.
    pub(super) async fn dial(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                // What is ready goes; the other end is near.
                let _ = stream.set_nodelay(true);
                Ok(Socket::Tcp(stream))
            }
            #[cfg(unix)]
            Self::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// What to say for `:authority` to who was called without one.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp { .. } => self.to_string(),
            #[cfg(unix)]
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection to an upstream.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

const WRITE: &str = "write HOST:PORT, http://HOST:PORT or unix:/PATH";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn each_way_to_write_an_address_is_read() {
        for (text, shown) in [
            ("127.0.0.1:50051", "127.0.0.1:50051"),
            ("http://127.0.0.1:50051", "127.0.0.1:50051"),
            ("http://localhost:50051/", "localhost:50051"),
            ("[::1]:50051", "[::1]:50051"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_unix_socket_is_written_as_grpc_writes_it() {
        for text in ["unix:/run/shop.sock", "unix:///run/shop.sock"] {
            assert_eq!(Address::parse(text).unwrap(), Address::Unix("/run/shop.sock".into()));
        }
        assert_eq!(Address::parse("unix:/run/shop.sock").unwrap().authority(), "localhost");
    }

    #[test]
    fn what_is_no_address_says_what_to_write() {
        for (text, why) in [
            ("localhost", "it has no port; write HOST:PORT"),
            ("https://localhost:1", "an upstream is spoken to without TLS"),
            ("ftp://localhost:1", WRITE),
            ("localhost:0", "nothing can listen at port 0"),
            ("localhost:http", WRITE),
            (":50051", WRITE),
            ("unix:", "it names no socket; write unix:/PATH"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("upstream({text:?}) cannot be used: {why}")), "{error}");
        }
    }
}
