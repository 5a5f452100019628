//! The steps of a tiny world: each is one thing that one party may do next. What a step does depends on nothing but the
//! state that it is taken in.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{
    CancelReason, Config, Headers, OpenCall, RejectReason, ResponsePart, Side, Start, Time, Trailers,
};

use crate::sim::invariants::each_call_ends_once;
use crate::sim::life::Life;
use crate::sim::model::{self, Call, Direction, End, Plan, Seen, Shape};
use crate::sim::random::Random;
use crate::sim::road::{Ask, Road, Seat};
use crate::sim::shell;
use crate::sim::world::{SIDES, World};

/// How much may happen in all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) calls: usize,
    /// Bytes that a call says each way, one at a time; a window holds one. With one byte an answer is one part.
    pub(crate) bytes: usize,
    pub(crate) cuts: u8,
    pub(crate) dials: u8,
    pub(crate) refusals: u8,
    pub(crate) expiries: u8,
    pub(crate) cancels: u8,
    pub(crate) drains: u8,
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A client, and a handler.
    Open,
    Say(u8),
    Cancel(u8),
    Answer(u8),
    Finish(u8),
    /// An app takes what was delivered to it.
    Consume(Side, u8),
    Drain,
    /// One batch goes out, and one message comes in.
    Write(Side),
    Read(Side, u8),
    /// A connection dies, and one end learns of it; what it has not read is gone.
    Cut(u8),
    Notice(Side, u8),
    /// The instance asks for its tunnel on a new stream; it waits no longer; the gateway lets nobody in.
    Dial,
    GiveUp(u8),
    Refuse(u8),
    /// Acks are due.
    Timers(Side),
    /// The resume window runs out.
    Expire(Side),
}

/// A world and what may still happen in it.
#[derive(Debug)]
pub(crate) struct Tiny {
    pub(crate) world: World,
    left: Bounds,
}

/// Later than anything is on its way.
const LATER: Duration = Duration::from_secs(1);

