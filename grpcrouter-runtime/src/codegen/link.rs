//! Keeps a broken upload broken where a stream of messages is decoded and sent on: see [`Link`].
//! Only for the two kinds whose client streams; the raw path needs none of this.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::{Request, Status, Streaming};
use tower_service::Service;

use super::RouterChannel;

/// What the outgoing request body and the incoming call know of each other.
///
/// tonic's client takes a stream of messages that cannot fail, and ending that stream half-closes: an instance would
/// take a broken upload for a whole one. Two things break an upload:
/// * The incoming stream fails. Then the outgoing stream never ends; its body fails, and the call answers with the
///   error.
/// * The client resets its call with CANCEL. tonic's server makes a clean end of that, so an end of the incoming stream
///   proves nothing by itself: it is believed once the incoming call was polled twice after it, because hyper looks
///   for a reset between two polls and drops a call that was reset. A dropped call fails the outgoing body.
#[derive(Debug, Default)]
struct Link {
    state: Mutex<LinkState>,
}

#[derive(Debug, Default)]
struct LinkState {
    end: End,
    /// Why the incoming stream failed, until the call has answered with it.
    failure: Option<Status>,
    body: Option<Waker>,
    call: Option<Waker>,
}

/// How far the end of the incoming stream is believed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    /// No end yet.
    #[default]
    Open,
    /// The stream ended; the call was not polled since.
    Claimed,
    /// The call was polled once since.
    Doubted,
    /// The call lived on: the end is a true one.
    Confirmed,
    /// The upload broke, or the call is gone.
    Broken,
}

impl Link {
    /// Changes the state, then wakes whom the change asks for, with no lock held.
    fn change<T>(&self, change: impl FnOnce(&mut LinkState) -> (T, Option<Waker>)) -> T {
        let (value, waker) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        value
    }

    /// The incoming stream ended, it says; whether that is to be passed on.
    fn is_end_confirmed(&self) -> bool {
        self.change(|state| match state.end {
            End::Open => {
                state.end = End::Claimed;
                (false, state.call.take())
            }
            End::Confirmed => (true, None),
            End::Claimed | End::Doubted | End::Broken => (false, None),
        })
    }

    fn fail(&self, status: Status) {
        self.change(|state| {
            state.end = End::Broken;
            state.failure = Some(status);
            ((), state.call.take())
        });
    }

    /// The call is polled; gives what it has to answer with, if the upload failed.
    fn poll_call(&self, cx: &mut Context<'_>) -> Option<Status> {
        self.change(|state| {
            state.call = Some(cx.waker().clone());
            let wake = match state.end {
                End::Claimed => {
                    state.end = End::Doubted;
                    state.call.clone()
                }
                End::Doubted => {
                    state.end = End::Confirmed;
                    state.body.take()
                }
                End::Open | End::Confirmed | End::Broken => None,
            };
            (state.failure.take(), wake)
        })
    }

    /// The call is over, answered or dropped. An end that nobody confirmed was none.
    fn drop_call(&self) {
        self.change(|state| {
            if state.end == End::Confirmed {
                return ((), None);
            }
            state.end = End::Broken;
            ((), state.body.take())
        });
    }

    /// The outgoing body has nothing to send now; whether that is because it is broken.
    fn is_broken(&self, cx: &mut Context<'_>) -> bool {
        self.change(|state| {
            state.body = Some(cx.waker().clone());
            (state.end == End::Broken, None)
        })
    }
}

/// Ties a call with an incoming stream to the channel that it is sent on through.
pub(super) fn linked<C: RouterChannel, M>(
    channel: &C,
    request: Request<Streaming<M>>,
) -> (Linked<C>, Request<LinkedStream<M>>, CallEnd) {
    let link = Arc::new(Link::default());
    let channel = Linked { inner: channel.clone(), link: link.clone() };
    let request = request.map(|inner| LinkedStream { inner: Some(inner), link: link.clone() });
    (channel, request, CallEnd(link))
}

/// The incoming call's end of the link: held by the call, then by its response stream.
#[derive(Debug)]
pub(super) struct CallEnd(Arc<Link>);

