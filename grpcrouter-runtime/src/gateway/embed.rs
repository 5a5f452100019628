//! The gateway called from inside of its own process: the channel of generated routers. The same way as that of a
//! client's call, with HTTP bodies where the front has HTTP/2 streams.

mod call;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use grpcrouter_protocol::{Headers, Text, Trailers};
use http::{HeaderMap, Request, Response, header::HOST};
use http_body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tower_service::Service;
use tracing::warn;

use self::call::{EmbeddedCall, Part, drive};
use super::{Gateway, GatewayCore, forward, intake::Refusal, pass::Origin, registry::Instance, way};
use crate::{
    codegen::{MethodSpec, ServiceSpec},
    metadata,
    status::{Answer, Outcome},
};

impl Gateway {
    /// What a generated router of this gateway sends its calls through; `MyServiceRouter::new(&gateway)` asks for it.
    ///
    /// Calls are routed by the options of the routers that the gateway was built with: a service whose router was not
    /// added is not known, and its calls answer UNIMPLEMENTED.
    pub fn channel(&self, spec: &'static ServiceSpec) -> Channel {
        if !self.core().routes.knows(spec.name) {
            warn!(
                service = spec.name,
                "this gateway has no router of the service: its calls fail; add it with GatewayBuilder::add_router"
            );
        }
        Channel { core: self.core().clone(), spec }
    }
}

/// Carries calls from this process to the instances of a gateway. Clones are the same channel.
///
/// Each call has a task of its own, on the tokio runtime that it is made in.
#[derive(Clone)]
pub struct Channel {
    core: Arc<GatewayCore>,
    spec: &'static ServiceSpec,
}

impl Channel {
    /// The instances that take calls of `method` now.
    pub(crate) fn candidates(&self, method: &MethodSpec) -> Vec<Pinned> {
        let found = self.core.routes.find(method.path).and_then(|(id, _)| self.core.routes.method(id));
        let snapshot = found.and_then(|route| self.core.registry.snapshot(route.target));
        snapshot.map(|snapshot| snapshot.candidates().into_iter().map(Pinned).collect()).unwrap_or_default()
    }
}

/// An extension of a request through a [`Channel`]: no other instance is to have it, whatever its routing key.
#[derive(Clone)]
pub(crate) struct Pinned(Arc<Instance>);

impl Pinned {
    /// The instance's id.
    pub(crate) fn id(&self) -> &str {
        self.0.id.as_str()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("service", &self.spec.name).finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ChannelFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ChannelFuture {
        let (head, body) = request.into_parts();
        let authority = head.uri.authority().map(|authority| authority.as_str());
        let authority = authority.or_else(|| head.headers.get(HOST)?.to_str().ok()).unwrap_or_default();
        let authority = Text::from(authority.to_owned());
        let content_subtype = metadata::content_subtype(&head.headers);
        if self.core.counts.is_closed() {
            let answer = Answer::shutting_down("gateway", Outcome::NotSent);
            way::refused(&self.core, None, &answer);
            return ChannelFuture { state: State::Refused(Some(Refusal::Answer(answer))), content_subtype };
        }
        let pinned = head.extensions.get().map(|Pinned(instance)| instance.clone());
        let vouched = head.extensions.get().cloned().unwrap_or_default();
        let origin = Origin::Inside { pinned, vouched };
        match forward::prepare(&self.core, &head.method, head.uri.path(), authority, &head.headers, origin) {
            Ok((way, open)) => {
                let call = Arc::new(EmbeddedCall::new(self.core.limits.max_message_size));
                tokio::spawn(drive(self.core.clone(), way, open, body, call.clone()));
                let reader = Reader { call, kept: None, over: false };
                ChannelFuture { state: State::Sent(Some(reader)), content_subtype }
            }
            Err(refusal) => ChannelFuture { state: State::Refused(Some(refusal)), content_subtype },
        }
    }
}

/// The answer to a call through a [`Channel`]. Dropping it cancels the call.
pub struct ChannelFuture {
    state: State,
    /// Of the request.
    content_subtype: Text,
}

enum State {
    Sent(Option<Reader>),
    Refused(Option<Refusal>),
}

impl fmt::Debug for ChannelFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelFuture").finish_non_exhaustive()
    }
}

impl Future for ChannelFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { state, content_subtype } = &mut *self;
        let response = match state {
            State::Refused(refusal) => match refusal.take() {
                Some(refusal) => refused(refusal, content_subtype),
                None => return Poll::Pending,
            },
            State::Sent(reader) => {
                let Some(waiting) = reader else { return Poll::Pending };
                let part = ready!(waiting.poll_part(cx));
                let Some(mut reader) = reader.take() else { return Poll::Pending };
                match part {
                    Part::Trailers(trailers) => ended(&trailers, content_subtype),
                    Part::Headers(headers) => respond(&headers, reader),
                    data @ Part::Data(_) => {
                        reader.kept = Some(data);
                        let content_subtype = std::mem::take(content_subtype);
                        respond(&Headers { content_subtype, ..Headers::default() }, reader)
                    }
                }
            }
        };
        Poll::Ready(Ok(response))
    }
}

fn respond(headers: &Headers, reader: Reader) -> Response<Body> {
    metadata::response_headers(headers).map(|()| Body::new(ResponseBody(reader)))
}

fn ended(trailers: &Trailers, content_subtype: &Text) -> Response<Body> {
    metadata::trailers_only(trailers, content_subtype).map(|()| Body::empty())
}

fn refused(refusal: Refusal, content_subtype: &Text) -> Response<Body> {
    match refusal {
        Refusal::Answer(answer) => ended(&answer.trailers(), content_subtype),
        Refusal::Http(status) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            response
        }
    }
}

/// The one who waits for a call's response. Dropped before its end, it gives the call up.
struct Reader {
    call: Arc<EmbeddedCall>,
    /// Taken too early.
    kept: Option<Part>,
    over: bool,
}

impl Reader {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        if let Some(part) = self.kept.take() {
            return Poll::Ready(part);
        }
        let part = ready!(self.call.poll_part(cx));
        self.over = matches!(part, Part::Trailers(_));
        Poll::Ready(part)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.over {
            self.call.give_up();
        }
    }
}

struct ResponseBody(Reader);

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while !self.0.over {
            match ready!(self.0.poll_part(cx)) {
                // Only the first part has any; the core sees to it.
                Part::Headers(_) => {}
                Part::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Part::Trailers(trailers) => {
                    let mut map = HeaderMap::new();
                    metadata::trailers_into_map(&trailers, &mut map);
                    return Poll::Ready(Some(Ok(Frame::trailers(map))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.0.over
    }
}
