//! One call that was made in this process: what its instance sends waits here for the response body, and one task sends
//! what the request body gives.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use grpcrouter_protocol::{CallId, CancelReason, EndReason, Headers, OpenCall, Outcome as Lost, Trailers};
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};

use crate::{
    gateway::{
        GatewayCore,
        edge::{Breach, Edge, Messages, TooLong, is_limit},
        forward::{self, Way},
        route::MethodRoute,
    },
    status::{Answer, Outcome},
    tunnel::{CallEvent, CallSink, TunnelHandle},
};

/// What the tunnel, the task and the reader of one call share.
#[derive(Debug, Default)]
pub(super) struct EmbeddedCall {
    /// As the tunnel knows it; of the last instance that it went to.
    id: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the response, not read yet. No more than one window.
    parts: VecDeque<Part>,
    reader: Option<Waker>,
    /// For the task, not looked at yet.
    turns: VecDeque<Turn>,
    task: Option<Waker>,
    /// Where it is told that data was read. None until an instance has the call.
    tunnel: Option<TunnelHandle>,
    /// Nobody waits for the response any more.
    given_up: bool,
    /// The tunnel knows the call no more.
    over: bool,
    /// The last part is there.
    answered: bool,
    /// Of the response, if the size of messages is limited.
    limited: Option<(Edge, usize)>,
}

/// A part of the response.
#[derive(Debug)]
pub(super) enum Part {
    Headers(Headers),
    Data(Bytes),
    /// The last one.
    Trailers(Trailers),
}

/// What the task has to act upon.
#[derive(Debug)]
enum Turn {
    Writable(usize),
    /// Another instance may take it.
    Back(Box<OpenCall>, Outcome),
    /// Over; the reader is told if there is something to tell.
    Over(Option<EndReason>),
    GivenUp,
}

impl EmbeddedCall {
    /// A call whose response has no message of more than so many bytes.
    pub(super) fn new(max_message: usize) -> Self {
        let call = Self::default();
        call.lock().limited = is_limit(max_message).then(|| (Edge::default(), max_message));
        call
    }

    /// The next part of the response. Data that is given out here counts as consumed.
    pub(super) fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Part> {
        let (part, tunnel) = {
            let mut state = self.lock();
            // An instance can be quicker than the task that opened the call.
            let early = state.tunnel.is_none() && matches!(state.parts.front(), Some(Part::Data(_)));
            match if early { None } else { state.parts.pop_front() } {
                None => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Some(part) => (part, state.tunnel.clone()),
            }
        };
        if let (Part::Data(data), Some(tunnel)) = (&part, tunnel) {
            tunnel.consumed(self.id(), data.len());
        }
        Poll::Ready(part)
    }

    /// Nobody waits for the response any more.
    pub(super) fn give_up(&self) {
        wake({
            let mut state = self.lock();
            state.given_up = true;
            state.task.take()
        });
    }

    fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<Turn> {
        let mut state = self.lock();
        if state.given_up {
            return Poll::Ready(Turn::GivenUp);
        }
        match state.turns.pop_front() {
            Some(turn) => Poll::Ready(turn),
            None => {
                state.task = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Names the tunnel that has the call now, and lets the reader go on.
    fn carried_by(&self, tunnel: Option<&TunnelHandle>) {
        wake({
            let mut state = self.lock();
            state.tunnel = tunnel.cloned();
            state.reader.take()
        });
    }

    fn answer(&self, answer: &Answer) {
        wake({
            let mut state = self.lock();
            state.end(answer.trailers());
            state.reader.take()
        });
    }

    fn id(&self) -> CallId {
        CallId::from_raw(self.id.load(Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Cuts data off before a message that is over the limit.
    fn limit(&mut self, data: &mut Bytes) -> Result<(), TooLong> {
        let Some((edge, most)) = &mut self.limited else { return Ok(()) };
        let looked = edge.pass_up_to(data, *most);
        if let Err(long) = &looked {
            data.truncate(long.at());
        }
        looked
    }

    /// There is one end only: what comes after it is not told.
    fn end(&mut self, trailers: Trailers) {
        if !self.answered {
            self.answered = true;
            self.parts.push_back(Part::Trailers(trailers));
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl CallSink for EmbeddedCall {
    fn bind(&self, call: CallId) {
        self.id.store(call.get(), Ordering::Release);
    }

    fn deliver(&self, _: CallId, event: CallEvent) {
        let (reader, task) = {
            let mut state = self.lock();
            match event {
                CallEvent::Response { .. } if state.answered => {}
                CallEvent::Response { headers, mut data, trailers } => {
                    let within = state.limit(&mut data);
                    state.parts.extend(headers.map(Part::Headers));
                    if !data.is_empty() {
                        state.parts.push_back(Part::Data(data));
                    }
                    if let Err(long) = within {
                        state.end(long.answer("a message of the response").trailers());
                        state.turns.push_back(Turn::GivenUp);
                    }
                    if let Some(trailers) = trailers {
                        state.end(trailers);
                        state.over = true;
                        state.turns.push_back(Turn::Over(None));
                    }
                }
                CallEvent::Writable { capacity } => state.turns.push_back(Turn::Writable(capacity)),
                CallEvent::Refused(call) => state.turns.push_back(Turn::Back(call, Outcome::NotStarted)),
                CallEvent::Ended(EndReason::Lost(Lost::NotSent(call))) => {
                    state.turns.push_back(Turn::Back(call, Outcome::NotSent));
                }
                CallEvent::Ended(reason) => {
                    state.over = true;
                    state.turns.push_back(Turn::Over(Some(reason)));
                }
                // Only instances get requests.
                CallEvent::Request { .. } => {}
            }
            let task = if state.turns.is_empty() { None } else { state.task.take() };
            let reader = if state.parts.is_empty() { None } else { state.reader.take() };
            (reader, task)
        };
        wake(reader);
        wake(task);
    }
}

/// Carries one call from its first byte to its end.
pub(super) async fn drive(
    core: Arc<GatewayCore>,
    mut way: Way,
    mut open: OpenCall,
    body: Body,
    call: Arc<EmbeddedCall>,
) {
    let _carried = Carried::new(core.clone(), call.clone());
    let one = way.route(&core).is_some_and(MethodRoute::takes_one_message);
    let messages = Messages::new(one, core.limits.max_message_size);
    let mut upload = Upload { body, messages, ended: false, sent: 0, last: Bytes::new() };
    // What is there at once goes with the start: a unary call is one frame.
    if let Err(broken) = upload.read_ready(&mut open).await {
        return call.answer(&broken.answer(&core, &way));
    }
    let mut opened = forward::exchange(&core, &mut way, open, &call);
    call.carried_by(way.tunnel());
    while let (Ok(capacity), Some(tunnel)) = (&mut opened, way.tunnel()) {
        match next(&call, &mut upload, *capacity).await {
            Step::Turn(Turn::Writable(writable)) => *capacity = writable,
            Step::Turn(Turn::Back(mut open, outcome)) => {
                upload.restore(&mut open);
                // Data that comes before the next tunnel is known must not be consumed from the last one.
                call.carried_by(None);
                opened = forward::exchange_again(&core, &mut way, *open, outcome, &call);
                call.carried_by(way.tunnel());
            }
            Step::Turn(Turn::Over(None) | Turn::GivenUp) => return,
            Step::Turn(Turn::Over(Some(reason))) => return call.answer(&ended(&core, &reason)),
            Step::Upload(Some(Ok(frame))) => {
                // A request has no trailers in gRPC.
                let data = frame.into_data().unwrap_or_default();
                if let Err(breach) = upload.messages.pass(&data) {
                    return call.answer(&Broken::Messages(breach).answer(&core, &way));
                }
                upload.sent += data.len();
                upload.last = data.clone();
                *capacity = tunnel.send(call.id(), data, false);
            }
            Step::Upload(None) => {
                if let Err(breach) = upload.messages.end() {
                    return call.answer(&Broken::Messages(breach).answer(&core, &way));
                }
                upload.ended = true;
                tunnel.send(call.id(), Bytes::new(), true);
            }
            // Broken, so never half-closed: the instance must not take it for whole.
            Step::Upload(Some(Err(_))) => return call.answer(&Broken::Gone.answer(&core, &way)),
        }
    }
    if let Err(answer) = opened {
        call.answer(&answer);
    }
}

fn ended(core: &GatewayCore, reason: &EndReason) -> Answer {
    match reason {
        EndReason::Deadline => Answer::deadline(),
        EndReason::Violation(why) => Answer::violation(&why.to_string()),
        EndReason::Cancelled(_) | EndReason::Lost(_) => forward::lost(core, Outcome::MaybeExecuted),
    }
}

enum Step {
    Turn(Turn),
    Upload(Option<Result<Frame<Bytes>, Status>>),
}

async fn next(call: &EmbeddedCall, upload: &mut Upload, capacity: usize) -> Step {
    poll_fn(|cx| {
        if let Poll::Ready(turn) = call.poll_turn(cx) {
            return Poll::Ready(Step::Turn(turn));
        }
        if upload.ended || capacity == 0 {
            return Poll::Pending;
        }
        Pin::new(&mut upload.body).poll_frame(cx).map(Step::Upload)
    })
    .await
}

/// Why a request is not carried on. It is never half-closed then.
#[derive(Debug)]
enum Broken {
    Gone,
    Messages(Breach),
}

impl Broken {
    fn answer(&self, core: &GatewayCore, way: &Way) -> Answer {
        match self {
            Self::Gone => Answer::cancelled(),
            Self::Messages(breach) => breach.answer(way.route(core).map_or("", |route| route.path.as_str())),
        }
    }
}

/// The request body, and how far it was sent.
struct Upload {
    body: Body,
    messages: Messages,
    ended: bool,
    /// Bytes in all.
    sent: usize,
    /// The newest of them.
    last: Bytes,
}

impl Upload {
    /// Puts into the start what the body gives without waiting.
    async fn read_ready(&mut self, open: &mut OpenCall) -> Result<(), Broken> {
        let mut first = Vec::new();
        poll_fn(|cx| {
            while self.sent < FIRST {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Broken::Gone)),
                    Poll::Ready(None) => {
                        self.messages.end().map_err(Broken::Messages)?;
                        self.ended = true;
                        break;
                    }
                    Poll::Ready(Some(Ok(frame))) => {
                        let data = frame.into_data().unwrap_or_default();
                        self.messages.pass(&data).map_err(Broken::Messages)?;
                        self.sent += data.len();
                        first.push(data);
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        open.data = concat(first);
        open.half_close = self.ended;
        Ok(())
    }

    /// Completes a call that came back. What was sent while the tunnel ended it went nowhere; that can only be the last
    /// of it, for nothing more is sent before there is an answer.
    fn restore(&self, open: &mut OpenCall) {
        let missing = self.sent.saturating_sub(open.data.len()).min(self.last.len());
        if missing > 0 {
            open.data = concat(vec![std::mem::take(&mut open.data), self.last.slice(self.last.len() - missing..)]);
        }
        open.half_close = self.ended;
    }
}

fn concat(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() < 2 {
        return chunks.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
    all.freeze()
}

/// Counts the call while its task lives, and leaves nothing of it behind in any tunnel.
struct Carried {
    core: Arc<GatewayCore>,
    call: Arc<EmbeddedCall>,
}

impl Carried {
    fn new(core: Arc<GatewayCore>, call: Arc<EmbeddedCall>) -> Self {
        core.counts.call_began();
        Self { core, call }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.core.counts.call_ended();
        let (over, tunnel) = {
            let state = self.call.lock();
            (state.over, state.tunnel.clone())
        };
        if let (false, Some(tunnel)) = (over, tunnel) {
            tunnel.cancel(self.call.id(), CancelReason::ClientGone);
        }
        // Nobody is left waiting, should a request body have panicked.
        self.call.answer(&Answer::cancelled());
    }
}

/// So much of the request goes with the start, and no more is asked for: one window of a new call.
const FIRST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn upload(sent: usize, last: &'static str, ended: bool) -> Upload {
        let messages = Messages::new(false, usize::MAX);
        Upload { body: Body::empty(), messages, ended, sent, last: Bytes::from_static(last.as_bytes()) }
    }

    fn came_back(upload: &Upload, data: &'static str, half_close: bool) -> (Bytes, bool) {
        let mut open = OpenCall { data: Bytes::from_static(data.as_bytes()), half_close, ..OpenCall::default() };
        upload.restore(&mut open);
        (open.data, open.half_close)
    }

    #[test]
    fn a_call_that_comes_back_whole_is_left_as_it_is() {
        assert_eq!(came_back(&upload(6, "def", true), "abcdef", true), ("abcdef".into(), true));
    }

    #[test]
    fn what_was_sent_into_a_call_that_had_ended_is_put_back() {
        assert_eq!(came_back(&upload(6, "def", false), "abc", false), ("abcdef".into(), false));
        assert_eq!(came_back(&upload(6, "def", true), "abc", false), ("abcdef".into(), true));
    }

    #[test]
    fn a_half_close_alone_is_put_back() {
        assert_eq!(came_back(&upload(3, "abc", true), "abc", false), ("abc".into(), true));
    }

    #[tokio::test]
    async fn a_unary_request_goes_with_the_start_and_ends_with_it() {
        let mut upload = Upload { body: Body::new(Full::from("abc")), ..upload(0, "", false) };
        let mut open = OpenCall::default();

        upload.read_ready(&mut open).await.unwrap();

        assert_eq!((open.data, open.half_close, upload.sent), ("abc".into(), true, 3));
    }

    #[tokio::test]
    async fn a_request_that_is_not_there_yet_is_not_waited_for() {
        let mut upload =
            Upload { body: Body::new(StreamBody::new(tokio_stream::pending::<NoFrame>())), ..upload(0, "", false) };
        let mut open = OpenCall::default();

        upload.read_ready(&mut open).await.unwrap();

        assert_eq!((open.data, open.half_close), (Bytes::new(), false));
    }

    #[tokio::test]
    async fn a_broken_request_is_an_error_and_no_end() {
        let body = StreamBody::new(tokio_stream::once::<NoFrame>(Err(Status::cancelled("reset"))));
        let mut upload = Upload { body: Body::new(body), ..upload(0, "", false) };
        let mut open = OpenCall::default();

        assert!(upload.read_ready(&mut open).await.is_err());
        assert!(!open.half_close);
    }

    #[test]
    fn data_waits_until_the_tunnel_is_known_that_it_is_consumed_from() {
        let call = EmbeddedCall::default();
        let mut cx = Context::from_waker(Waker::noop());
        let data = Bytes::from_static(b"abc");
        call.deliver(CallId::from_raw(1), CallEvent::Response { headers: None, data, trailers: None });

        assert!(call.poll_part(&mut cx).is_pending());
        call.carried_by(Some(&TunnelHandle::gateway(grpcrouter_protocol::Config::default())));
        assert!(matches!(call.poll_part(&mut cx), Poll::Ready(Part::Data(data)) if data == "abc"));
    }

    #[test]
    fn there_is_one_end_only() {
        let call = EmbeddedCall::default();
        let mut cx = Context::from_waker(Waker::noop());
        call.answer(&Answer::deadline());
        call.answer(&Answer::cancelled());

        assert!(matches!(call.poll_part(&mut cx), Poll::Ready(Part::Trailers(trailers)) if trailers.status == 4));
        assert!(call.poll_part(&mut cx).is_pending());
    }

    type NoFrame = Result<Frame<Bytes>, Status>;
}
