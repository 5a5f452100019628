//! One call of a client: its HTTP/2 stream on one side, its tunnel on the other. Whoever has news of it, the tunnel's
//! reader or the connection's task, takes the work and does it; who finds the work taken leaves the news.

mod reply;
mod staging;
mod upload;

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Wake, Waker},
};

use bytes::Bytes;
use grpcrouter_protocol::{CallId, CancelReason, EndReason, OpenCall, Outcome as Lost, Text};
use h2::{RecvStream, server::SendResponse};
use http::request;
use tracing::debug;

use self::{
    reply::Reply,
    upload::{Broken, Upload},
};
use super::{
    connection::Shared,
    edge::Messages,
    forward::{self, Refusal, Way},
    route::MethodRoute,
};
use crate::{
    status::{Answer, Outcome},
    tunnel::{CallEvent, CallSink},
};

/// A call, as its tunnel and its connection know it. It is also the waker of all its HTTP/2 halves.
#[derive(Debug)]
pub(super) struct ClientCall {
    connection: Arc<Shared>,
    /// In the tunnel that has it.
    id: AtomicU64,
    /// Already in the connection's queue.
    queued: AtomicBool,
    place: Mutex<Place>,
}

/// Where the work of a call lies when nobody does it, and what came meanwhile.
#[derive(Debug)]
struct Place {
    work: Option<Work>,
    inbox: VecDeque<CallEvent>,
    /// HTTP/2 has news.
    client_moved: bool,
    /// Nothing of this call matters any more.
    over: bool,
}

/// Whether a call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Call {
    Open,
    /// All is said; only the handles are to be dropped.
    Over,
}

impl ClientCall {
    /// Takes a new call as far as it goes at once. For most, that is: their whole request is with an instance.
    pub(super) fn begin(
        connection: &Arc<Shared>,
        head: &request::Parts,
        authority: Text,
        body: RecvStream,
        respond: SendResponse<Bytes>,
    ) {
        let core = &connection.core;
        let (way, open) = match forward::prepare(core, &head.method, head.uri.path(), authority, &head.headers) {
            Ok(prepared) => prepared,
            Err(Refusal::Http(status)) => return reply::http(respond, status),
            Err(Refusal::Answer(answer)) => return Reply::new(respond, usize::MAX).answer(&answer),
        };
        let call = Arc::new(Self {
            connection: connection.clone(),
            id: AtomicU64::new(0),
            queued: AtomicBool::new(false),
            place: Mutex::new(Place { work: None, inbox: VecDeque::new(), client_moved: false, over: false }),
        });
        core.counts.call_began();
        let takes_one_message = way.route(core).is_some_and(MethodRoute::takes_one_message);
        let max_message = core.limits.max_message_size;
        let upload = Upload::new(body, Messages::new(takes_one_message, max_message));
        let mut work = Work { call: call.clone(), way, reply: Reply::new(respond, max_message), upload };
        let state = work.begin(open);
        call.settle(work, state);
    }

    /// HTTP/2 has news of this call: data, room, a reset.
    pub(super) fn client_moved(&self) {
        // Before looking: what comes from now on queues the call again.
        self.queued.store(false, Ordering::Release);
        let mut place = self.lock();
        let Some(mut work) = place.work.take() else {
            place.client_moved = true;
            return;
        };
        drop(place);
        let state = work.client_moved();
        self.settle(work, state);
    }

    /// Puts the work back, once nothing is left to do; or ends it.
    fn settle(&self, mut work: Work, mut state: Call) {
        while state == Call::Open {
            let mut place = self.lock();
            let client_moved = mem::take(&mut place.client_moved);
            if !client_moved && place.inbox.is_empty() {
                place.work = Some(work);
                return;
            }
            let inbox = mem::take(&mut place.inbox);
            drop(place);
            for event in inbox {
                if state == Call::Open {
                    state = work.tunnel_moved(event);
                }
            }
            if client_moved && state == Call::Open {
                state = work.client_moved();
            }
        }
        let mut place = self.lock();
        place.over = true;
        let inbox = mem::take(&mut place.inbox);
        drop(place);
        // Dropping the handles calls h2, and ends the circle from the work to this call.
        drop(work);
        drop(inbox);
    }

    fn id(&self) -> CallId {
        CallId::from_raw(self.id.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallSink for ClientCall {
    fn bind(&self, call: CallId) {
        self.id.store(call.get(), Ordering::Relaxed);
    }

    fn deliver(&self, _: CallId, event: CallEvent) {
        let mut place = self.lock();
        if place.over {
            return;
        }
        // Whoever has the work looks at the inbox before putting it back: then it is empty here.
        let Some(mut work) = place.work.take() else {
            place.inbox.push_back(event);
            return;
        };
        drop(place);
        let state = work.tunnel_moved(event);
        self.settle(work, state);
    }
}

impl Wake for ClientCall {
    /// Called by h2 with its lock held, so it only queues.
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let connection = self.connection.clone();
            connection.queue(self);
        }
    }
}

/// The work of a call, in the hands of one at a time.
#[derive(Debug)]
struct Work {
    /// A circle while the call is open, for wakers; [`ClientCall::settle`] ends it.
    call: Arc<ClientCall>,
    way: Way,
    reply: Reply,
    upload: Upload,
}

impl Work {
    fn begin(&mut self, mut open: OpenCall) -> Call {
        let waker = Waker::from(self.call.clone());
        let mut cx = Context::from_waker(&waker);
        if self.reply.is_reset(&mut cx) {
            return Call::Over;
        }
        if let Err(broken) = self.upload.read(&mut cx) {
            return self.broken(&broken);
        }
        (open.data, open.half_close) = self.upload.first();
        let opened = forward::exchange(&self.call.connection.core, &mut self.way, open, &self.call);
        self.opened(opened)
    }

