//! The gate as a tower layer: the same checks and the same answers in front of any gRPC service.

use std::{
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Extensions, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    gateway::pass::{Asked, Gate, Held, Pass},
    metadata::{self, PRINCIPAL},
    status::Answer,
};

/// [`Callers`](crate::Callers) in front of services of your own: a layer for `tonic::transport::Server::layer` or
/// `axum::Router::layer`. Clones share keys, what is known of tokens, and limits.
///
/// A request that is let in has `x-grpcrouter-principal`, if its caller is known, and no more credentials than
/// [`consume_credentials`](crate::Callers::consume_credentials) says; a generated router below passes both on. What is not
/// gRPC is answered 415: put the layer around gRPC alone.
#[derive(Clone)]
pub struct CallersLayer {
    gate: Arc<dyn Gate>,
    address: Option<Arc<AddressOf>>,
}

type AddressOf = dyn Fn(&Extensions) -> Option<IpAddr> + Send + Sync;

impl CallersLayer {
    pub(super) fn new(gate: Arc<dyn Gate>) -> Self {
        Self { gate, address: None }
    }

    /// How the address of a request's client is found, such as
    /// `|extensions| Some(extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip())` under tonic's server. Without it all
    /// clients share the limits that are by address.
    pub fn address(mut self, of: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.address = Some(Arc::new(of));
        self
    }
}

impl fmt::Debug for CallersLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallersLayer").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for CallersLayer {
    type Service = CallersService<S>;

    fn layer(&self, inner: S) -> CallersService<S> {
        CallersService { inner, layer: self.clone() }
    }
}

/// A service whose callers are checked.
#[derive(Debug, Clone)]
pub struct CallersService<S> {
    inner: S,
    layer: CallersLayer,
}

impl<S> CallersService<S> {
    /// Lets the request in, and puts into it what is known of its caller.
    fn let_in<B>(&self, request: &mut Request<B>) -> Result<Held, Refused> {
        if !metadata::is_grpc(request.headers()) {
            return Err(Refused::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let address = self.layer.address.as_ref().and_then(|of| of(request.extensions()));
        let asked = Asked { path: request.uri().path(), headers: request.headers(), address };
        let Pass { vouched, held } = self.layer.gate.check(&asked).map_err(Refused::Answer)?;
        let headers = request.headers_mut();
        headers.remove(&PRINCIPAL);
        if let Some(spent) = &vouched.spent {
            headers.remove(spent);
        }
        if let Some(principal) = &vouched.principal
            && let Ok(value) = HeaderValue::from_maybe_shared(principal.bytes().clone())
        {
            headers.insert(PRINCIPAL, value);
        }
        // For a router below: it would drop the entry, which anybody could have set.
        request.extensions_mut().insert(vouched);
        Ok(held)
    }
}

enum Refused {
    Http(StatusCode),
    Answer(Answer),
}

impl<S, B, R> Service<Request<B>> for CallersService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<CallersBody<R>>;
    type Error = S::Error;
    type Future = CallersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.let_in(&mut request) {
            Ok(held) => CallersFuture { step: Step::Inside { call: self.inner.call(request), held } },
            Err(refused) => CallersFuture { step: Step::Refused { refused: Some(refused) } },
        }
    }
}

pin_project_lite::pin_project! {
    /// The answer to a call, or the refusal.
    pub struct CallersFuture<F> {
        #[pin]
        step: Step<F>,
    }
}

pin_project_lite::pin_project! {
    #[project = StepProjection]
    enum Step<F> {
        Inside { #[pin] call: F, held: Held },
        Refused { refused: Option<Refused> },
    }
}

impl<F> fmt::Debug for CallersFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallersFuture").finish_non_exhaustive()
    }
}

impl<F, R, E> Future for CallersFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<CallersBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.project().step.project() {
            StepProjection::Inside { call, held } => {
                let response = ready!(call.poll(cx))?;
                let held = std::mem::take(held);
                response.map(|body| CallersBody { body: Some(body), held })
            }
            StepProjection::Refused { refused } => match refused.take() {
                Some(Refused::Answer(answer)) => answer.into_http(),
                Some(Refused::Http(status)) => {
                    let mut response = Response::new(CallersBody::default());
                    *response.status_mut() = status;
                    response
                }
                None => return Poll::Pending,
            },
        };
        Poll::Ready(Ok(response))
    }
}

pin_project_lite::pin_project! {
    /// The body of a response; while it lives, its call counts.
    pub struct CallersBody<B> {
        #[pin]
        body: Option<B>,
        held: Held,
    }
}

impl<B> Default for CallersBody<B> {
    fn default() -> Self {
        Self { body: None, held: Held::new() }
    }
}

impl<B> fmt::Debug for CallersBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallersBody").finish_non_exhaustive()
    }
}

impl<B: HttpBody> HttpBody for CallersBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
