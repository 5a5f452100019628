//! The way that one call takes: its route, its key, who has it and who did not take it. Here a call begins and ends: what
//! is counted, logged or learned of every call is told to [`Way::began`] and [`Way::ended`].

use std::{borrow::Cow, sync::Arc};

use grpcrouter_protocol::{CallId, OpenCall, OpenCallError, Time, Trailers};
use http::{HeaderMap, HeaderName};
use tonic::Code;
use tracing::debug;

use super::{
    GatewayCore,
    pass::Held,
    registry::{Instance, Seat},
    route::{MethodRoute, RouteId},
    strategy::{Read, RoutingKey},
};
use crate::{
    clock,
    metrics::code_name,
    status::{Answer, Outcome, Reason},
    tunnel::TunnelHandle,
};

/// How one call is routed, for its first instance and for the next if that one does not take it.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) route: RouteId,
    pub(super) key: RoutingKey,
    /// The key is still to be read, from the first message.
    pub(super) unread: bool,
    /// The only one that may have it, if its caller chose.
    pub(super) pinned: Option<Arc<Instance>>,
    /// Of which version its instance is to be, if its caller chose and calls are split.
    pub(super) version: Option<String>,
    /// Who has the call.
    pub(super) at: Option<Seat>,
    /// Those that did not take it.
    pub(super) tried: Vec<Arc<Instance>>,
    /// How many of them had it and gave it back.
    pub(super) came_back: usize,
    /// One of them may have executed it.
    maybe_executed: bool,
    /// The next one is to be paid for.
    pub(super) owes: bool,
    /// What to answer if nobody does.
    pub(super) last: Option<Answer>,
    /// Given back when the call is over.
    _held: Held,
    /// When the call came.
    began: Time,
}

impl Way {
    pub(super) fn new(route: RouteId, read: Read, pinned: Option<Arc<Instance>>, held: Held) -> Self {
        let (key, unread) = match read {
            Read::Key(key) => (key, false),
            Read::InMessage => (RoutingKey::Absent, true),
        };
        Self {
            route,
            key,
            unread,
            pinned,
            version: None,
            at: None,
            tried: Vec::new(),
            came_back: 0,
            maybe_executed: false,
            owes: false,
            last: None,
            _held: held,
            began: clock::now(),
        }
    }

    /// The same, of the version that its client asks for, where calls are split.
    pub(super) fn of_version(mut self, core: &GatewayCore, headers: &HeaderMap) -> Self {
        if core.registry.is_split() {
            let asked = headers.get(VERSION).and_then(|version| version.to_str().ok());
            self.version = asked.map(str::to_owned);
        }
        self
    }