impl CallEnd {
    /// To be called at each poll of the call; gives what the call has to answer with, if the upload failed.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Option<Status> {
        self.0.poll_call(cx)
    }

    /// Runs the call until it answers or its upload fails.
    pub(super) async fn drive<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let mut call = std::pin::pin!(call);
        std::future::poll_fn(|cx| match self.poll(cx) {
            Some(status) => Poll::Ready(Err(status)),
            None => call.as_mut().poll(cx),
        })
        .await
    }
}

impl Drop for CallEnd {
    fn drop(&mut self) {
        self.0.drop_call();
    }
}

/// The incoming messages, as the stream that cannot fail which tonic's client wants.
pub(super) struct LinkedStream<M> {
    /// None after its end.
    inner: Option<Streaming<M>>,
    link: Arc<Link>,
}

impl<M> fmt::Debug for LinkedStream<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkedStream").field("link", &self.link).finish_non_exhaustive()
    }
}

impl<M> Stream for LinkedStream<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<M>> {
        if let Some(inner) = &mut self.inner {
            match Pin::new(inner).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => return Poll::Ready(Some(message)),
                Poll::Ready(Some(Err(status))) => {
                    self.link.fail(status);
                    self.inner = None;
                    return Poll::Pending;
                }
                Poll::Ready(None) => self.inner = None,
            }
        }
        // The body around this stream keeps the waker: whenever this is pending, the body registers it with the link.
        if self.link.is_end_confirmed() { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// The channel that puts a [`LinkedBody`] around the request's body.
#[derive(Debug, Clone)]
pub(super) struct Linked<C> {
    inner: C,
    link: Arc<Link>,
}

impl<C: RouterChannel> Service<http::Request<Body>> for Linked<C> {
    type Response = C::Response;
    type Error = C::Error;
    type Future = C::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> C::Future {
        let link = self.link.clone();
        self.inner.call(request.map(|inner| Body::new(LinkedBody { inner, link })))
    }
}

/// The outgoing request body: fails when the upload is broken.
#[derive(Debug)]
struct LinkedBody {
    inner: Body,
    link: Arc<Link>,
}

impl HttpBody for LinkedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_pending() && self.link.is_broken(cx) {
            // A fresh status: one that has an HTTP/2 CANCEL as its source would be sent on as CANCEL, which a tonic
            // server takes for a clean end.
            return Poll::Ready(Some(Err(Status::unknown("the client's upload broke before its end"))));
        }
        polled
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn an_end_is_believed_once_the_call_was_polled_twice_after_it() {
        let link = Link::default();
        assert!(!link.is_end_confirmed());
        assert!(link.poll_call(&mut context()).is_none());
        assert!(!link.is_end_confirmed());
        assert!(link.poll_call(&mut context()).is_none());
        assert!(link.is_end_confirmed());
        assert!(!link.is_broken(&mut context()));
    }

    #[test]
    fn polls_before_the_end_confirm_nothing() {
        let link = Link::default();
        for _ in 0..5 {
            assert!(link.poll_call(&mut context()).is_none());
        }
        assert!(!link.is_end_confirmed());
    }

    #[test]
    fn a_call_dropped_before_the_end_is_confirmed_breaks_the_body() {
        let link = Arc::new(Link::default());
        let call = CallEnd(link.clone());
        assert!(!link.is_end_confirmed());
        drop(call);
        assert!(link.is_broken(&mut context()));
        assert!(!link.is_end_confirmed());
    }

    #[test]
    fn a_call_that_is_over_after_a_confirmed_end_breaks_nothing() {
        let link = Arc::new(Link::default());
        let call = CallEnd(link.clone());
        link.is_end_confirmed();
        call.poll(&mut context());
        call.poll(&mut context());
        drop(call);
        assert!(!link.is_broken(&mut context()));
        assert!(link.is_end_confirmed());
    }

    #[test]
    fn a_failed_stream_breaks_the_body_and_gives_its_status_to_the_call_once() {
        let link = Link::default();
        link.fail(Status::data_loss("cut"));
        assert!(link.is_broken(&mut context()));
        assert_eq!(link.poll_call(&mut context()).unwrap().code(), tonic::Code::DataLoss);
        assert!(link.poll_call(&mut context()).is_none());
        assert!(!link.is_end_confirmed());
    }
}
