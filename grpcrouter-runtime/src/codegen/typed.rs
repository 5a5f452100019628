//! The typed path: a generated router as tonic's own server trait. Messages are decoded and encoded again, so fields
//! that the proto does not know and the trailers of a stream do not survive; the raw path forwards bytes untouched.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use tokio_stream::Stream;
use tonic::codec::Codec;
use tonic::metadata::MetadataMap;
use tonic::{GrpcMethod, Request, Response, Status, Streaming};

use super::link::{CallEnd, linked};
use super::{MethodSpec, RouterChannel};

/// Sends a unary call on.
///
/// # Errors
/// The status that the call ended with.
///
/// # Cancel safety
/// Dropping the future cancels the call; before its first poll nothing was sent.
pub async fn unary<C, K, M1, M2>(
    channel: &C,
    method: &'static MethodSpec,
    codec: K,
    mut request: Request<M1>,
) -> Result<Response<M2>, Status>
where
    C: RouterChannel,
    K: Codec<Encode = M1, Decode = M2>,
    M1: Send + Sync + 'static,
    M2: Send + Sync + 'static,
{
    prepare(&mut request, method);
    let mut grpc = ready(channel.clone()).await;
    let response = grpc.unary(request, path(method), codec).await?;
    Ok(finish(response))
}

/// Sends a call with many answers on.
///
/// # Errors
/// The status that the call ended with before its first answer.
///
/// # Cancel safety
/// Dropping the future cancels the call; before its first poll nothing was sent.
pub async fn server_streaming<C, K, M1, M2>(
    channel: &C,
    method: &'static MethodSpec,
    codec: K,
    mut request: Request<M1>,
) -> Result<Response<ResponseStream<M2>>, Status>
where
    C: RouterChannel,
    K: Codec<Encode = M1, Decode = M2>,
    M1: Send + Sync + 'static,
    M2: Send + Sync + 'static,
{
    prepare(&mut request, method);
    let mut grpc = ready(channel.clone()).await;
    let response = grpc.server_streaming(request, path(method), codec).await?;
    Ok(finish(response).map(|inner| ResponseStream { inner, end: None }))
}

/// Sends a call with many messages on.
///
/// # Errors
/// The status that the call ended with, or the one that the incoming stream failed with.
///
/// # Cancel safety
/// Dropping the future cancels the call; before its first poll nothing was sent.
pub async fn client_streaming<C, K, M1, M2>(
    channel: &C,
    method: &'static MethodSpec,
    codec: K,
    request: Request<Streaming<M1>>,
) -> Result<Response<M2>, Status>
where
    C: RouterChannel,
    K: Codec<Encode = M1, Decode = M2>,
    M1: Send + Sync + 'static,
    M2: Send + Sync + 'static,
{
    let (channel, mut request, end) = linked(channel, request);
    prepare(&mut request, method);
    let mut grpc = ready(channel).await;
    let response = end.drive(grpc.client_streaming(request, path(method), codec)).await?;
    Ok(finish(response))
}

/// Sends a call with many messages each way on.
///
/// # Errors
/// The status that the call ended with before its first answer, or the one that the incoming stream failed with.
///
/// # Cancel safety
/// Dropping the future cancels the call; before its first poll nothing was sent.
pub async fn streaming<C, K, M1, M2>(
    channel: &C,
    method: &'static MethodSpec,
    codec: K,
    request: Request<Streaming<M1>>,
) -> Result<Response<ResponseStream<M2>>, Status>
where
    C: RouterChannel,
    K: Codec<Encode = M1, Decode = M2>,
    M1: Send + Sync + 'static,
    M2: Send + Sync + 'static,
{
    let (channel, mut request, end) = linked(channel, request);
    prepare(&mut request, method);
    let mut grpc = ready(channel).await;
    let response = end.drive(grpc.streaming(request, path(method), codec)).await?;
    Ok(finish(response).map(|inner| ResponseStream { inner, end: Some(end) }))
}

/// The answers of a streaming call, in the typed path.
pub struct ResponseStream<M> {
    inner: Streaming<M>,
    /// Where the client streams too; none once its stream failed.
    end: Option<CallEnd>,
}

impl<M> fmt::Debug for ResponseStream<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseStream").finish_non_exhaustive()
    }
}

impl<M> Stream for ResponseStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(status) = self.end.as_ref().and_then(|end| end.poll(cx)) {
            self.end = None;
            return Poll::Ready(Some(Err(status)));
        }
        Pin::new(&mut self.inner).poll_next(cx)
    }
}

async fn ready<C: RouterChannel>(channel: C) -> tonic::client::Grpc<C> {
    // The limits are the instance's and the client's to set, not those of a hop between them.
    let mut grpc =
        tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
    let Ok(()) = grpc.ready().await;
    grpc
}

fn path(method: &MethodSpec) -> PathAndQuery {
    PathAndQuery::from_static(method.path)
}

fn prepare<M>(request: &mut Request<M>, method: &'static MethodSpec) {
    strip_hop(request.metadata_mut());
    request.extensions_mut().insert(GrpcMethod::new(method.service, method.name));
}

fn finish<M>(mut response: Response<M>) -> Response<M> {
    strip_hop(response.metadata_mut());
    response
}

fn strip_hop(metadata: &mut MetadataMap) {
    for key in HOP {
        metadata.remove(*key);
    }
}

/// What speaks of one connection or of one encoding of the messages, which are encoded anew here. The client's
/// `grpc-accept-encoding` above all: the instance would compress for a decoder that is not the client's.
const HOP: &[&str] = &[
    "grpc-encoding",
    "grpc-accept-encoding",
    "content-length",
    "content-type",
    "te",
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "host",
];