    /// The method that is called.
    pub(super) fn route<'a>(&self, core: &'a GatewayCore) -> Option<&'a MethodRoute> {
        core.routes.method(self.route)
    }

    /// The tunnel that has the call.
    pub(super) fn tunnel(&self) -> Option<&TunnelHandle> {
        self.at.as_ref().map(|seat| &seat.instance().tunnel)
    }

    /// What to answer if the instance that was asked was the last one.
    pub(super) fn not_opened(&self, core: &GatewayCore, why: OpenCallError) -> Answer {
        match why {
            OpenCallError::NoMoreCalls | OpenCallError::ReplayFull => {
                Answer::too_many_calls(self.route(core).map_or("", MethodRoute::service))
            }
            OpenCallError::Closed => lost(core, Outcome::NotSent),
            _ => lost(core, Outcome::NotStarted).outcome(Outcome::NotSent),
        }
    }

    /// The instance that had the call is not done with it and never will be.
    pub(super) fn back(&mut self, core: &GatewayCore, outcome: Outcome) {
        self.maybe_executed |= outcome == Outcome::MaybeExecuted;
        self.owes = true;
        self.came_back += 1;
        self.tried.extend(self.at.take().map(|seat| seat.instance().clone()));
        self.last = Some(lost(core, outcome));
    }

    /// What its client is told: whatever the last instance did, one before may have executed the call.
    pub(super) fn told<'a>(&self, answer: &'a Answer) -> Cow<'a, Answer> {
        if self.maybe_executed {
            Cow::Owned(answer.clone().outcome(Outcome::MaybeExecuted))
        } else {
            Cow::Borrowed(answer)
        }
    }

    /// The call begins. Each that does must end with [`ended`](Self::ended), from a `Drop`.
    pub(super) fn began(&self, core: &GatewayCore) {
        core.counts.call_began();
        core.meters.began(self.route);
        if let Some(route) = self.route(core) {
            core.retries.called(route.target);
        }
    }

    /// The response begins.
    pub(super) fn answered(&mut self) {
        if let Some(seat) = &mut self.at {
            seat.answered();
        }
    }

    /// The call is over, and this is what its client was told: the one place that every call comes to that was not
    /// [`refused`]. `call` is its id in its last tunnel.
    pub(super) fn ended(&self, core: &GatewayCore, call: CallId, end: End) {
        core.counts.call_ended();
        core.meters.ended(self.route, end.code);
        if let Some(seat) = &self.at
            && let Some(in_a_row) =
                seat.ended(end.code, end.reason, self.route(core).is_some_and(MethodRoute::answers_once))
        {
            core.registry.failed(seat.instance(), in_a_row);
        }
        debug!(
            call = self.at.as_ref().map(|_| display(call)),
            instance = self.at.as_ref().map(|seat| display(&seat.instance().id)),
            method = self.route(core).map(|route| route.path.as_str()),
            code = code_name(end.code),
            reason = end.reason.map(Reason::as_str),
            outcome = end.outcome.map(Outcome::as_str),
            took_us = clock::now().since(self.began).as_micros(),
            "call ended"
        );
    }
}

/// Asks for a version where calls are split. Like all of our own headers it does not cross.
const VERSION: HeaderName = HeaderName::from_static("x-grpcrouter-version");

/// What to answer for a call that its instance did not finish.
pub(super) fn lost(core: &GatewayCore, outcome: Outcome) -> Answer {
    if core.counts.is_stopping() {
        Answer::shutting_down("gateway", outcome)
    } else if outcome == Outcome::NotStarted {
        Answer::refused()
    } else {
        Answer::lost(outcome)
    }
}

/// Why no instance has a call.
#[derive(Debug)]
pub(super) enum Unplaced {
    /// It is over.
    Answered(Answer),
    /// It waits for one.
    Waits(Box<OpenCall>),
}

impl From<Answer> for Unplaced {
    fn from(answer: Answer) -> Self {
        Self::Answered(answer)
    }
}

/// A call is over before it began: it asked for what is not there, or its head cannot be carried. `route` is what it asked
/// for, as far as it is known.
pub(super) fn refused(core: &GatewayCore, route: Option<RouteId>, answer: &Answer) {
    core.meters.refused(route, answer.code);
    debug!(
        method = route.and_then(|route| core.routes.method(route)).map(|route| route.path.as_str()),
        code = code_name(answer.code),
        reason = answer.reason.as_str(),
        outcome = answer.outcome.as_str(),
        "call refused"
    );
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) code: Code,
    /// Why, if the gateway ended it and not the service.
    pub(super) reason: Option<Reason>,
    /// Whether the service can have seen it, if the gateway ended it.
    pub(super) outcome: Option<Outcome>,
}

impl End {
    /// The client went away.
    pub(super) const CANCELLED: Self = Self { code: Code::Cancelled, reason: Some(Reason::Cancelled), outcome: None };

    /// The service ended the call, or its backend did.
    pub(super) fn by_service(trailers: &Trailers) -> Self {
        Self { code: Code::from_i32(trailers.status.cast_signed()), reason: None, outcome: None }
    }

    /// The gateway answered.
    pub(super) fn here(answer: &Answer) -> Self {
        Self { code: answer.code, reason: Some(answer.reason), outcome: Some(answer.outcome) }
    }
}
