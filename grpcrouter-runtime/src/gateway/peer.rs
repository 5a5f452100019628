//! Who is at the other end of a connection, as far as the connection itself can tell: an address, and what TLS proved.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

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

/// What counts as one address, wherever addresses are counted: whoever has one of IPv6 has all of its last 64 bits.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").field("certificates", &self.certificates.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_mapped_ipv4_as_itself() {
        let of = |text: &str| network(text.parse().unwrap());

        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
