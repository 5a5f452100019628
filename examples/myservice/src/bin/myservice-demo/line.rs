//! The line from the backends to the gateway, as the demo breaks it: what is on its way is held, and then every connection
//! is cut.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A line on a port of its own. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Line {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    _accepting: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_held: bool,
    cuts: u32,
}

impl Line {
    /// One to the gateway.
    pub(crate) async fn to(gateway: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(State::default()));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, gateway.to_owned(), state.clone()));
        Ok(Self { address, state, _accepting: accepting })
    }

    /// Where backends dial it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on nothing arrives.
    pub(crate) fn hold(&self) {
        self.state.send_modify(|state| state.is_held = true);
    }

    /// Cuts every connection. What was held is lost; who dials again gets through.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| *state = State { is_held: false, cuts: state.cuts + 1 });
    }
}

async fn accept(listener: TcpListener, gateway: String, state: Arc<watch::Sender<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (gateway, state) = (gateway.clone(), state.subscribe());
        connections.spawn(async move {
            if let Ok(far) = TcpStream::connect(gateway).await {
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                carry(near, far, state).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Until either end is gone, or the line is cut.
async fn carry(near: TcpStream, far: TcpStream, mut state: watch::Receiver<State>) {
    let born = state.borrow_and_update().cuts;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        _ = one_way(near_in, far_out, state.clone()) => {}
        _ = one_way(far_in, near_out, state.clone()) => {}
        _ = state.wait_for(|now| now.cuts > born) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut bytes).await?;
        let Some(read) = bytes.get(..length).filter(|read| !read.is_empty()) else { return Ok(()) };
        let _ = state.wait_for(|now| !now.is_held).await;
        to.write_all(read).await?;
    }
}
