//! A closed loop of unary calls on the `h2` crate: so many at once, over so many connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use prost::Message;

/// What to call, and how much of it.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the gateway, or the service itself, listens.
    pub target: SocketAddr,
    /// "/package.Service/Method".
    pub path: String,
    /// One message, encoded, without its prefix.
    pub message: Bytes,
    /// How many calls in all.
    pub calls: u64,
    /// How many of them at once.
    pub concurrency: usize,
    /// Over so many connections.
    pub connections: usize,
}

impl Load {
    /// `Method1` of the example with 100 bytes of text.
    pub fn method1(target: SocketAddr) -> Self {
        let message = myservice::proto::Method1Request { text: "x".repeat(100) }.encode_to_vec().into();
        let path = "/myservice.MyService/Method1".to_owned();
        Self { target, path, message, calls: 1_000, concurrency: 64, connections: 4 }
    }

    /// Runs the calls; the first that does not end with status 0 is an error.
    pub async fn run(&self) -> anyhow::Result<()> {
        let left = Arc::new(AtomicU64::new(self.calls));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..self.connections {
            let socket = tokio::net::TcpStream::connect(self.target).await.context("connect")?;
            socket.set_nodelay(true)?;
            let (client, connection) = h2::client::handshake(socket).await?;
            tokio::spawn(connection);
            for _ in 0..self.concurrency / self.connections {
                let (client, left, load) = (client.clone(), left.clone(), self.clone());
                callers.spawn(async move {
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                        load.call(client.clone()).await?;
                    }
                    anyhow::Ok(())
                });
            }
        }
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        Ok(())
    }

    async fn call(&self, client: h2::client::SendRequest<Bytes>) -> anyhow::Result<()> {
        let request = Request::post(format!("http://{}{}", self.target, self.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut body) = client.ready().await?.send_request(request, false)?;
        let mut message = BytesMut::with_capacity(self.message.len() + 5);
        message.put_u8(0);
        message.put_u32(u32::try_from(self.message.len())?);
        message.put_slice(&self.message);
        body.send_data(message.freeze(), true)?;
        let (head, mut body) = response.await?.into_parts();
        while let Some(data) = body.data().await {
            let length = data?.len();
            body.flow_control().release_capacity(length)?;
        }
        let trailers = body.trailers().await?;
        let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
        if status.is_none_or(|status| status != "0") {
            bail!("a call ended with {:?} {:?}", head.headers, trailers);
        }
        Ok(())
    }
}
