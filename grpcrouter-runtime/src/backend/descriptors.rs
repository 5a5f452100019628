//! The descriptors that a backend offers, and the service `grpcrouter.Instance` that hands them to a gateway which does
//! not know them yet.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::descriptors::{BadSet, DESCRIPTORS_PATH, Fields, Hash, Set, Value};
use crate::status::Answer;
use crate::tunnel::Messages;

/// The sets of a backend. A clone has the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Offered(Arc<Vec<OfferedSet>>);

#[derive(Debug)]
struct OfferedSet {
    hash: Hash,
    bytes: Bytes,
    services: Vec<Arc<str>>,
}

impl Offered {
    /// # Errors
    /// One of them is no encoded `FileDescriptorSet`, or one that no gateway would take.
    pub(super) fn read(sets: Vec<Bytes>) -> Result<Self, BadSet> {
        let read = |bytes: Bytes| {
            let services = Set::read(&bytes)?.services().cloned().collect();
            Ok(OfferedSet { hash: Hash::of(&bytes), bytes, services })
        };
        Ok(Self(Arc::new(sets.into_iter().map(read).collect::<Result<_, BadSet>>()?)))
    }

    /// What to say of `service`: the hash of the first set that defines it, or nothing.
    pub(super) fn hash(&self, service: &str) -> Bytes {
        let set = self.0.iter().find(|set| set.services.iter().any(|name| **name == *service));
        set.map(|set| Bytes::copy_from_slice(set.hash.as_bytes())).unwrap_or_default()
    }

    fn set(&self, hash: Hash) -> Option<Bytes> {
        self.0.iter().find(|set| set.hash == hash).map(|set| set.bytes.clone())
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        if path != DESCRIPTORS_PATH {
            let method = path.rsplit('/').next().unwrap_or_default();
            return Answer::unknown_method(Self::NAME, method, Some("Descriptors")).into_http();
        }
        let question = Messages::new(Box::pin(request.into_body())).next().await;
        let hash = match &question {
            Ok(Some(message)) => hash_of(message),
            _ => None,
        };
        let Some(hash) = hash else { return Status::invalid_argument("a hash has 32 bytes").into_http() };
        let Some(bytes) = self.set(hash) else {
            return Status::not_found("no descriptors of this hash are offered here").into_http();
        };
        let mut response = Response::new(Body::new(Chunks { set: bytes, piece: None, ended: false }));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

/// `DescriptorsRequest.hash`.
fn hash_of(message: &[u8]) -> Option<Hash> {
    let fields: Vec<_> = Fields::of(message).collect::<Result<_, _>>().ok()?;
    fields.iter().rev().find_map(|field| match (field.number, field.value) {
        (1, Value::Bytes(hash)) => Hash::from_slice(hash),
        _ => None,
    })
}

impl NamedService for Offered {
    const NAME: &'static str = "grpcrouter.Instance";
}

impl Service<Request<Body>> for Offered {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async { Ok(answer.await) })
    }
}

/// A stream of `DescriptorsResponse { data }`, each piece without a copy.
struct Chunks {
    /// What is left of it.
    set: Bytes,
    /// The data of the message whose head was just sent.
    piece: Option<Bytes>,
    ended: bool,
}

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = if let Some(piece) = self.piece.take() {
            Frame::data(piece)
        } else if !self.set.is_empty() {
            let length = self.set.len().min(CHUNK);
            let piece = self.set.split_to(length);
            self.piece = Some(piece);
            Frame::data(head(length))
        } else if !self.ended {
            self.ended = true;
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            Frame::trailers(trailers)
        } else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// All of a message before its data: gRPC's prefix, the field's key and its length.
fn head(length: usize) -> Bytes {
    let mut field = BytesMut::new();
    field.put_u8(0x0a);
    prost::encoding::encode_varint(length as u64, &mut field);
    let mut head = BytesMut::new();
    head.put_u8(0);
    head.put_u32(u32::try_from(field.len() + length).unwrap_or(u32::MAX));
    head.put(field);
    head.freeze()
}

/// Bytes of one message: a batch of the tunnel holds it.
const CHUNK: usize = 32 * 1024;
