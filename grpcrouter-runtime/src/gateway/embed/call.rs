//! One call that was made in this process: what its instance sends waits here for the response body, and one task sends
//! what the request body gives.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use grpcrouter_protocol::{
    CallId, CancelReason, EndReason, Headers, OpenCall, Outcome as Lost, Time, Trailers, WindowLease,
};
use http_body::{Body as _, Frame};
use tokio::time::sleep_until;
use tonic::{Status, body::Body};

use crate::{
    clock,
    gateway::{
        GatewayCore,
        edge::{Breach, Edge, Messages, TooLong, is_limit},
        forward,
        retries::Kept,
        route::MethodRoute,
        way::{self, End, Unplaced, Way},
    },
    status::{Answer, Outcome},
    tunnel::{CallEvent, CallSink, TunnelHandle, kept},
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
    /// Of parts that have come of a call that is over.
    lease: Option<WindowLease>,
    /// Nobody waits for the response any more.
    given_up: bool,
    /// The tunnel knows the call no more.
    over: bool,
    /// The last part is there, and this is what it says.
    answered: Option<End>,
    /// Of the response, if the size of messages is limited.
    limited: Option<(Edge, usize)>,
    /// All that the tunnel was given, of a call that may be executed twice, until the response begins.
    kept: Option<Box<Kept>>,
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

    fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.given_up {
            return Poll::Ready(());
        }
        state.task = Some(cx.waker().clone());
        Poll::Pending
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

    /// From now on all that the tunnel is given is kept, until the response begins.
    fn keep(&self, open: &OpenCall) {
        self.lock().kept = Kept::of(open);
    }

    fn keep_more(&self, data: &Bytes) {
        let mut state = self.lock();
        if state.kept.as_mut().is_some_and(|kept| !kept.more(data)) {
            state.kept = None;
        }
    }

    fn answer(&self, answer: &Answer) {
        wake({
            let mut state = self.lock();
            state.end(answer.trailers(), End::here(answer));
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
    fn end(&mut self, trailers: Trailers, end: End) {
        if self.answered.is_none() {
            self.answered = Some(end);
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
                CallEvent::Response { .. } if state.answered.is_some() => {}
                CallEvent::Response { headers, mut data, trailers } => {
                    state.kept = None;
                    let within = state.limit(&mut data);
                    state.parts.extend(headers.map(Part::Headers));
                    if !data.is_empty() {
                        // The first may be all there is, and is mostly taken at once.
                        let waits = state.parts.iter().any(|part| matches!(part, Part::Data(_)));
                        state.parts.push_back(Part::Data(if waits { kept(data) } else { data }));
                    }
                    if let Err(long) = within {
                        let answer = long.answer("a message of the response", Outcome::MaybeExecuted);
                        state.end(answer.trailers(), End::here(&answer));
                        state.turns.push_back(Turn::GivenUp);
                    }
                    if let Some(trailers) = trailers {
                        let end = End::by_service(&trailers);
                        state.end(trailers, end);
                        state.over = true;
                        state.turns.push_back(Turn::Over(None));
                    }
                }
                CallEvent::Writable { capacity } => state.turns.push_back(Turn::Writable(capacity)),
                CallEvent::Refused(call) => state.turns.push_back(Turn::Back(call, Outcome::NotStarted)),
                CallEvent::Ended(EndReason::Lost(Lost::NotSent(call))) => {
                    state.turns.push_back(Turn::Back(call, Outcome::NotSent));
                }
                CallEvent::Leased(lease) => state.lease = Some(lease),
                CallEvent::Ended(reason) => {
                    let kept = state.kept.take().filter(|_| matches!(reason, EndReason::Lost(_)));
                    let turn = match kept {
                        // Once: what ends one instance after another must not go round them all.
                        Some(kept) => Turn::Back(Box::new(kept.call()), Outcome::MaybeExecuted),
                        None => {
                            state.over = true;
                            Turn::Over(Some(reason))
                        }
                    };
                    state.turns.push_back(turn);
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
pub(super) async fn drive(core: Arc<GatewayCore>, way: Way, mut open: OpenCall, body: Body, call: Arc<EmbeddedCall>) {
    let mut carried = Carried::new(core.clone(), call.clone(), way);
    let way = &mut carried.way;
    let one = way.route(&core).is_some_and(MethodRoute::takes_one_message);
    let messages = Messages::new(one, core.limits.max_message_size);
    let mut upload = Upload { body, messages, ended: false, sent: 0, last: Bytes::new() };
    let deadline = open.deadline;
    if let Err(end) = unless_over(&core, &call, deadline, upload.start(&core, way, &mut open)).await {
        return end.iter().for_each(|answer| call.answer(answer));
    }
    let may_repeat = way.route(&core).is_some_and(|route| route.may_repeat);
    if may_repeat {
        call.keep(&open);
    }
    let first = forward::exchange(&core, way, open, &call);
    let mut opened = placed(&core, way, first, &call).await;
    call.carried_by(way.tunnel());
    while let (Ok(capacity), Some(tunnel)) = (&mut opened, way.tunnel()) {
        match next(&call, &mut upload, *capacity).await {
            Step::Turn(Turn::Writable(writable)) => *capacity = writable,
            Step::Turn(Turn::Back(mut open, outcome)) => {
                upload.restore(&mut open);
                // Data that comes before the next tunnel is known must not be consumed from the last one.
                call.carried_by(None);
                let again = forward::exchange_again(&core, way, *open, outcome, &call);
                opened = placed(&core, way, again, &call).await;
                call.carried_by(way.tunnel());
            }
            Step::Turn(Turn::Over(None) | Turn::GivenUp) => return,
            Step::Turn(Turn::Over(Some(reason))) => return call.answer(&way.told(&ended(&core, &reason))),
            Step::Upload(Some(Ok(frame))) => {
                // A request has no trailers in gRPC.
                let data = frame.into_data().unwrap_or_default();
                if let Err(breach) = upload.messages.pass(&data) {
                    return call.answer(&way.told(&Broken::Messages(breach).answer(&core, way)));
                }
                upload.sent += data.len();
                upload.last = data.clone();
                if may_repeat {
                    call.keep_more(&data);
                }
                *capacity = tunnel.send(call.id(), data, false);
            }
            Step::Upload(None) => {
                if let Err(breach) = upload.messages.end() {
                    return call.answer(&way.told(&Broken::Messages(breach).answer(&core, way)));
                }
                upload.ended = true;
                tunnel.send(call.id(), Bytes::new(), true);
            }
            // Broken, so never half-closed: the instance must not take it for whole.
            Step::Upload(Some(Err(_))) => return call.answer(&way.told(&Broken::Gone.answer(&core, way))),
        }
    }
    if let Err(Some(answer)) = &opened {
        call.answer(&way.told(answer));
    }
}

/// Waits for an instance, where the call may; `None` as error: nobody waits for the call any more.
async fn placed(
    core: &GatewayCore,
    way: &mut Way,
    opened: Result<usize, Unplaced>,
    call: &Arc<EmbeddedCall>,
) -> Result<usize, Option<Answer>> {
    let mut open = match opened {
        Ok(capacity) => return Ok(capacity),
        Err(Unplaced::Answered(answer)) => return Err(Some(answer)),
        Err(Unplaced::Waits(open)) => open,
    };
    let route = way.route(core).ok_or_else(|| Some(Answer::refused()))?;
    let (target, most) = (route.target, core.limits.max_parked_calls);
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let spot = core.registry.parking.park(target, None, &waker, most);
    let _spot = spot.ok_or_else(|| Some(Answer::too_many_wait(route.service(), most)))?;
    let deadline = open.deadline;
    unless_over(core, call, deadline, async {
        loop {
            match forward::exchange(core, way, *open, call) {
                Ok(capacity) => return Ok(capacity),
                Err(Unplaced::Answered(answer)) => return Err(answer),
                Err(Unplaced::Waits(back)) => open = back,
            }
            next_wake().await;
        }
    })
    .await
}

/// Pending once: whatever wakes the task may be what is waited for.
async fn next_wake() {
    let mut woken = false;
    poll_fn(|_| if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Runs `work` until its deadline passes, the gateway ends, or nobody waits for the call any more; then there may be
/// nothing to answer.
async fn unless_over<T>(
    core: &GatewayCore,
    call: &EmbeddedCall,
    deadline: Option<Time>,
    work: impl Future<Output = Result<T, Answer>>,
) -> Result<T, Option<Answer>> {
    let deadline = async {
        match deadline {
            Some(at) => sleep_until(clock::instant(at)).await,
            None => pending().await,
        }
    };
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let mut spot = None;
    let closed = poll_fn(|_| {
        spot.get_or_insert_with(|| core.registry.parking.ring(None, &waker));
        if core.registry.parking.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::select! {
        biased;
        // First: most work is done when it is looked at, and then there is nothing to wait for and no timer to set.
        done = work => done.map_err(Some),
        () = poll_fn(|cx| call.poll_given_up(cx)) => Err(None),
        () = deadline => Err(Some(Answer::deadline(Outcome::NotSent))),
        () = closed => Err(Some(Answer::shutting_down("gateway", Outcome::NotSent))),
    }
}

fn ended(core: &GatewayCore, reason: &EndReason) -> Answer {
    match reason {
        EndReason::Deadline => Answer::deadline(Outcome::MaybeExecuted),
        EndReason::Violation(why) => Answer::violation(&why.to_string()),
        EndReason::Cancelled(_) | EndReason::Lost(_) => way::lost(core, Outcome::MaybeExecuted),
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
        let outcome = way.tunnel().map_or(Outcome::NotSent, |_| Outcome::MaybeExecuted);
        match self {
            Self::Gone => Answer::cancelled(outcome),
            Self::Messages(breach) => breach.answer(way.route(core).map_or("", |route| route.path.as_str()), outcome),
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
    /// Puts together what goes with the start: what is there at once, so that a unary call is one frame; and the whole
    /// first message, if the key is in there.
    async fn start(&mut self, core: &GatewayCore, way: &mut Way, open: &mut OpenCall) -> Result<(), Answer> {
        let mut first = Vec::new();
        loop {
            if let Err(broken) = self.read_ready(&mut first, way.unread).await {
                return Err(broken.answer(core, way));
            }
            let come = first.iter().map(|chunk: &Bytes| &chunk[..]);
            if !way.unread || forward::read_key(core, way, come, self.ended)? {
                break;
            }
        }
        open.data = concat(first);
        open.half_close = self.ended;
        Ok(())
    }

    /// Takes what the body gives without waiting; with `waits`, at least something.
    async fn read_ready(&mut self, first: &mut Vec<Bytes>, waits: bool) -> Result<(), Broken> {
        let before = self.sent;
        poll_fn(|cx| {
            while self.sent < FIRST || (waits && self.sent == before) {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Pending if waits && self.sent == before => return Poll::Pending,
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
        .await
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
    way: Way,
}

impl Carried {
    fn new(core: Arc<GatewayCore>, call: Arc<EmbeddedCall>, way: Way) -> Self {
        way.began(&core);
        Self { core, call, way }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let (over, tunnel) = {
            let state = self.call.lock();
            (state.over, state.tunnel.clone())
        };
        if let (false, Some(tunnel)) = (over, tunnel) {
            tunnel.cancel(self.call.id(), CancelReason::ClientGone);
        }
        // Nobody is left waiting, should a request body have panicked.
        self.call.answer(&Answer::cancelled(Outcome::MaybeExecuted));
        let end = self.call.lock().answered.unwrap_or(End::CANCELLED);
        self.way.ended(&self.core, self.call.id(), end);
    }
}

/// So much of the request goes with the start, and no more is asked for: one window of a new call.
const FIRST: usize = 64 * 1024;

#[cfg(test)]
mod tests;
