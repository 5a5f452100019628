//! The way of one call through the gateway, in five steps: split the request, find the route, read the routing key, pick
//! an instance, exchange frames. No state is kept here: a call's is in its own place, an instance's in the registry.

use std::{sync::Arc, time::Duration};

use grpcrouter_protocol::{OpenCall, OpenCallError, Text};
use http::{HeaderMap, Method, StatusCode};

use super::{
    GatewayCore,
    registry::Instance,
    route::{MethodRoute, RouteId},
    strategy::RoutingKey,
};
use crate::{
    clock,
    metadata::{self, RequestHead},
    status::{Answer, Outcome},
    tunnel::{CallSink, TunnelHandle},
};

/// How one call is routed, for its first instance and for the next if that one does not take it.
#[derive(Debug)]
pub(super) struct Way {
    route: RouteId,
    key: RoutingKey,
    /// Who has the call.
    at: Option<Arc<Instance>>,
    /// Those that did not take it.
    tried: Vec<Arc<Instance>>,
    /// How many of them had it and gave it back.
    came_back: usize,
    /// What to answer if nobody does.
    last: Option<Answer>,
}

impl Way {
    /// The method that is called.
    pub(super) fn route<'a>(&self, core: &'a GatewayCore) -> Option<&'a MethodRoute> {
        core.routes.method(self.route)
    }

    /// The tunnel that has the call.
    pub(super) fn tunnel(&self) -> Option<&TunnelHandle> {
        self.at.as_ref().map(|instance| &instance.tunnel)
    }
}

/// A request that is answered here.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not gRPC.
    Http(StatusCode),
    /// With a status.
    Answer(Answer),
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// All steps up to the choice of an instance: what to say to it, and how to choose it.
pub(super) fn prepare(
    core: &GatewayCore,
    method: &Method,
    path: &str,
    authority: Text,
    headers: &HeaderMap,
) -> Result<(Way, OpenCall), Refusal> {
    check(method, path, headers)?;
    let (route, to) = find(core, path)?;
    // Before the rest of the head: a key that cannot be read is told as such, not as any other entry.
    let key = read_key(to, headers)?;
    let head = split(to, authority, headers)?;
    let way = Way { route, key, at: None, tried: Vec::new(), came_back: 0, last: None };
    let deadline = head.timeout.map(|left| clock::now() + left.min(LONGEST_TIMEOUT));
    Ok((way, OpenCall { start: head.start, deadline, data: Default::default(), half_close: false }))
}

fn check(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if !metadata::is_grpc(headers) {
        return Err(Refusal::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if method != Method::POST {
        return Err(Refusal::Http(StatusCode::METHOD_NOT_ALLOWED));
    }
    if path.len() > MAX_PATH {
        return Err(Answer::too_large("the path", path.len(), MAX_PATH).into());
    }
    Ok(())
}

/// Step 1: what the client's request says, apart from its bytes.
fn split(route: &MethodRoute, authority: Text, headers: &HeaderMap) -> Result<RequestHead, Answer> {
    metadata::start_from_request(headers, route.path.clone(), authority)
}

/// Step 2: the method that is called.
fn find<'a>(core: &'a GatewayCore, path: &str) -> Result<(RouteId, &'a MethodRoute), Answer> {
    let found = core.routes.find(path).and_then(|id| Some((id, core.routes.method(id)?)));
    found.ok_or_else(|| core.routes.unknown(path))
}

/// Step 3: whom the client means.
fn read_key(route: &MethodRoute, headers: &HeaderMap) -> Result<RoutingKey, Answer> {
    route.key.read(route.service(), headers)
}

/// Step 4: an instance that has not been asked yet.
fn pick(core: &GatewayCore, way: &mut Way) -> Result<Arc<Instance>, Answer> {
    let route = way.route(core).ok_or_else(Answer::refused)?;
    let snapshot = core.registry.snapshot(route.target).ok_or_else(Answer::refused)?;
    let untried = |instance: &Instance| !way.tried.iter().any(|tried| std::ptr::eq(&**tried, instance));
    if way.came_back < MOST_TRIES
        && way.tried.len() < MOST_LOOKS
        && let Some(instance) = snapshot.pick(&way.key, &untried)
    {
        return Ok(instance);
    }
    Err(way.last.take().unwrap_or_else(|| snapshot.nobody(route.service(), route.key.name(), &way.key)))
}

/// Step 5: hands the call to an instance and tells how many more bytes of the request may be sent now; what comes back
/// goes to `sink`.
pub(super) fn exchange(
    core: &GatewayCore,
    way: &mut Way,
    mut call: OpenCall,
    sink: &Arc<impl CallSink + 'static>,
) -> Result<usize, Answer> {
    loop {
        let instance = pick(core, way)?;
        match instance.tunnel.open(call, sink.clone()) {
            Ok(capacity) => {
                instance.took_call();
                way.at = Some(instance);
                return Ok(capacity);
            }
            Err((OpenCallError::TooLarge, _)) => {
                let limit = core.limits.tunnel.max_metadata;
                return Err(Answer::too_large("the request's metadata", limit + 1, limit));
            }
            Err((why, back)) => {
                call = back;
                way.last = Some(not_opened(core, way, why));
                way.tried.push(instance);
            }
        }
    }
}

/// Step 5 again, for a call that came back from the instance that had it.
pub(super) fn exchange_again(
    core: &GatewayCore,
    way: &mut Way,
    call: OpenCall,
    outcome: Outcome,
    sink: &Arc<impl CallSink + 'static>,
) -> Result<usize, Answer> {
    way.last = Some(lost(core, outcome));
    way.tried.extend(way.at.take());
    way.came_back += 1;
    if call.deadline.is_some_and(|deadline| deadline <= clock::now()) {
        return Err(Answer::deadline());
    }
    exchange(core, way, call, sink)
}

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

fn not_opened(core: &GatewayCore, way: &Way, why: OpenCallError) -> Answer {
    match why {
        OpenCallError::NoMoreCalls | OpenCallError::ReplayFull => {
            Answer::too_many_calls(way.route(core).map_or("", MethodRoute::service))
        }
        OpenCallError::Closed => lost(core, Outcome::NotSent),
        _ => lost(core, Outcome::NotStarted).outcome(Outcome::NotSent),
    }
}

/// Bytes of a path: longer than any `/package.Service/Method`, short enough to name in a message.
const MAX_PATH: usize = 512;

/// Instances that have one call in turn (each costs a round trip), and that are looked at (a full one costs little).
const MOST_TRIES: usize = 5;
const MOST_LOOKS: usize = 64;

/// Clients say a very long time when they mean none; more than this is none, and keeps the arithmetic of time safe.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
