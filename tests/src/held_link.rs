//! A link that holds back what goes one way until it is told, so that a test decides what crosses what, however slow
//! the machine is.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// A link to some address, for one connection.
#[derive(Debug)]
pub struct HeldLink {
    /// Where to dial instead.
    pub address: SocketAddr,
    /// What goes to the address.
    pub out: Gate,
    /// What comes from there.
    pub back: Gate,
}

/// One way of a link; it is open at first.
#[derive(Debug)]
pub struct Gate(watch::Sender<bool>);

/// A link to `target`.
///
/// # Panics
/// If there is no free port, or nobody at `target`.
pub async fn held_link(target: SocketAddr) -> HeldLink {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("a socket");
    let link = HeldLink { address, out: Gate(watch::Sender::new(true)), back: Gate(watch::Sender::new(true)) };
    let (out, back) = (link.out.0.subscribe(), link.back.0.subscribe());
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.expect("a socket");
        let far = TcpStream::connect(target).await.expect("a socket");
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::join!(carry(near_in, far_out, out), carry(far_in, near_out, back));
    });
    link
}

impl Gate {
    /// From here on nothing goes through.
    pub fn hold(&self) {
        self.0.send_replace(false);
    }

    /// Lets go what waited, and all that comes.
    pub fn release(&self) {
        self.0.send_replace(true);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // A link that nobody holds any more is open.
        let _ = open.wait_for(|open| *open).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
