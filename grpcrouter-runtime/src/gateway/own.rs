//! The services that the gateway answers itself, such as its health: tower services in a small table. They come through
//! the bridge, with a task for each call, and never along the forward path.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use grpcrouter_protocol::Text;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body, server::NamedService};
use tower_service::Service;

use super::{
    GatewayCore,
    edge::{Breach, Messages},
    route::Routes,
};
use crate::{
    health::Whole,
    metadata::{self, Vouched},
    status::{Answer, Outcome},
};

/// The table: one service for each name.
#[derive(Debug, Default)]
pub(super) struct OwnServices(Vec<OwnService>);

impl OwnServices {
    /// Serves this one too.
    pub(super) fn add(&mut self, service: OwnService) {
        self.0.push(service);
    }

    /// Leaves to users what they route themselves.
    pub(super) fn leave(&mut self, routes: &Routes) {
        self.0.retain(|own| !routes.knows(own.name));
    }

    /// Whether `name` is one of these.
    pub(super) fn serves(&self, name: &str) -> bool {
        self.0.iter().any(|own| own.name == name)
    }

    /// The names of them all.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|own| own.name)
    }

    /// The service that `path` calls, if it is one of these.
    pub(super) fn find(&self, path: &str) -> Option<&OwnService> {
        self.0.iter().find(|own| own.is_called_by(path))
    }
}

/// One service of the gateway's own. A clone is the same service.
#[derive(Clone)]
pub(super) struct OwnService {
    name: &'static str,
    service: Arc<dyn AnyService>,
}

impl OwnService {
    /// Any server that tonic generates.
    pub(super) fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        Self { name: S::NAME, service: Arc::new(Erased(service)) }
    }

    /// Whether `path` is that of one of its methods.
    pub(super) fn is_called_by(&self, path: &str) -> bool {
        let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(self.name));
        // One segment: who may call is judged by the end of a path, and it must be the same one.
        method.and_then(|method| method.strip_prefix('/')).is_some_and(|method| !method.contains('/'))
    }

    /// Answers one call, by the same rules of intake as any other. A call that has no end of its own, such as a watch,
    /// ends with the gateway.
    ///
    /// # Cancel safety
    /// Dropping the future, and then the body of the response, cancels the call.
    pub(super) async fn answer<B>(&self, core: &GatewayCore, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: fmt::Display,
    {
        let (head, body) = request.into_parts();
        let refused = |status| {
            let mut response = Response::default();
            *response.status_mut() = status;
            response
        };
        if !metadata::is_grpc(&head.headers) {
            return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        if head.method != Method::POST {
            return refused(StatusCode::METHOD_NOT_ALLOWED);
        }
        let path = Text::from(head.uri.path().to_owned());
        let authority = Text::from(head.uri.authority().map(ToString::to_string).unwrap_or_default());
        let request = metadata::start_from_request(&head.headers, path, authority, &Vouched::default())
            .and_then(|head| Ok((metadata::request_from_start(&head.start, head.timeout)?, head.timeout)));
        let (request, time_left) = match request {
            Ok(request) => request,
            Err(answer) => return answer.into_http(),
        };
        let mut whole = core.counts.whole();
        let mut end: End = Box::pin(async move {
            let over = async {
                // The sender is in the core; without it nobody is left to wait for.
                let _ = whole.wait_for(|whole| *whole == Whole::Over).await;
            };
            match time_left {
                None => over.await,
                Some(left) => tokio::select! {
                    biased;
                    () = over => {}
                    () = tokio::time::sleep(left) => return Answer::deadline(Outcome::MaybeExecuted),
                },
            }
            Answer::shutting_down("gateway", Outcome::MaybeExecuted)
        });
        let body = Body::new(Question { body, messages: Messages::new(false, LONGEST_QUESTION) });
        let response = tokio::select! {
            biased;
            response = self.service.call(request.map(|()| body)) => response,
            answer = &mut end => return answer.into_http(),
        };
        response.map(|body| if body.is_end_stream() { body } else { Body::new(Ended { body, end: Some(end) }) })
    }
}

impl fmt::Debug for OwnService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnService").field(&self.name).finish()
    }
}

/// A service of any type.
trait AnyService: Send + Sync {
    fn call(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
}

struct Erased<S>(S);

impl<S> AnyService for Erased<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    fn call(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let mut service = self.0.clone();
        Box::pin(async move {
            if let Err(never) = std::future::poll_fn(|cx| service.poll_ready(cx)).await {
                match never {}
            }
            match service.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }
}

pin_project_lite::pin_project! {
    /// A client's request body, whose messages may not be long.
    struct Question<B> {
        #[pin]
        body: B,
        messages: Messages,
    }
}

impl<B> HttpBody for Question<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: fmt::Display,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let Some(frame) = ready!(this.body.poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame.map_err(|error| Status::unavailable(format!("the client is gone: {error}")));
        Poll::Ready(Some(frame.and_then(|frame| match frame.data_ref().map(|data| this.messages.pass(data)) {
            Some(Err(Breach::TooLong(long))) => Err(long.answer("a message of the request", Outcome::NotSent).into()),
            _ => Ok(frame),
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// A response that ends when the gateway does, or when its time is over.
struct Ended {
    body: Body,
    /// `None` once all is said.
    end: Option<End>,
}

type End = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl HttpBody for Ended {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(end) = &mut this.end else { return Poll::Ready(None) };
        // What it has to say goes out first: a watch tells how it ends.
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let answer = ready!(end.as_mut().poll(cx));
        this.end = None;
        this.body = Body::empty();
        let mut trailers = HeaderMap::new();
        metadata::trailers_into_map(&answer.trailers(), &mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is asked of a gateway itself is a name or two.
const LONGEST_QUESTION: usize = 64 * 1024;
