//! The two apps: clients behind the gateway and handlers behind the instance, doing what their plans say.
//! They follow the rules that shells follow: they poll a source only while its call has capacity.

use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{
    CallId, CancelReason, EndReason, Event, Headers, OpenCall, OpenCallError, Outcome, ResponsePart, Start, Trailers,
};

use super::invariants::{bytes_in_order, each_call_ends_once, outcomes_are_true};
use super::life::Life;
use super::model::{Call, Direction, End, Seen, Side, bytes};
use super::world::World;

/// The status of a handler that gave up, to tell its answer from a whole one.
const GAVE_UP: u32 = 10;

const DEADLINE_EXCEEDED: u32 = 4;

// ---- clients

/// Opens the next planned call, if a tunnel takes one: the latest, now and then any.
pub(crate) fn open(world: &mut World) {
    let Some(index) = world.calls.iter().position(|call| call.at.is_none() && call.gateway.end.is_none()) else {
        return;
    };
    let has_gateway = |life: &usize| world.lives[*life].gateway.tunnel.is_some();
    let mut lives = (0..world.lives.len()).rev().filter(has_gateway);
    let Some(life) = lives.next().map(|latest| {
        let skipped = if world.random.once_in(8) { world.random.size(0, 3) } else { 0 };
        lives.nth(skipped.wrapping_sub(1)).unwrap_or(latest)
    }) else {
        return;
    };
    let request = match world.calls[index].back.take() {
        Some(back) => back,
        None => first_request(world, index),
    };
    let now = world.now;
    let World { lives, calls, seen, .. } = world;
    let Life { gateway, instance, .. } = &mut lives[life];
    gateway.expire(now);
    let tunnel = gateway.tunnel.as_mut().expect("chosen for it");
    let call = &mut calls[index];
    call.deadline = request.deadline;
    match tunnel.open(request.clone(), now) {
        Ok(opened) => {
            assert!(gateway.is_attached(), "a call is opened only where it can go");
            let (gave, gave_end) = (request.data.len(), request.half_close);
            call.at = Some((life, opened.id));
            call.opened = now;
            call.may_be_sent = false;
            call.bound = None;
            call.gateway = Side { is_open: true, capacity: opened.capacity, gave, gave_end, ..Side::default() };
            seen.calls += 1;
        }
        Err((error, back)) => {
            assert_eq!(back, request, "the call comes back as it was");
            call.back = Some(back);
            match error {
                OpenCallError::NoMoreCalls => seen.no_more_calls += 1,
                OpenCallError::ReplayFull => seen.replay_full += 1,
                OpenCallError::Draining => assert!(gateway.is_draining || instance.is_draining),
                OpenCallError::Detached => {
                    assert!(gateway.is_detached());
                    seen.detached += 1;
                }
                OpenCallError::Closed => assert!(gateway.is_over || instance.has_closed),
                other => panic!("{other}"),
            }
        }
    }
}

fn first_request(world: &mut World, index: usize) -> OpenCall {
    let plan = &world.calls[index].plan;
    let len = world.random.small_size(plan.request_len);
    let half_close = len == plan.request_len && world.random.once_in(2);
    OpenCall {
        start: Start { path: format!("/sim/{index}").into(), ..Start::default() },
        deadline: plan.timeout.map(|timeout| world.now + timeout),
        data: bytes(index, Direction::Request, 0, len),
        half_close,
    }
}

/// A client says some, takes some, or gives up.
pub(crate) fn client_step(world: &mut World, index: usize) {
    let World { random, calls, lives, now, is_healed, seen, .. } = world;
    let Call { plan, at, gateway: side, .. } = &mut calls[index];
    let Some((life, id)) = at.filter(|_| side.is_open) else { return };
    let Some(gateway) = &mut lives[life].gateway.tunnel else { return };
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
    let World { calls, lives, now, seen, .. } = world;
    for Call { at, gateway: side, .. } in calls.iter_mut().filter(|call| call.gateway.is_open) {
        let Some((life, id)) = *at else { continue };
        let Some(gateway) = &mut lives[life].gateway.tunnel else { continue };
        gateway.cancel(id, CancelReason::ClientGone, *now);
        each_call_ends_once::end(side, End::Cancelled);
        seen.end(End::Cancelled);
    }
}

/// The process of one side is gone, and all its apps with it.
pub(crate) fn die(world: &mut World, side: grpcrouter_protocol::Side) {
    for call in &mut world.calls {
        let side = match side {
            grpcrouter_protocol::Side::Gateway => &mut call.gateway,
            grpcrouter_protocol::Side::Instance => &mut call.instance,
        };
        if side.is_open {
            each_call_ends_once::end(side, End::Killed);
            world.seen.end(End::Killed);
        }
    }
}

// ---- handlers

