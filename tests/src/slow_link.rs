//! A link that is long: every byte takes its time, in order, and as many as may be are on their way.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// The address of a link to `target` on which each byte takes `delay` each way. For one connection.
///
/// # Panics
/// If there is no free port, or nobody at `target`.
pub async fn slow_link(target: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("a socket");
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.expect("a socket");
        let far = TcpStream::connect(target).await.expect("a socket");
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::join!(carry_slowly(near_in, far_out, delay), carry_slowly(far_in, near_out, delay));
    });
    address
}

async fn carry_slowly(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let _ = sender.send((tokio::time::Instant::now() + delay, buffer[..length].to_vec()));
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(due).await; // waits because it plays a slow link
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
