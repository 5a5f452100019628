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
use grpcrouter_protocol::{CallId, CancelReason, EndReason, OpenCall, Outcome as Lost, Text, Time};
use h2::{RecvStream, server::SendResponse};
use http::request;

use self::{
    reply::{Reply, Said},
    upload::{Broken, Upload},
};
use super::{
    connection::Shared,
    edge::Messages,
    forward,
    intake::Refusal,
    parking::Spot,
    pass::Origin,
    route::MethodRoute,
    way::{self, End, Unplaced, Way},
};
use crate::{
    clock, metadata,
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
        let origin = Origin::Client(&connection.peer);
        let prepared = forward::prepare(core, &head.method, head.uri.path(), authority, &head.headers, origin);
        let (way, open) = match prepared {
            Ok(prepared) => prepared,
            Err(Refusal::Http(status)) => return reply::http(respond, status),
            Err(Refusal::Answer(answer)) => {
                return Reply::new(respond, metadata::content_subtype(&head.headers), usize::MAX).answer(&answer);
            }
        };
        let call = Arc::new(Self {
            connection: connection.clone(),
            id: AtomicU64::new(0),
            queued: AtomicBool::new(false),
            place: Mutex::new(Place { work: None, inbox: VecDeque::new(), client_moved: false, over: false }),
        });
        way.began(core);
        let takes_one_message = way.route(core).is_some_and(MethodRoute::takes_one_message);
        let max_message = core.limits.max_message_size;
        let upload = Upload::new(body, Messages::new(takes_one_message, max_message));
        let reply = Reply::new(respond, open.start.content_subtype.clone(), max_message);
        let mut work = Work { call: call.clone(), way, reply, upload, held: None, counted: 0, end: End::CANCELLED };
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
            work.count_queued();
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

/// A call that no instance has yet: its key is still to come, or one who can take it.
#[derive(Debug)]
struct Held {
    open: Box<OpenCall>,
    /// Where it is told of a change, and of its deadline.
    spot: Spot,
}

/// The work of a call, in the hands of one at a time.
#[derive(Debug)]
struct Work {
    /// A circle while the call is open, for wakers; [`ClientCall::settle`] ends it.
    call: Arc<ClientCall>,
    way: Way,
    reply: Reply,
    upload: Upload,
    /// The call itself, while no instance has it.
    held: Option<Held>,
    /// What of it is in the gateway's count of queued bytes.
    counted: usize,
    /// What the client is told, once it is; until then the call ends only if the client leaves it.
    end: End,
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
        if self.way.unread {
            return self.read_key(Box::new(open), None);
        }
        self.upload.begin(&mut open, self.may_repeat());
        let opened = forward::exchange(&self.call.connection.core, &mut self.way, open, &self.call);
        self.opened(opened, None)
    }

    /// Whether the call may be executed twice.
    fn may_repeat(&self) -> bool {
        self.way.route(&self.call.connection.core).is_some_and(|route| route.may_repeat)
    }

    /// `spot` is where the call waited, if it did.
    fn opened(&mut self, mut opened: Result<usize, Unplaced>, mut spot: Option<Spot>) -> Call {
        loop {
            match opened {
                Ok(capacity) => {
                    self.upload.allow(capacity);
                    self.upload();
                    return Call::Open;
                }
                Err(Unplaced::Answered(answer)) => return self.end(&answer),
                Err(Unplaced::Waits(open)) => {
                    if let Some(spot) = spot {
                        self.held = Some(Held { open, spot });
                        return Call::Open;
                    }
                    match self.park(open.deadline) {
                        Ok(parked) => spot = Some(parked),
                        Err(full) => return self.end(&full),
                    }
                    // An instance may have come before anybody was told that this call waits.
                    opened = forward::exchange(&self.call.connection.core, &mut self.way, *open, &self.call);
                }
            }
        }
    }

    fn park(&self, deadline: Option<Time>) -> Result<Spot, Answer> {
        let core = &self.call.connection.core;
        let route = self.way.route(core).ok_or_else(Answer::refused)?;
        let most = core.limits.max_parked_calls;
        let spot = core.registry.parking.park(route.target, deadline, &Waker::from(self.call.clone()), most);
        spot.ok_or_else(|| Answer::too_many_wait(route.service(), most))
    }

    /// Looks for the key in what has come of the first message; until it is there, no instance has the call.
    fn read_key(&mut self, mut open: Box<OpenCall>, spot: Option<Spot>) -> Call {
        let core = &self.call.connection.core;
        match forward::read_key(core, &mut self.way, self.upload.come(), self.upload.has_ended()) {
            Err(answer) => self.end(&answer),
            Ok(true) => {
                self.upload.begin(&mut open, self.may_repeat());
                let opened = forward::exchange(core, &mut self.way, *open, &self.call);
                self.opened(opened, None)
            }
            Ok(false) => {
                let ring = || core.registry.parking.ring(open.deadline, &Waker::from(self.call.clone()));
                let spot = spot.unwrap_or_else(ring);
                self.held = Some(Held { open, spot });
                Call::Open
            }
        }
    }

    /// Something moved, and no instance has the call yet.
    fn go_on(&mut self, Held { open, spot }: Held) -> Call {
        if open.deadline.is_some_and(|deadline| deadline <= clock::now()) {
            return self.end(&Answer::deadline(Outcome::NotSent));
        }
        if self.call.connection.core.registry.parking.is_closed() {
            return self.end(&Answer::shutting_down("gateway", Outcome::NotSent));
        }
        if self.way.unread {
            return self.read_key(open, Some(spot));
        }
        let opened = forward::exchange(&self.call.connection.core, &mut self.way, *open, &self.call);
        self.opened(opened, Some(spot))
    }

    /// Looks at everything that HTTP/2 may have news of.
    fn client_moved(&mut self) -> Call {
        let waker = Waker::from(self.call.clone());
        let mut cx = Context::from_waker(&waker);
        if self.reply.is_reset(&mut cx) {
            return self.client_gone();
        }
        if self.reply.is_ending() {
            return self.reply(&mut cx);
        }
        if let Err(broken) = self.upload.read(&mut cx) {
            return self.broken(&broken);
        }
        if let Some(held) = self.held.take() {
            return self.go_on(held);
        }
        self.upload();
        self.reply(&mut cx)
    }

    fn tunnel_moved(&mut self, event: CallEvent) -> Call {
        match event {
            CallEvent::Response { headers, mut data, trailers } => {
                let within = self.reply.limit(&mut data);
                self.upload.answered();
                if headers.is_some() {
                    self.way.answered();
                }
                let taken = self.reply.take(headers, data);
                if let Err(long) = within {
                    self.cancel();
                    return self.end(&long.answer("a message of the response", Outcome::MaybeExecuted));
                }
                let Some(trailers) = trailers else {
                    let waker = Waker::from(self.call.clone());
                    return match taken {
                        Ok(()) => self.reply(&mut Context::from_waker(&waker)),
                        Err(_) => self.client_gone(),
                    };
                };
                self.end = End::by_service(&trailers);
                let waker = Waker::from(self.call.clone());
                let cx = &mut Context::from_waker(&waker);
                Self::said(taken.and_then(|()| self.reply.finish(trailers, cx)))
            }
            CallEvent::Leased(lease) => {
                self.reply.hold(lease);
                Call::Open
            }
            CallEvent::Writable { capacity } => {
                self.upload.allow(capacity);
                self.upload();
                Call::Open
            }
            CallEvent::Refused(call) => self.again(*call, Outcome::NotStarted),
            CallEvent::Ended(EndReason::Lost(Lost::NotSent(call))) => self.again(*call, Outcome::NotSent),
            CallEvent::Ended(EndReason::Lost(_)) => match self.upload.kept() {
                Some(call) => self.again(call, Outcome::MaybeExecuted),
                None => self.lost(),
            },
            CallEvent::Ended(EndReason::Deadline) => self.end(&Answer::deadline(Outcome::MaybeExecuted)),
            CallEvent::Ended(EndReason::Violation(why)) => self.end(&Answer::violation(&why.to_string())),
            CallEvent::Ended(EndReason::Cancelled(_)) => self.lost(),
            // A gateway is sent no requests.
            CallEvent::Request { .. } => Call::Open,
        }
    }

    /// The instance is gone with the call.
    fn lost(&mut self) -> Call {
        let answer = way::lost(&self.call.connection.core, Outcome::MaybeExecuted);
        self.end(&answer)
    }

    /// The instance did not take the call, or was lost with it and it may be executed twice: another may have it.
    fn again(&mut self, mut call: OpenCall, outcome: Outcome) -> Call {
        self.upload.restore(&mut call);
        let core = &self.call.connection.core;
        let opened = forward::exchange_again(core, &mut self.way, call, outcome, &self.call);
        self.opened(opened, None)
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
            Err(reply::Gone) => self.client_gone(),
            said => Self::said(said),
        }
    }

    /// The tunnel is done with the call: nobody is left to tell should the client have gone.
    fn said(said: Result<Said, reply::Gone>) -> Call {
        match said {
            Ok(Said::Part) => Call::Open,
            Ok(Said::All) | Err(reply::Gone) => Call::Over,
        }
    }

    /// The client reset its stream, or its connection is dead.
    fn client_gone(&mut self) -> Call {
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
                let outcome = self.way.tunnel().map_or(Outcome::NotSent, |_| Outcome::MaybeExecuted);
                self.end(&breach.answer(path, outcome))
            }
        }
    }

    /// Tells the gateway's counters what waits here; for most calls that is nothing, and no counter is touched.
    fn count_queued(&mut self) {
        let queued = self.upload.queued_bytes() + self.reply.queued_bytes();
        if queued != self.counted {
            self.call.connection.core.counts.queued(self.counted, queued);
            self.counted = queued;
        }
    }

    fn cancel(&mut self) {
        if let Some(tunnel) = self.way.tunnel() {
            tunnel.cancel(self.call.id(), CancelReason::ClientGone);
        }
    }

    /// Ends the call with an answer of ours; the tunnel is done with it.
    fn end(&mut self, answer: &Answer) -> Call {
        let answer = self.way.told(answer);
        self.end = End::here(&answer);
        let waker = Waker::from(self.call.clone());
        Self::said(self.reply.end(&answer, &mut Context::from_waker(&waker)))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let core = &self.call.connection.core;
        core.counts.queued(self.counted, 0);
        self.way.ended(core, self.call.id(), self.end);
    }
}
