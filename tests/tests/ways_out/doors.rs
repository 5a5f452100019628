//! What a backend may find where it looks for a gateway: TLS in front of one, and many things that are none.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, LazyLock},
};

use grpcrouter_tests::certs::Pair;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;

/// TLS with this certificate and these protocols; clients must show one that `client_ca` signed, if there is one.
pub(crate) fn tls(pair: &Pair, protocols: &[&[u8]], client_ca: Option<&Path>) -> ServerConfig {
    let verifier: Arc<dyn ClientCertVerifier> = match client_ca {
        None => Arc::new(NoClientAuth),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build().unwrap()
        }
    };
    let chain = CertificateDer::pem_file_iter(&pair.cert).unwrap().collect::<Result<_, _>>().unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// Ends TLS in front of `to`.
pub(crate) async fn tls_before(to: SocketAddr, config: ServerConfig) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut near) = acceptor.accept(stream).await else { return };
            let Ok(mut far) = TcpStream::connect(to).await else { return };
            let _ = copy_bidirectional(&mut near, &mut far).await;
        }
    })
    .await
}

/// Says `what` to whoever said something, and hangs up.
pub(crate) async fn says(what: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(what).await;
        let _ = stream.shutdown().await;
        // What the other side still sends is read, so that no reset overtakes the words.
        while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
    })
    .await
}

/// Takes connections and says nothing.
pub(crate) async fn mute() -> SocketAddr {
    serve(|mut stream| async move { while let Ok(1..) = stream.read(&mut [0; 4096]).await {} }).await
}

/// HTTP/2 that answers every request with this status and content type, and nothing else.
pub(crate) async fn http2(status: u16, content_type: &'static str) -> SocketAddr {
    serve(move |stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let head = http::Response::builder().status(status).header("content-type", content_type);
            let _ = respond.send_response(head.body(()).unwrap(), true);
        }
    })
    .await
}

/// An address at which nothing listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Serves each connection in a task of its own.
pub(crate) async fn serve<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    OUTSIDE.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Not the runtime of a test, whose tasks are counted in the end: those of the world outside are not ours.
static OUTSIDE: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
