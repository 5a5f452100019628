//! One call in the hands of a service: runs the handler, carries its answer out part by part, and sees to it that
//! the call ends exactly once, whatever the handler does.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use grpcrouter_protocol::{Headers, ResponsePart, Trailers};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame};
use tonic::Status;
use tonic::body::Body;

use crate::metadata;
use crate::status::{Answer, Outcome};

/// A handler at work.
pub(super) type Handler = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Where an answer goes.
pub(super) trait Outlet: Send + Unpin {
    /// Takes a part, and tells how many more bytes to poll from the source now; 0: ask `poll_capacity`.
    fn send(&mut self, part: ResponsePart) -> usize;
    /// Waits until there is room again.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<usize>;
    /// Waits until nobody wants the answer any more.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over>;
}

/// Why an answer is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The client hears nothing any more.
    Gone,
    /// The client's time is over; it still hears that.
    Deadline,
    /// This backend ends; the client hears that too.
    Stopped,
}

/// The future of one call. Resolves to the gRPC code that it ended with, `None` if nobody was there to hear one.
pub(super) struct Answering<O: Outlet> {
    // Dropped in this order: the handler first, then the outlet, which ends the call.
    work: Work,
    /// What goes out with the next send.
    part: ResponsePart,
    capacity: usize,
    reply: Reply<O>,
}

enum Work {
    Handler(Handler),
    Body(Body),
    Done,
}

impl<O: Outlet> Answering<O> {
    pub(super) fn new(handler: Handler, outlet: O) -> Self {
        let reply = Reply { outlet, code: None, over: false, in_handler: false };
        Self { work: Work::Handler(handler), part: ResponsePart::default(), capacity: usize::MAX, reply }
    }
}

impl<O: Outlet> Future for Answering<O> {
    type Output = Option<u32>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        let this = self.get_mut();
        if let Poll::Ready(over) = this.reply.outlet.poll_over(cx) {
            // The handler goes first: it must not see what becomes of the call.
            this.work = Work::Done;
            match over {
                Over::Gone => this.reply.over = true,
                Over::Deadline => {
                    this.reply.end(ResponsePart::default(), Answer::deadline(Outcome::MaybeExecuted).trailers())
                }
                Over::Stopped => this.reply.end(ResponsePart::default(), stopped().trailers()),
            }
        }
        loop {
            match &mut this.work {
                Work::Done => return Poll::Ready(this.reply.code),
                Work::Handler(handler) => {
                    this.reply.in_handler = true;
                    let response = handler.as_mut().poll(cx);
                    this.reply.in_handler = false;
                    this.take_response(ready!(response));
                }
                Work::Body(_) => ready!(this.poll_body(cx)),
            }
        }
    }
}

impl<O: Outlet> Answering<O> {
    fn take_response(&mut self, response: Response<Body>) {
        let (head, body) = response.into_parts();
        // The body goes with the handler, before the call ends.
        self.work = Work::Done;
        match read_head(head.status, &head.headers) {
            Ok(headers) => {
                self.part.headers = Some(headers);
                self.work = Work::Body(body);
            }
            Err(trailers) => self.reply.end(ResponsePart::default(), trailers),
        }
    }

    /// Takes what the body gives; what is ready goes out in as few parts as can be. Ready when there is a new state
    /// to look at.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.capacity == 0 {
            self.capacity = ready!(self.reply.outlet.poll_capacity(cx));
            return Poll::Ready(());
        }
        let Work::Body(body) = &mut self.work else { return Poll::Ready(()) };
        self.reply.in_handler = true;
        let frame = Pin::new(body).poll_frame(cx);
        self.reply.in_handler = false;
        match frame {
            // Initial metadata and messages do not wait for what is to come.
            Poll::Pending if self.part.headers.is_some() || !self.part.data.is_empty() => {
                self.flush();
                // The capacity may have gone to zero; then the body is not what is waited for.
                if self.capacity == 0 { Poll::Ready(()) } else { Poll::Pending }
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => {
                self.take_frame(frame);
                Poll::Ready(())
            }
        }
    }

    fn take_frame(&mut self, frame: Option<Result<Frame<Bytes>, Status>>) {
        let trailers = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return self.take_data(data),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => metadata::trailers_from_map(&trailers),
                    Err(_) => return,
                },
            },
            Some(Err(status)) => status_trailers(&status),
            None => Answer::malformed_response("the service ended the call without a grpc-status").trailers(),
        };
        self.work = Work::Done;
        let part = std::mem::take(&mut self.part);
        self.reply.end(part, trailers);
    }

    /// One chunk is held back, so that a small answer and its trailers go out as one.
    fn take_data(&mut self, data: Bytes) {
        if !self.part.data.is_empty() {
            self.flush();
        }
        self.part.data = data;
        if self.part.data.len() >= self.capacity {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.capacity = self.reply.outlet.send(std::mem::take(&mut self.part));
    }
}

/// Ends the call if nobody else does: when the handler panics, and when its task is dropped.
struct Reply<O: Outlet> {
    outlet: O,
    code: Option<u32>,
    over: bool,
    /// True while code of the service runs: a drop that finds it so comes from a panic.
    in_handler: bool,
}

impl<O: Outlet> Reply<O> {
    fn end(&mut self, mut part: ResponsePart, trailers: Trailers) {
        self.code = Some(trailers.status);
        self.over = true;
        part.trailers = Some(trailers);
        self.outlet.send(part);
    }
}

impl<O: Outlet> Drop for Reply<O> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let answer = if self.in_handler { Answer::panic() } else { stopped() };
        self.end(ResponsePart::default(), answer.trailers());
    }
}

/// The headers of an answer that has a body, or the whole answer if it is over with its head.
fn read_head(status: StatusCode, headers: &HeaderMap) -> Result<Headers, Trailers> {
    if metadata::is_trailers_only(headers) {
        return Err(metadata::trailers_from_map(headers));
    }
    if status != StatusCode::OK {
        return Err(Answer::http_status(status).trailers());
    }
    if !metadata::is_grpc(headers) {
        return Err(
            Answer::malformed_response("the service answered something that is not application/grpc").trailers()
        );
    }
    metadata::headers_from_response(headers).map_err(|answer| answer.trailers())
}

fn stopped() -> Answer {
    Answer::shutting_down("backend", Outcome::MaybeExecuted)
}

fn status_trailers(status: &Status) -> Trailers {
    let mut map = HeaderMap::new();
    match status.add_header(&mut map) {
        Ok(()) => metadata::trailers_from_map(&map),
        Err(status) => Answer::malformed_response(status.message()).trailers(),
    }
}

impl<O: Outlet> fmt::Debug for Answering<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self.work {
            Work::Handler(_) => "handler",
            Work::Body(_) => "body",
            Work::Done => "done",
        };
        f.debug_struct("Answering").field("at", &at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
