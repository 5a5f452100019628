//! How a connection begins: finds out what the client speaks, shakes hands with TLS where that is served, and tells whoever
//! speaks something else what would be right, in its own language, so that nobody waits and nobody guesses.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Duration, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use super::{
    first::{First, Speaks},
    io::{Io, Layer, Rewound},
};
use crate::{
    gateway::{
        GatewayCore,
        peer::{Peer, PeerTls},
        tls::{ALPN_H2, ServerTls},
    },
    metadata,
    status::Answer,
};

/// A connection that speaks HTTP/2 from here on. None if it does not, and was told so.
pub(super) async fn open(
    core: &GatewayCore,
    mut stream: TcpStream,
    address: SocketAddr,
    tls: Option<&ServerTls>,
) -> Option<(Io, Peer)> {
    let mut first = First::default();
    let speaks = match first.listen(&mut stream).await {
        Ok(speaks) => speaks,
        Err(error) => {
            debug!(peer = %address, %error, "a connection broke before it said anything");
            return None;
        }
    };
    let Some(tls) = tls else {
        if speaks == Speaks::Http2 {
            let io = Io::new(Layer::Plain(Rewound::new(stream, first)));
            return Some((io, Peer { address, tls: None }));
        }
        refuse(stream, first, speaks, address, &PLAIN_PORT).await;
        return None;
    };
    if speaks != Speaks::Tls {
        refuse(stream, first, speaks, address, &TLS_PORT).await;
        return None;
    }
    let accept = TlsAcceptor::from(tls.config()).accept(Rewound::new(stream, first)).into_fallible();
    let mut stream = match accept.await {
        Ok(stream) => stream,
        Err((error, mut stream)) => {
            tell_of_failed(core, address, &error);
            // The alert was written: the client is to read it.
            part(&mut stream).await;
            return None;
        }
    };
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        let mut first = First::default();
        if let Ok(speaks) = first.listen(&mut stream).await {
            refuse(stream, first, speaks, address, &TLS_WITHOUT_H2).await;
        }
        return None;
    }
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let peer = Peer { address, tls: Some(PeerTls { certificates }) };
    Some((Io::new(Layer::Tls(Box::new(stream))), peer))
}

/// A handshake that failed, in the log. Whoever tries a certificate that is not taken is somebody's instance or client;
/// the rest is what knocks at every open port.
fn tell_of_failed(core: &GatewayCore, peer: SocketAddr, error: &io::Error) {
    use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
    let why = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let known = matches!(why, Some(AlertReceived(_) | InvalidCertificate(_) | NoCertificatesPresented));
    match known.then(|| core.arrivals.failed_tls.once(tokio::time::Instant::now())).flatten() {
        Some(unsaid) => {
            info!(%peer, %error, unsaid, "TLS handshake failed: one side does not take the other's certificate, or lack of one")
        }
        None => debug!(%peer, %error, "TLS handshake failed"),
    }
}

/// What is said at one kind of port to those who speak something else.
struct Port {
    name: &'static str,
    /// To browsers and curl.
    text: &'static str,
    /// To gRPC clients, as the answer to each call.
    status: &'static str,
}

const PLAIN_PORT: Port = Port {
    name: "a port without TLS",
    text: "This is a gRPC gateway, and this port speaks HTTP/2 without TLS.\n\
           Call it with a gRPC client, for example: grpcurl -plaintext HOST:PORT list\n",
    status: "",
};

const TLS_PORT: Port = Port {
    name: "a port with TLS",
    text: "This is a gRPC gateway, and this port speaks TLS: use https://, or a gRPC client with TLS,\n\
           for example: grpcurl HOST:PORT list (without -plaintext)\n",
    status: "this port of the gateway speaks TLS: use https://, or a channel with TLS credentials",
};

const TLS_WITHOUT_H2: Port = Port {
    name: "TLS without ALPN h2",
    text: "This is a gRPC gateway: it speaks HTTP/2 over TLS, which clients ask for with ALPN h2.\n\
           Call it with a gRPC client, for example: grpcurl HOST:PORT list\n",
    status: "this gateway speaks HTTP/2 only with those who ask for it: offer h2 with ALPN in the TLS handshake",
};

/// Answers whoever speaks the wrong language, and parts.
async fn refuse<S>(mut stream: S, first: First, speaks: Speaks, peer: SocketAddr, port: &Port)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if speaks == Speaks::Nothing {
        return;
    }
    debug!(%peer, port = port.name, ?speaks, "a client speaks something else and is told so");
    let written = match speaks {
        Speaks::Http2 => return answer_calls(Rewound::new(stream, first), port).await,
        // A ClientHello gets words too, and no alert: of an alert clients say that the handshake failed, which sends people
        // to look at certificates; of words, that this is no TLS.
        Speaks::Http1 | Speaks::Tls => stream.write_all(&http1(first.said(), port.text)).await,
        Speaks::Unknown | Speaks::Nothing => Ok(()),
    };
    if written.is_ok() {
        part(&mut stream).await;
    }
}

/// Speaks HTTP/2 to say in answer to a call that it is the wrong one, which gRPC clients show. A GOAWAY alone they take for
/// a reason to connect again at once, and again.
async fn answer_calls<S>(stream: S, port: &Port)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Nobody has shown anything yet: no more headers than on any other connection.
    let mut h2 = match super::settings().max_concurrent_streams(FEW_CALLS).handshake::<_, Bytes>(stream).await {
        Ok(h2) => h2,
        Err(error) => return debug!(%error, "it was no HTTP/2 either"),
    };
    while let Some(Ok((request, mut respond))) = h2.accept().await {
        let sent = if metadata::is_grpc(request.headers()) {
            respond.send_response(Answer::wrong_port(port.status).into_http(), true).map(drop)
        } else {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            let sending = respond.send_response(response, false);
            sending.and_then(|mut body| body.send_data(Bytes::from_static(port.text.as_bytes()), true))
        };
        if let Err(error) = sent {
            debug!(%error, "a client left before it was told what this port speaks");
        }
        h2.graceful_shutdown();
    }
}

/// Ends a connection so that the peer can read what was said last: a socket that is closed with something unread takes it
/// back.
async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut left = UNREAD;
    let mut buffer = [0; 1024];
    let rest = async {
        while let Ok(more @ 1..) = stream.read(&mut buffer).await {
            left = left.saturating_sub(more);
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(PARTING, rest).await;
}

fn http1(request: &[u8], text: &str) -> Vec<u8> {
    let body = if request.starts_with(b"HEAD ") { "" } else { text };
    let length = text.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Calls that a client may have open which is at the wrong port.
const FEW_CALLS: u32 = 16;

/// How much of what a client still sends is read before it is cut off.
const UNREAD: usize = 64 * 1024;

/// How long a client may take to read what was said last.
const PARTING: Duration = Duration::from_secs(1);
