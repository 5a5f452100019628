//! One call to an upstream: the request as it came, the answer as it comes, and nothing decoded.
//! Dropping it anywhere resets the stream, so that the upstream sees a cancelled call and never a clean end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Response, Uri, Version, request};
use http_body::{Body as HttpBody, Frame};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::address::Address;
use super::link::Link;
use super::upload::Upload;
use crate::metadata;
use crate::status::{Answer, Outcome};

/// Every service of one upstream.
#[derive(Clone, Debug)]
pub(super) struct UpstreamService {
    link: Link,
}

impl UpstreamService {
    pub(super) fn new(link: Link) -> Self {
        Self { link }
    }
}

impl Service<Request<Body>> for UpstreamService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let link = self.link.clone();
        Box::pin(async move { Ok(exchange(&link, request).await.unwrap_or_else(Answer::into_http)) })
    }
}

/// Until the head of the answer is here.
async fn exchange(link: &Link, request: Request<Body>) -> Result<Response<Body>, Answer> {
    let came = Instant::now();
    let (mut head, body) = request.into_parts();
    complete(&mut head, link.address());
    let mut upload = Upload::new(body);
    let mut refused_by = None;
    for _ in 0..TRIES {
        // Who refused one stream may take the next one: only a connection that is leaving is not asked again.
        let open = link.open(refused_by).await.map_err(|why| unreachable(link.address(), &why))?;
        refused_by = None;
        let mut headers = head.headers.clone();
        metadata::shrink_timeout(&mut headers, came.elapsed())?;
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        let mut requests = open.requests.clone();
        let (response, stream) = match requests.send_request(request, upload.is_empty()) {
            Ok(stream) => stream,
            // The connection is over, and nothing was sent.
            Err(error) if !error.is_library() && error.get_io().is_none() && !error.is_go_away() => {
                return Err(Answer::malformed_request(format!("this call cannot be sent on: {error}")));
            }
            Err(_) => {
                refused_by = Some(open.number);
                continue;
            }
        };
        upload.start((!upload.is_empty()).then_some(stream));
        let mut response = std::pin::pin!(response);
        let mut is_sending = true;
        let answered = poll_fn(|cx| {
            if is_sending && upload.poll(cx).is_ready() {
                is_sending = false;
            }
            response.as_mut().poll(cx)
        })
        .await;
        match answered {
            Ok(response) => {
                upload.forget();
                let (head, answer) = response.into_parts();
                let upload = is_sending.then_some(upload);
                let address = Arc::new(link.address().to_string());
                let body = AnswerBody { answer, upload, data_over: false, address };
                return Ok(Response::from_parts(head, Body::new(body)));
            }
            Err(error) => match Refusal::of(&error) {
                Some(refusal) if upload.can_replay() => {
                    if refusal == Refusal::Connection {
                        refused_by = Some(open.number);
                    }
                }
                Some(_) => return Err(refused(link.address())),
                None => return Err(failed(&link.address().to_string(), &error)),
            },
        }
    }
    Err(refused(link.address()))
}

/// Whether an upstream said that it has not begun with a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Stream,
    Connection,
}

impl Refusal {
    fn of(error: &h2::Error) -> Option<Self> {
        match error.reason() {
            Some(Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => Some(Self::Stream),
            // h2 gives this error to streams above the last that the peer will look at.
            Some(Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => Some(Self::Connection),
            _ => None,
        }
    }
}

/// What HTTP/2 asks for and a client within this process does not say.
fn complete(head: &mut request::Parts, address: &Address) {
    if head.uri.authority().is_some() {
        return;
    }
    let mut parts = head.uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Authority::from_maybe_shared(address.authority()).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        head.uri = uri;
    }
}

/// What an upstream answers after its headers.
struct AnswerBody {
    answer: RecvStream,
    /// What is still to be sent.
    upload: Option<Upload>,
    data_over: bool,
    address: Arc<String>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.upload.as_mut().is_some_and(|upload| upload.poll(cx).is_ready()) {
            this.upload = None;
        }
        if !this.data_over {
            match this.answer.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(data))) => {
                    let _ = this.answer.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(this.failed(&error)))),
                Poll::Ready(None) => this.data_over = true,
            }
        }
        match this.answer.poll_trailers(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(trailers)) => Poll::Ready(trailers.map(|trailers: HeaderMap| Ok(Frame::trailers(trailers)))),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(this.failed(&error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }
}

impl AnswerBody {
    fn failed(&self, error: &h2::Error) -> Status {
        failed(&self.address, error).into_status()
    }
}

fn unreachable(address: &Address, why: &str) -> Answer {
    Answer::upstream_unavailable(format!("the upstream {address} cannot be reached: {why}"), Outcome::NotSent)
}

fn refused(address: &Address) -> Answer {
    Answer::upstream_unavailable(
        format!("the upstream {address} refused the call before it began"),
        Outcome::NotStarted,
    )
}

/// A stream that ended without a gRPC status.
fn failed(address: &str, error: &h2::Error) -> Answer {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => {
            Answer::upstream_reset(format!("the upstream {address} reset the call ({reason:?})"), reason)
        }
        _ => {
            let why =
                format!("the connection to the upstream {address} was lost: {error}; the call may have been executed");
            Answer::upstream_unavailable(why, Outcome::MaybeExecuted)
        }
    }
}

/// Streams on which one call may be offered to an upstream that refuses it.
const TRIES: usize = 3;
