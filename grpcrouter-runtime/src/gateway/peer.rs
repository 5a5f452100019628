//! Who is at the other end of a connection, as far as the connection itself can tell: an address, and what TLS proved.

use std::{fmt, net::SocketAddr, sync::Arc};

use rustls_pki_types::CertificateDer;

/// The other end of one connection: an extension of each request to register that came through the gateway's own front.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// None on a connection without TLS.
    pub(crate) tls: Option<PeerTls>,
}

/// What TLS proved of it.
#[derive(Clone)]
pub(crate) struct PeerTls {
    /// The client's own certificate and its chain, verified; empty if it sent none.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").field("certificates", &self.certificates.len()).finish()
    }
}
