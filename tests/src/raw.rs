//! A client that is nothing but HTTP/2: it enforces no deadline, mends nothing and hides nothing.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic_types::StatusExt;

/// One connection.
#[derive(Debug, Clone)]
pub struct RawClient {
    client: h2::client::SendRequest<Bytes>,
    target: SocketAddr,
}

/// One call that has begun.
#[derive(Debug)]
pub struct RawCall {
    /// What goes out. Dropping it without an end resets the stream.
    pub request: h2::SendStream<Bytes>,
    /// What comes back.
    pub response: h2::client::ResponseFuture,
}

/// How a call ended.
#[derive(Debug)]
pub struct RawEnd {
    /// The HTTP status.
    pub http_status: u16,
    /// The response headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// The trailers; the headers again if there was nothing but them.
    pub trailers: HeaderMap,
}

impl RawClient {
    /// Connects; the connection lives as long as the client and its calls. The handle of its task aborts it.
    pub async fn connect(target: SocketAddr) -> anyhow::Result<(Self, tokio::task::JoinHandle<()>)> {
        let socket = tokio::net::TcpStream::connect(target).await?;
        socket.set_nodelay(true)?;
        Self::over(socket, target).await
    }

    /// The same over any stream of bytes, such as one with TLS.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        target: SocketAddr,
    ) -> anyhow::Result<(Self, tokio::task::JoinHandle<()>)> {
        let (client, connection) = h2::client::handshake(stream).await?;
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok((Self { client, target }, task))
    }

    /// Begins a call with these headers beside gRPC's own.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<RawCall> {
        self.call_with(http::Method::POST, path, headers).await
    }

    /// The same with another method of HTTP.
    pub async fn call_with(
        &self,
        method: http::Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<RawCall> {
        let uri = format!("http://{}{path}", self.target);
        let mut request = Request::builder().method(method).uri(uri).header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(())?).await
    }

    /// Begins a call with exactly this head.
    pub async fn send(&self, head: Request<()>) -> anyhow::Result<RawCall> {
        let (response, request) = self.client.clone().ready().await?.send_request(head, false)?;
        Ok(RawCall { request, response })
    }

    /// A whole unary call.
    pub async fn unary(&self, path: &str, headers: &[(&str, &str)], message: &impl Message) -> anyhow::Result<RawEnd> {
        let mut call = self.call(path, headers).await?;
        call.request.send_data(frame(message), true)?;
        call.end().await
    }
}

impl RawCall {
    /// Reads to the end. An error if the stream is reset.
    pub async fn end(self) -> anyhow::Result<RawEnd> {
        let (head, mut body) = self.response.await.context("response headers")?.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.context("response data")?;
            body.flow_control().release_capacity(data.len())?;
            bytes.put(data);
        }
        let trailers = body.trailers().await.context("trailers")?.unwrap_or_else(|| head.headers.clone());
        Ok(RawEnd { http_status: head.status.as_u16(), headers: head.headers, body: bytes.freeze(), trailers })
    }
}

impl RawEnd {
    /// The gRPC status code, -1 if there is none.
    pub fn code(&self) -> i32 {
        let status = self.trailers.get("grpc-status").and_then(|value| value.to_str().ok());
        status.and_then(|value| value.parse().ok()).unwrap_or(-1)
    }

    /// What stands in the `ErrorInfo` of an answer of ours: its reason and its outcome, "" if it tells none.
    ///
    /// # Panics
    /// If there is no `ErrorInfo`, or not of our domain.
    pub fn reason(&self) -> (String, String) {
        let status = tonic::Status::from_header_map(&self.trailers).expect("a status");
        let info = status.get_details_error_info();
        let info = info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
        assert_eq!(info.domain, "grpcrouter", "{status:?}");
        (info.reason, info.metadata.get("outcome").cloned().unwrap_or_default())
    }

    /// The gRPC message as it came, percent-encoded.
    pub fn message(&self) -> &str {
        self.trailers.get("grpc-message").and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// `message` with gRPC's prefix.
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(length + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}
