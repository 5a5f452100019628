//! The two apps: clients behind the gateway and handlers behind the instance, doing what their plans say.
//! They follow the rules that shells follow: they poll a source only while its call has capacity.

use bytes::Bytes;
use grpcrouter_protocol::{
    CallId, CancelReason, EndReason, Event, Headers, OpenCall, OpenCallError, Outcome, ResponsePart, Start, Trailers,
};

use super::invariants::{bytes_in_order, each_call_ends_once};
use super::model::{Call, Direction, End, Side, bytes};
use super::world::World;

/// The status of a handler that gave up, to tell its answer from a whole one.
const GAVE_UP: u32 = 10;

const DEADLINE_EXCEEDED: u32 = 4;

// ---- clients

/// Opens the next planned call, if the tunnel takes one.
pub(crate) fn open(world: &mut World) {
    let Some(index) = world.calls.iter().position(|call| call.id.is_none() && call.gateway.end.is_none()) else {
        return;
    };
    let plan = world.calls[index].plan.clone();
    let len = world.random.small_size(plan.request_len);
    let half_close = len == plan.request_len && world.random.once_in(2);
    let request = OpenCall {
        start: Start { path: format!("/sim/{index}").into(), ..Start::default() },
        deadline: plan.timeout.map(|timeout| world.now + timeout),
        data: bytes(index, Direction::Request, 0, len),
        half_close,
    };
    match world.gateway.open(request.clone(), world.now) {
        Ok(opened) => {
            let call = &mut world.calls[index];
            call.id = Some(opened.id);
            call.gateway.is_open = true;
            call.gateway.capacity = opened.capacity;
            call.gateway.gave = len;
            call.gateway.gave_end = half_close;
            world.seen.calls += 1;
        }
        Err((error, back)) => {
            assert_eq!(back, request, "the call comes back as it was");
            match error {
                OpenCallError::NoMoreCalls => world.seen.no_more_calls += 1,
                OpenCallError::ReplayFull => world.seen.replay_full += 1,
                OpenCallError::Draining => assert!(world.is_draining),
                OpenCallError::Closed => assert!(world.is_over),
                other => panic!("{other}"),
            }
        }
    }
}

/// A client says some, takes some, or gives up.
pub(crate) fn client_step(world: &mut World, index: usize) {
    let World { random, calls, gateway, now, is_healed, seen, .. } = world;
    let Call { plan, id, gateway: side, .. } = &mut calls[index];
    let Some(id) = id.filter(|_| side.is_open) else { return };
    if plan.cancel_once_in.is_some_and(|times| random.once_in(times)) {
        gateway.cancel(id, CancelReason::ClientGone, *now);
        each_call_ends_once::end(side, End::Cancelled);
        seen.end(End::Cancelled);
        return;
    }
    let left = plan.request_len - side.gave;
    if left > 0 && side.capacity > 0 {
        let len = random.size(1, left.min(400));
        let half_close = len == left && random.once_in(2);
        side.capacity = gateway.send(id, bytes(index, Direction::Request, side.gave, len), half_close, *now);
        side.gave += len;
        side.gave_end = half_close;
    } else if left == 0 && !side.gave_end {
        gateway.send(id, Bytes::new(), true, *now);
        side.gave_end = true;
    }
    if (!plan.client_stalls || *is_healed)
        && let Some(len) = side.pending.pop_front()
    {
        gateway.consumed(id, len, *now);
    }
}

/// All clients are gone at once.
pub(crate) fn cancel_all(world: &mut World) {
    let World { calls, gateway, now, seen, .. } = world;
    for Call { id, gateway: side, .. } in calls.iter_mut().filter(|call| call.gateway.is_open) {
        gateway.cancel(id.unwrap(), CancelReason::ClientGone, *now);
        each_call_ends_once::end(side, End::Cancelled);
        seen.end(End::Cancelled);
    }
}

// ---- handlers

/// A handler says some, takes some, or ends.
pub(crate) fn handler_step(world: &mut World, index: usize) {
    let World { random, calls, instance, now, is_healed, .. } = world;
    let Call { plan, id, instance: side, .. } = &mut calls[index];
    let Some(id) = id.filter(|_| side.is_open) else { return };
    if (!plan.handler_stalls || *is_healed)
        && let Some(len) = side.pending.pop_front()
    {
        instance.consumed(id, len, *now);
    }
    let gives_up = plan.answers_early && random.once_in(5);
    if plan.answers_at_end && !gives_up && (!side.heard_end || !side.pending.is_empty()) {
        return;
    }
    let mut part = ResponsePart::default();
    if !side.gave_head && random.once_in(2) {
        part.headers = Some(Headers::default());
        side.gave_head = true;
    }
    let left = plan.response_len - side.gave;
    if left > 0 && side.capacity > 0 && side.gave_head && random.once_in(2) {
        part.data = bytes(index, Direction::Response, side.gave, random.size(1, left.min(400)));
        side.gave += part.data.len();
    }
    let is_whole = side.gave == plan.response_len && side.heard_end;
    if (is_whole && random.once_in(2)) || gives_up {
        part.trailers = Some(Trailers { status: if is_whole { 0 } else { GAVE_UP }, ..Trailers::default() });
    }
    if part == ResponsePart::default() {
        return;
    }
    let has_end = part.trailers.is_some();
    side.capacity = instance.respond(id, part, *now);
    if has_end {
        side.gave_end = true;
        each_call_ends_once::end(side, if is_whole { End::Answered } else { End::GaveUp });
    }
}

// ---- what the tunnels tell them

