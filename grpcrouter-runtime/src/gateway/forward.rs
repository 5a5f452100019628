//! The way of one call through the gateway, in five steps: split the request, find the route, read the routing key, pick
//! an instance, exchange frames. No state is kept here: a call's is in its own place, an instance's in the registry.

use std::{sync::Arc, time::Duration};

use grpcrouter_protocol::{OpenCall, OpenCallError, Text};
use http::{HeaderMap, Method};

use super::{
    GatewayCore,
    intake::{self, Refusal},
    nobody::{Hope, Nobody},
    pass::Origin,
    registry::{Instance, Seat},
    route::{MethodRoute, RouteId},
    strategy::{Head, Read, RoutingKey},
    way::{self, Unplaced, Way},
};
use crate::{
    clock,
    metadata::{self, RequestHead, Vouched},
    status::{Answer, Outcome},
    tunnel::CallSink,
};

/// All steps up to the choice of an instance: what to say to it, and how to choose it, if its caller did not.
pub(super) fn prepare(
    core: &GatewayCore,
    method: &Method,
    path: &str,
    authority: Text,
    headers: &HeaderMap,
    origin: Origin<'_>,
) -> Result<(Way, OpenCall), Refusal> {
    intake::check(method, path, headers).inspect_err(|refusal| refusal.tell(core))?;
    let found = find(core, path);
    let known = found.as_ref().ok().map(|(route, ..)| *route);
    let refused = |answer: &Answer| way::refused(core, known, answer);
    // First: who may not call learns nothing of what could be called.
    let (pass, pinned) = intake::let_in(core, path, headers, origin).inspect_err(refused)?;
    let (route, to, segment) = found.inspect_err(refused)?;
    core.has_room().inspect_err(refused)?;
    // Before the rest of the head: a key that cannot be read is told as such, not as any other entry.
    let place = Head { headers, authority: authority.as_str(), segment };
    let read = || to.key.read(to.service(), &place).inspect_err(refused);
    let key = if pinned.is_some() { Read::Key(RoutingKey::Absent) } else { read()? };
    let head = split(to.path_for(path), authority, headers, &pass.vouched).inspect_err(refused)?;
    let way = Way::new(route, key, pinned, pass.held).of_version(core, headers);
    let deadline = head.timeout.map(|left| clock::now() + left.min(LONGEST_TIMEOUT));
    Ok((way, OpenCall { start: head.start, deadline, data: Default::default(), half_close: false }))
}

/// Step 1: what the client's request says, apart from its bytes.
fn split(path: Text, authority: Text, headers: &HeaderMap, vouched: &Vouched) -> Result<RequestHead, Answer> {
    metadata::start_from_request(headers, path, authority, vouched)
}

/// Step 2: the method that is called, and what stands in the path where a key may be.
fn find<'a, 'b>(core: &'a GatewayCore, path: &'b str) -> Result<(RouteId, &'a MethodRoute, Option<&'b str>), Answer> {
    let found = core.routes.find(path).and_then(|(id, segment)| Some((id, core.routes.method(id)?, segment)));
    found.ok_or_else(|| core.routes.unknown(path))
}

/// Step 3, whom the client means, where the head alone does not tell: reads the key from the bytes of the request that
/// have come. False as long as more has to.
pub(super) fn read_key<'a>(
    core: &GatewayCore,
    way: &mut Way,
    come: impl Iterator<Item = &'a [u8]> + Clone,
    ended: bool,
) -> Result<bool, Answer> {
    let Some(route) = way.route(core) else { return Err(Answer::refused()) };
    let Some(key) = route.key.read_message(route.service(), come, ended)? else { return Ok(false) };
    (way.key, way.unread) = (key, false);
    Ok(true)
}