/// A handler says some, takes some, or ends.
pub(crate) fn handler_step(world: &mut World, index: usize) {
    let World { random, calls, lives, now, is_healed, .. } = world;
    let Call { plan, at, instance: side, .. } = &mut calls[index];
    let Some((life, id)) = at.filter(|_| side.is_open) else { return };
    let Some(instance) = &mut lives[life].instance.tunnel else { return };
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

pub(crate) fn gateway_event(world: &mut World, life: usize, event: Event) {
    let World { calls, seen, lives, random, now, .. } = world;
    let Life { gateway, instance, updates, .. } = &mut lives[life];
    match event {
        Event::Response { call, headers, data, trailers } => {
            let call = find(calls, life, call);
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
            writable(&mut find(calls, life, call).gateway, capacity);
            seen.writable += 1;
        }
        Event::Refused { call, request } => {
            assert!(instance.is_draining, "only a draining instance refuses");
            comes_back(find(calls, life, call), *request, End::Refused, random.once_in(2), seen);
        }
        Event::Ended { call, reason } => {
            let call = find(calls, life, call);
            match reason {
                EndReason::Deadline => {
                    assert!(call.deadline.is_some_and(|at| at <= *now), "before its time");
                    each_call_ends_once::end(&mut call.gateway, End::Deadline);
                    seen.end(End::Deadline);
                }
                EndReason::Lost(outcome) if gateway.is_over || instance.has_closed => match outcome {
                    Outcome::NotSent(request) => {
                        seen.not_sent += 1;
                        comes_back(call, *request, End::Lost, random.once_in(2), seen);
                    }
                    Outcome::MaybeExecuted => {
                        outcomes_are_true::is_in_doubt(call);
                        each_call_ends_once::end(&mut call.gateway, End::Lost);
                        seen.end(End::Lost);
                    }
                },
                reason => panic!("{reason:?}"),
            }
        }
        Event::Draining { .. } => assert!(instance.is_draining),
        Event::Updated(update) => updates.hear(update.version),
        Event::Closed(_) => assert!(instance.has_closed),
        Event::RoundTrip(_) => seen.round_trips += 1,
        // The app drops what it has not consumed of a call that is over.
        Event::Leased { lease, .. } => drop(lease),
        event => panic!("{event:?}"),
    }
}

pub(crate) fn instance_event(world: &mut World, life: usize, event: Event) {
    let World { calls, lives, seen, now, .. } = world;
    let lost = lives[life].may_be_lost(grpcrouter_protocol::Side::Instance);
    let Life { gateway, instance, peers, is_told_to_move, .. } = &mut lives[life];
    match event {
        Event::Started { call: id, start, deadline, data, half_close } => {
            assert!(!instance.is_draining, "a draining instance starts nothing");
            let index: usize = start.path.as_str().strip_prefix("/sim/").unwrap().parse().unwrap();
            let call = &mut calls[index];
            assert_eq!(call.at, Some((life, id)), "the call that the gateway opened");
            outcomes_are_true::starts(call);
            assert_eq!(deadline.is_some(), call.plan.timeout.is_some());
            call.instance.is_open = true;
            // The first answer tells what the capacity is; until then a byte may go.
            call.instance.capacity = 1;
            request(call, data, half_close);
        }
        Event::Request { call, data, half_close } => {
            assert!(!data.is_empty() || half_close, "an event says something");
            request(find(calls, life, call), data, half_close);
        }
        Event::Writable { call, capacity } => {
            writable(&mut find(calls, life, call).instance, capacity);
            seen.writable += 1;
        }
        Event::Ended { call: id, reason } => {
            let call = find(calls, life, id);
            let end = match reason {
                EndReason::Cancelled(_) => End::Cancelled,
                EndReason::Deadline => End::Deadline,
                EndReason::Lost(Outcome::MaybeExecuted) if lost => End::Lost,
                reason => panic!("{reason:?}"),
            };
            each_call_ends_once::end(&mut call.instance, end);
            if end == End::Deadline {
                // What remains is said in whole microseconds.
                let is_time = call.deadline.is_some_and(|at| at <= *now + Duration::from_micros(1));
                assert!(is_time, "before its client gives up");
                let trailers = Some(Trailers { status: DEADLINE_EXCEEDED, ..Trailers::default() });
                let part = ResponsePart { trailers, ..ResponsePart::default() };
                instance.tunnel.as_mut().expect("it spoke").respond(id, part, *now);
            }
        }
        Event::Draining { .. } => {
            assert!(gateway.is_draining);
            *is_told_to_move = true;
        }
        Event::PeersChanged { gateways } => peers.hear(gateways[0].parse().unwrap()),
        Event::Closed(_) => assert!(gateway.has_closed),
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

/// A call that did not start comes back with all that its client gave. It is opened elsewhere, or its client is told.
fn comes_back(call: &mut Call, back: OpenCall, end: End, is_tried_again: bool, seen: &mut Seen) {
    outcomes_are_true::comes_back_whole(call, &back);
    each_call_ends_once::end(&mut call.gateway, end);
    seen.end(end);
    if is_tried_again {
        call.at = None;
        call.back = Some(back);
        call.gateway = Side::default();
        seen.opened_elsewhere += 1;
    }
}

fn find(calls: &mut [Call], life: usize, id: CallId) -> &mut Call {
    calls.iter_mut().find(|call| call.at == Some((life, id))).expect("a call that was opened")
}