    fn opened(&mut self, opened: Result<usize, Answer>) -> Call {
        match opened {
            Ok(capacity) => {
                self.upload.allow(capacity);
                self.upload();
                Call::Open
            }
            Err(answer) => self.end(&answer),
        }
    }

    /// Looks at everything that HTTP/2 may have news of.
    fn client_moved(&mut self) -> Call {
        let waker = Waker::from(self.call.clone());
        let mut cx = Context::from_waker(&waker);
        if self.reply.is_reset(&mut cx) {
            return self.client_gone();
        }
        if let Err(broken) = self.upload.read(&mut cx) {
            return self.broken(&broken);
        }
        self.upload();
        self.reply(&mut cx)
    }

    fn tunnel_moved(&mut self, event: CallEvent) -> Call {
        match event {
            CallEvent::Response { headers, mut data, trailers } => {
                let within = self.reply.limit(&mut data);
                let taken = self.reply.take(headers, data);
                if let Err(long) = within {
                    self.cancel();
                    return self.end(&long.answer("a message of the response"));
                }
                let Some(trailers) = trailers else {
                    let waker = Waker::from(self.call.clone());
                    return match taken {
                        Ok(()) => self.reply(&mut Context::from_waker(&waker)),
                        Err(_) => self.client_gone(),
                    };
                };
                // The tunnel is done with the call: nobody is left to tell should the client have gone.
                let _ = taken.and_then(|()| self.reply.finish(&trailers));
                Call::Over
            }
            CallEvent::Writable { capacity } => {
                self.upload.allow(capacity);
                self.upload();
                Call::Open
            }
            CallEvent::Refused(call) => self.again(*call, Outcome::NotStarted),
            CallEvent::Ended(EndReason::Lost(Lost::NotSent(call))) => self.again(*call, Outcome::NotSent),
            CallEvent::Ended(EndReason::Lost(_)) => {
                let answer = forward::lost(&self.call.connection.core, Outcome::MaybeExecuted);
                self.end(&answer)
            }
            CallEvent::Ended(EndReason::Deadline) => self.end(&Answer::deadline()),
            CallEvent::Ended(EndReason::Violation(why)) => self.end(&Answer::violation(&why.to_string())),
            CallEvent::Ended(EndReason::Cancelled(_)) => {
                let answer = forward::lost(&self.call.connection.core, Outcome::MaybeExecuted);
                self.end(&answer)
            }
            // A gateway is sent no requests.
            CallEvent::Request { .. } => Call::Open,
        }
    }

    /// The instance did not take the call: another may.
    fn again(&mut self, mut call: OpenCall, outcome: Outcome) -> Call {
        self.upload.restore(&mut call);
        let core = &self.call.connection.core;
        let opened = forward::exchange_again(core, &mut self.way, call, outcome, &self.call);
        self.opened(opened)
    }

    /// Sends what came from the client, as far as the call's credit goes.
    fn upload(&mut self) {
        if let Some(tunnel) = self.way.tunnel() {
            self.upload.hand_over(tunnel, self.call.id());
        }
    }

    /// Sends what came from the instance, as far as the client has room.
    fn reply(&mut self, cx: &mut Context<'_>) -> Call {
        let (tunnel, id) = (self.way.tunnel(), self.call.id());
        let taken = |part| {
            if let Some(tunnel) = tunnel {
                tunnel.consumed(id, part);
            }
        };
        match self.reply.flush(cx, taken) {
            Ok(()) => Call::Open,
            Err(reply::Gone) => self.client_gone(),
        }
    }

    /// The client reset its stream, or its connection is dead.
    fn client_gone(&mut self) -> Call {
        debug!(call = %self.call.id(), "client gone");
        self.cancel();
        Call::Over
    }

    /// The request cannot be carried on: the instance must not take what it has for the whole.
    fn broken(&mut self, broken: &Broken) -> Call {
        match broken {
            Broken::Gone => self.client_gone(),
            Broken::Messages(breach) => {
                self.cancel();
                let route = self.way.route(&self.call.connection.core);
                let path = route.map_or("", |route| route.path.as_str());
                self.end(&breach.answer(path))
            }
        }
    }

    fn cancel(&mut self) {
        if let Some(tunnel) = self.way.tunnel() {
            tunnel.cancel(self.call.id(), CancelReason::ClientGone);
        }
    }

    /// Ends the call with an answer of ours; the tunnel is done with it.
    fn end(&mut self, answer: &Answer) -> Call {
        debug!(call = %self.call.id(), code = ?answer.code, reason = answer.reason.as_str(), "call ended here");
        self.reply.end(answer);
        Call::Over
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.call.connection.core.counts.call_ended();
    }
}