/// Step 4: an instance that has not been asked yet.
fn pick(core: &GatewayCore, way: &mut Way) -> Result<Arc<Instance>, Nobody> {
    let route = way.route(core).ok_or_else(Answer::refused)?;
    let snapshot = core.registry.snapshot(route.target).ok_or_else(Answer::refused)?;
    let untried = |instance: &Instance| !way.tried.iter().any(|tried| std::ptr::eq(&**tried, instance));
    let picked = || match &way.pinned {
        Some(pinned) => untried(pinned).then(|| pinned.clone()),
        None => snapshot.of_version(way.version.as_deref())?.pick(route.balancing, &way.key, &untried),
    };
    if way.came_back < MOST_TRIES
        && way.tried.len() < MOST_LOOKS
        && let Some(instance) = picked()
    {
        return Ok(instance);
    }
    let is_awaited = match &way.pinned {
        Some(pinned) => pinned.is_awaited(),
        None => snapshot.awaits(route.balancing, &way.key, way.version.as_deref()),
    };
    let hope = match way.came_back < MOST_TRIES {
        true if is_awaited => Hope::Return,
        true if route.waits && way.pinned.is_none() => Hope::Any,
        _ => Hope::Nobody,
    };
    let answer = way.last.take().unwrap_or_else(|| snapshot.nobody(route.service(), route.key.name(), &way.key));
    Err(Nobody { answer, hope })
}

/// Step 5: hands the call to an instance and tells how many more bytes of the request may be sent now; what comes back
/// goes to `sink`.
pub(super) fn exchange(
    core: &GatewayCore,
    way: &mut Way,
    mut call: OpenCall,
    sink: &Arc<impl CallSink + 'static>,
) -> Result<usize, Unplaced> {
    let mut just_lost = None;
    loop {
        let instance = match pick(core, way) {
            Ok(instance) => instance,
            Err(nobody) => {
                let hope = just_lost.unwrap_or(nobody.hope);
                return Err(Nobody { hope, ..nobody }.unplaced(core, way, call));
            }
        };
        if way.owes {
            pay(core, way)?;
        }
        match instance.tunnel.open(call, sink.clone()) {
            Ok(capacity) => {
                core.meters.sent();
                way.at = Some(Seat::new(instance));
                return Ok(capacity);
            }
            Err((OpenCallError::TooLarge, _)) => {
                let limit = core.limits.tunnel.max_metadata;
                return Err(Answer::too_large("the request's metadata", limit + 1, limit).into());
            }
            Err((why, back)) => {
                call = back;
                if matches!(why, OpenCallError::Detached) {
                    just_lost = Some(Hope::Return);
                }
                core.meters.not_taken();
                way.last = Some(way.not_opened(core, why));
                way.tried.push(instance);
            }
        }
    }
}

/// Step 5 again, for a call that came back from the instance that had it.
pub(super) fn exchange_again(
    core: &GatewayCore,
    way: &mut Way,
    mut call: OpenCall,
    outcome: Outcome,
    sink: &Arc<impl CallSink + 'static>,
) -> Result<usize, Unplaced> {
    if outcome != Outcome::MaybeExecuted {
        core.meters.not_taken();
    }
    way.back(core, outcome);
    if call.deadline.is_some_and(|deadline| deadline <= clock::now()) {
        return Err(Answer::deadline(outcome).into());
    }
    if core.registry.parking.is_closed() {
        return Err(way::lost(core, outcome).into());
    }
    metadata::count_attempt(&mut call.start, &core.limits.tunnel);
    exchange(core, way, call, sink)
}

/// One more instance for a call that came back: what its service may have of that is spent a little more.
fn pay(core: &GatewayCore, way: &mut Way) -> Result<(), Answer> {
    let target = way.route(core).ok_or_else(Answer::refused)?.target;
    let paid = core.retries.take(target, clock::now());
    core.meters.retried(paid);
    if !paid {
        return Err(way.last.take().unwrap_or_else(Answer::refused).not_again());
    }
    way.owes = false;
    Ok(())
}

/// Instances that have one call in turn (each costs a round trip), and that are looked at (a full one costs little).
const MOST_TRIES: usize = 5;
const MOST_LOOKS: usize = 64;

/// Clients say a very long time when they mean none; more than this is none, and keeps the arithmetic of time safe.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