impl Tiny {
    /// A tunnel that has just begun at both ends.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let config = Config {
            initial_window: 64,
            max_window: 0,
            window_pool: 0,
            max_part: 1,
            max_metadata: 16,
            max_metadata_entries: 1,
            max_trailers: 16,
            max_batch: 320,
            max_open_calls: bounds.calls as u32,
            replay_limit: 2 * (320 + 64),
            ack_delay: Duration::ZERO,
            ..Config::default()
        };
        let plan = Plan {
            request_len: bounds.bytes,
            response_len: bounds.bytes,
            answers_at_end: true,
            answers_early: false,
            client_stalls: false,
            handler_stalls: false,
            cancel_once_in: None,
            timeout: None,
        };
        let mut world = World {
            random: Random::new(0),
            shape: Shape::Narrow,
            config: config.checked().unwrap(),
            now: Time::default(),
            lives: Vec::new(),
            roads: Vec::new(),
            calls: (0..bounds.calls).map(|index| Call::new(index, plan.clone())).collect(),
            seen: Seen::default(),
            incarnation: 1,
            tokens: 0,
            redials: 1,
            faults: None,
            is_gentle: false,
            nonsense: false,
            lies: false,
            is_calm: true,
            is_healed: false,
        };
        shell::dial_new(&mut world);
        for side in SIDES {
            let hello = world.roads[0].link_to(side).read(world.now + LATER).unwrap();
            world.take(side, 0, hello);
        }
        Self { world, left: bounds }
    }

    /// All that can happen next.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let Self { world, left } = self;
        let Life { gateway, instance, .. } = &world.lives[0];
        let mut steps = Vec::new();
        if world.calls.iter().any(|call| call.at.is_none() && call.gateway.end.is_none()) && gateway.is_attached() {
            steps.push(Step::Open);
        }
        for (number, call) in (0..).zip(&world.calls) {
            if call.gateway.is_open {
                if call.gateway.gave < call.plan.request_len && call.gateway.capacity > 0 {
                    steps.push(Step::Say(number));
                }
                if left.cancels > 0 {
                    steps.push(Step::Cancel(number));
                }
            }
            if call.instance.is_open {
                let is_unary = call.plan.response_len == 1;
                let is_answered = call.instance.gave == call.plan.response_len;
                if !is_unary && !is_answered && call.instance.capacity > 0 {
                    steps.push(Step::Answer(number));
                }
                if call.instance.heard_end && (is_unary || is_answered) {
                    steps.push(Step::Finish(number));
                }
            }
            for (side, view) in SIDES.into_iter().zip([&call.gateway, &call.instance]) {
                if view.is_open && !view.pending.is_empty() && call.plan.request_len > 1 {
                    steps.push(Step::Consume(side, number));
                }
            }
        }
        if left.drains > 0 && instance.lives() {
            steps.push(Step::Drain);
        }
        for (side, half) in SIDES.into_iter().zip([gateway, instance]) {
            if !half.has_nothing_to_say() && half.tunnel.is_some() {
                steps.push(Step::Write(side));
            }
            let Some(tunnel) = half.tunnel.as_ref().filter(|_| half.lives()) else { continue };
            if half.is_attached() && tunnel.poll_timeout().is_some_and(|at| at <= world.now) {
                steps.push(Step::Timers(side));
            }
            if left.expiries > 0 && half.is_detached() {
                steps.push(Step::Expire(side));
            }
        }
        let is_asking = shell::is_asking(world, Some(0));
        if left.dials > 0 && instance.lives() && !is_asking {
            steps.push(Step::Dial);
        }
        for (number, road) in (0..).zip(&world.roads) {
            if left.cuts > 0 && road.is_alive() && !road.is_forgotten() {
                steps.push(Step::Cut(number));
            }
            for side in SIDES {
                let (seat, link) = match side {
                    Side::Gateway => (road.at_gateway, &road.up),
                    Side::Instance => (road.at_instance, &road.down),
                };
                if seat == Seat::Gone {
                    continue;
                }
                let half = world.lives[0].half(side);
                let is_frozen = matches!(seat, Seat::Carries(_, epoch) if half.is_frozen() && half.epoch == epoch);
                if !link.is_empty() && !is_frozen {
                    steps.push(Step::Read(side, number));
                }
                if link.is_dead() {
                    steps.push(Step::Notice(side, number));
                }
            }
            if road.at_gateway == Seat::Listens && !road.up.is_empty() && left.refusals > 0 {
                steps.push(Step::Refuse(number));
            }
            if matches!(road.at_instance, Seat::Asks(_)) && left.dials > 0 {
                steps.push(Step::GiveUp(number));
            }
        }
        steps
    }

    /// Takes one step, and looks whether all still holds.
    pub(crate) fn take(&mut self, step: Step) {
        let Self { world, left } = self;
        world.random = Random::new(0);
        match step {
            Step::Open => open(world),
            Step::Say(call) => say(world, usize::from(call)),
            Step::Cancel(call) => {
                left.cancels -= 1;
                cancel(world, usize::from(call));
            }
            Step::Answer(call) => respond(world, usize::from(call), false),
            Step::Finish(call) => respond(world, usize::from(call), true),
            Step::Consume(side, call) => consume(world, side, usize::from(call)),
            Step::Drain => {
                left.drains -= 1;
                let half = &mut world.lives[0].instance;
                half.is_draining = true;
                half.tunnel.as_mut().unwrap().drain(world.now);
            }
            Step::Write(side) => write(world, side),
            Step::Read(side, road) => {
                let road = usize::from(road);
                if let Some(message) = world.roads[road].link_to(side).read(world.now + LATER) {
                    world.take(side, road, message);
                }
            }
            Step::Cut(road) => {
                left.cuts -= 1;
                world.roads[usize::from(road)].up.close();
                world.roads[usize::from(road)].down.close();
            }
            Step::Notice(side, road) => world.notice(side, usize::from(road)),
            Step::Dial => {
                left.dials -= 1;
                shell::dial_again(world, 0);
            }
            Step::GiveUp(road) => give_up(world, usize::from(road)),
            Step::Refuse(road) => {
                left.refusals -= 1;
                shell::reject(world, usize::from(road), RejectReason::ResourceExhausted);
            }
            Step::Timers(side) => {
                assert!(world.lives[0].half_mut(side).run_timers(&world.config, world.now), "no peer was silent");
            }
            Step::Expire(side) => {
                left.expiries -= 1;
                let half = world.lives[0].half_mut(side);
                let at = half.expires_at().unwrap();
                half.run_timers(&world.config, at);
            }
        }
        world.tell();
        world.check();
    }

    /// The same for two states from which the same can happen.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = Digest(0xcbf2_9ce4_8422_2325);
        let Self { world, left } = self;
        for Life { gateway, instance, token, good, .. } in &world.lives {
            for half in [gateway, instance] {
                // How many frames passed says nothing of what comes.
                let text = format!("{half:?}");
                let (before, after) = text.split_once("totals: Totals {").unwrap_or((&text, "}"));
                write!(digest, "{before}{}", after.split_once('}').unwrap().1).unwrap();
            }
            write!(digest, "{token:?} {good:?}").unwrap();
        }
        write!(digest, "{:?} {left:?}", world.calls).unwrap();
        for Road { up, down, at_gateway, at_instance, .. } in &world.roads {
            write!(digest, "{at_gateway:?} {at_instance:?} {} {}", up.is_dead(), down.is_dead()).unwrap();
            write!(digest, "{:?} {:?}", up.in_flight(), down.in_flight()).unwrap();
        }
        digest.0
    }
}