pub(crate) fn gateway_event(world: &mut World, event: Event) {
    let World { calls, seen, is_draining, is_over, .. } = world;
    match event {
        Event::Response { call, headers, data, trailers } => {
            let call = find(calls, call);
            let side = &mut call.gateway;
            each_call_ends_once::event(side);
            assert!(headers.is_none() || !side.heard_head, "headers come once");
            side.heard_head |= headers.is_some();
            assert!(data.is_empty() || side.heard_head, "headers come before data");
            bytes_in_order::arrive(call.index, Direction::Response, side, &data);
            seen.bytes += data.len() as u64;
            if let Some(trailers) = trailers {
                let end = match trailers.status {
                    0 => End::Answered,
                    GAVE_UP => End::GaveUp,
                    DEADLINE_EXCEEDED => End::Deadline,
                    status => panic!("status {status} {}", trailers.message),
                };
                if end != End::Deadline {
                    bytes_in_order::all_arrived(&call.instance, side);
                }
                each_call_ends_once::end(side, end);
                seen.end(end);
            }
        }
        Event::Writable { call, capacity } => {
            writable(&mut find(calls, call).gateway, capacity);
            seen.writable += 1;
        }
        Event::Refused { call, request } => {
            assert!(*is_draining, "only a draining instance refuses");
            let call = find(calls, call);
            comes_back_whole(call, &request);
            each_call_ends_once::end(&mut call.gateway, End::Refused);
            seen.end(End::Refused);
        }
        Event::Ended { call, reason } => {
            let call = find(calls, call);
            let end = match reason {
                EndReason::Deadline => End::Deadline,
                EndReason::Lost(outcome) if *is_over => {
                    if let Outcome::NotSent(request) = outcome {
                        comes_back_whole(call, &request);
                        seen.not_sent += 1;
                    }
                    End::Lost
                }
                reason => panic!("{reason:?}"),
            };
            each_call_ends_once::end(&mut call.gateway, end);
            seen.end(end);
        }
        Event::Draining { .. } => assert!(*is_draining),
        Event::Closed(_) => assert!(*is_over),
        Event::RoundTrip(_) => seen.round_trips += 1,
        // The app drops what it has not consumed of a call that is over.
        Event::Leased { lease, .. } => drop(lease),
        event => panic!("{event:?}"),
    }
}

pub(crate) fn instance_event(world: &mut World, event: Event) {
    let World { calls, instance, seen, now, is_draining, is_over, .. } = world;
    match event {
        Event::Started { call: id, start, deadline, data, half_close } => {
            assert!(!*is_draining, "a draining instance starts nothing");
            let index: usize = start.path.as_str().strip_prefix("/sim/").unwrap().parse().unwrap();
            let call = &mut calls[index];
            assert_eq!(call.id, Some(id), "the call that the gateway opened");
            assert!(!call.instance.is_open && call.instance.end.is_none(), "a call starts once");
            assert_eq!(deadline.is_some(), call.plan.timeout.is_some());
            call.instance.is_open = true;
            // The first answer tells what the capacity is; until then a byte may go.
            call.instance.capacity = 1;
            request(call, data, half_close);
        }
        Event::Request { call, data, half_close } => {
            assert!(!data.is_empty() || half_close, "an event says something");
            request(find(calls, call), data, half_close);
        }
        Event::Writable { call, capacity } => {
            writable(&mut find(calls, call).instance, capacity);
            seen.writable += 1;
        }
        Event::Ended { call: id, reason } => {
            let side = &mut find(calls, id).instance;
            let end = match reason {
                EndReason::Cancelled(_) => End::Cancelled,
                EndReason::Deadline => End::Deadline,
                EndReason::Lost(Outcome::MaybeExecuted) if *is_over => End::Lost,
                reason => panic!("{reason:?}"),
            };
            each_call_ends_once::end(side, end);
            if end == End::Deadline {
                let trailers = Some(Trailers { status: DEADLINE_EXCEEDED, ..Trailers::default() });
                instance.respond(id, ResponsePart { trailers, ..ResponsePart::default() }, *now);
            }
        }
        Event::Closed(_) => assert!(*is_over),
        Event::RoundTrip(_) => seen.round_trips += 1,
        // The app drops what it has not consumed of a call that is over.
        Event::Leased { lease, .. } => drop(lease),
        event => panic!("{event:?}"),
    }
}

fn request(call: &mut Call, data: Bytes, half_close: bool) {
    let side = &mut call.instance;
    each_call_ends_once::event(side);
    bytes_in_order::arrive(call.index, Direction::Request, side, &data);
    if half_close {
        assert!(!side.heard_end, "half-close comes once");
        side.heard_end = true;
        bytes_in_order::all_arrived(&call.gateway, side);
    }
}

fn writable(side: &mut Side, capacity: usize) {
    each_call_ends_once::event(side);
    assert!(side.capacity == 0 && capacity > 0, "capacity comes back to those who have none");
    side.capacity = capacity;
}

/// A call that did not start comes back with all that its client gave.
fn comes_back_whole(call: &Call, back: &OpenCall) {
    assert!(!call.instance.is_open && call.instance.end.is_none(), "it never started");
    assert_eq!(back.start.path.as_str(), format!("/sim/{}", call.index));
    assert_eq!(back.data, bytes(call.index, Direction::Request, 0, call.gateway.gave));
    assert_eq!(back.half_close, call.gateway.gave_end);
    assert_eq!(back.deadline.is_some(), call.plan.timeout.is_some());
}

fn find(calls: &mut [Call], id: CallId) -> &mut Call {
    calls.iter_mut().find(|call| call.id == Some(id)).expect("a call that was opened")
}
