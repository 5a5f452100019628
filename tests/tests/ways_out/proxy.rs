//! A proxy that does CONNECT, knows names that nobody else knows, and writes down what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
};

use crate::doors;

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Connects whoever asks for `gateway.test:443`, or for `to` itself, to `to`; for `credentials`, as `USER:PASSWORD`.
    pub(crate) async fn to(to: SocketAddr, credentials: Option<&'static str>) -> Self {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let written = heads.clone();
        let address = doors::serve(move |stream| carry(stream, to, credentials, written.clone())).await;
        Self { address, heads }
    }

    /// The heads of the requests that came.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Serves one connection to the proxy.
pub(crate) async fn carry(
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    to: SocketAddr,
    credentials: Option<&str>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match near.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    heads.lock().unwrap().push(head.clone());
    let wanted = credentials.map(|plain| format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(plain)));
    let answer = if wanted.is_some_and(|wanted| !head.contains(&wanted)) {
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"out\"\r\n\r\n"
    } else if head.starts_with("CONNECT gateway.test:443 ") || head.starts_with(&format!("CONNECT {to} ")) {
        "HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n"
    } else {
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nNo."
    };
    let _ = near.write_all(answer.as_bytes()).await;
    if answer.starts_with("HTTP/1.1 200")
        && let Ok(mut far) = TcpStream::connect(to).await
    {
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}