struct Digest(u64);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = u128::from(self.0 ^ u64::from_le_bytes(word)) * 0x9e37_79b9_7f4a_7c15;
            self.0 = (mixed as u64) ^ ((mixed >> 64) as u64);
        }
        Ok(())
    }
}

fn open(world: &mut World) {
    let World { lives, calls, now, .. } = world;
    let call = calls.iter_mut().find(|call| call.at.is_none() && call.gateway.end.is_none()).unwrap();
    let request = call.back.take().unwrap_or_else(|| OpenCall {
        start: Start { path: format!("/sim/{}", call.index).into(), ..Start::default() },
        data: model::bytes(call.index, Direction::Request, 0, 1),
        half_close: call.plan.request_len == 1,
        ..OpenCall::default()
    });
    let (gave, gave_end) = (request.data.len(), request.half_close);
    match lives[0].gateway.tunnel.as_mut().unwrap().open(request, *now) {
        Ok(opened) => {
            call.at = Some((0, opened.id));
            call.may_be_sent = false;
            let capacity = opened.capacity;
            call.gateway = model::Side { is_open: true, capacity, gave, gave_end, ..Default::default() };
        }
        Err((_, request)) => call.back = Some(request),
    }
}

fn say(world: &mut World, index: usize) {
    let World { lives, calls, now, .. } = world;
    let Call { plan, at, gateway: side, .. } = &mut calls[index];
    let tunnel = lives[0].gateway.tunnel.as_mut().unwrap();
    let data = model::bytes(index, Direction::Request, side.gave, 1);
    side.gave += 1;
    side.gave_end = side.gave == plan.request_len;
    side.capacity = tunnel.send(at.unwrap().1, data, side.gave_end, *now);
}

fn cancel(world: &mut World, index: usize) {
    let World { lives, calls, now, .. } = world;
    let call = &mut calls[index];
    lives[0].gateway.tunnel.as_mut().unwrap().cancel(call.at.unwrap().1, CancelReason::ClientGone, *now);
    each_call_ends_once::end(&mut call.gateway, End::Cancelled);
}

fn respond(world: &mut World, index: usize, is_end: bool) {
    let World { lives, calls, now, .. } = world;
    let Call { at, plan, instance: side, .. } = &mut calls[index];
    let headers = (!side.gave_head).then(Headers::default);
    let has_data = side.gave < plan.response_len;
    let data = if has_data { model::bytes(index, Direction::Response, side.gave, 1) } else { Bytes::new() };
    let trailers = is_end.then(Trailers::default);
    side.gave_head = true;
    side.gave += data.len();
    let part = ResponsePart { headers, data, trailers };
    side.capacity = lives[0].instance.tunnel.as_mut().unwrap().respond(at.unwrap().1, part, *now);
    if is_end {
        side.gave_end = true;
        each_call_ends_once::end(side, End::Answered);
    }
}

fn consume(world: &mut World, side: Side, index: usize) {
    let World { lives, calls, now, .. } = world;
    let call = &mut calls[index];
    let view = match side {
        Side::Gateway => &mut call.gateway,
        Side::Instance => &mut call.instance,
    };
    let len = view.pending.pop_front().unwrap();
    lives[0].half_mut(side).tunnel.as_mut().unwrap().consumed(call.at.unwrap().1, len, *now);
}

fn write(world: &mut World, side: Side) {
    let World { lives, roads, random, calls, now, .. } = world;
    let half = lives[0].half_mut(side);
    let message = half.tunnel.as_mut().unwrap().poll_transmit(half.epoch, *now).expect("it wants to");
    half.numbers.send(&message[5..]);
    half.owed.wrote();
    let seat = Seat::Carries(0, half.epoch);
    if let Some(road) = roads.iter_mut().find(|road| road.seat(side) == seat) {
        road.link_from(side).write(message, random, *now);
    }
    if side == Side::Gateway {
        calls.iter_mut().for_each(|call| call.may_be_sent = true);
    }
}

fn give_up(world: &mut World, road: usize) {
    if let Seat::Asks(ask @ Ask { .. }) = world.roads[road].at_instance {
        shell::give_up(world, road, ask);
    }
}
