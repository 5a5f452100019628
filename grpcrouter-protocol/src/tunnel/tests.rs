//! One end or two ends of a tunnel, step by step: given, when, exactly this comes out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panic")]

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::codec::{Batch, CallFrame, Frame, ResponseFrame, read_frame};
use crate::frame::{CloseCode, Health, Metadata};
use crate::id::Seq;
use crate::wire::{self, gateway_frame, instance_frame};

mod calls;
mod ends;
mod peer;
mod streams;

const T0: Time = Time::from_nanos(0);
const PREFIX: usize = 5;

fn after(millis: u64) -> Time {
    T0 + Duration::from_millis(millis)
}

/// Windows of five parts that do not grow.
fn small() -> Config {
    Config { initial_window: 1_000, max_window: 0, max_part: 200, max_open_calls: 4, ..Config::default() }
        .checked()
        .unwrap()
}

/// Two ends and nothing between them.
struct Pair {
    gateway: Tunnel,
    instance: Tunnel,
}

impl Pair {
    fn new() -> Self {
        Self::with(small())
    }

    fn with(config: Config) -> Self {
        Self { gateway: Tunnel::gateway(config.clone(), T0), instance: Tunnel::instance(config, T0) }
    }

    /// Carries what the gateway has to say; gives back the events that it makes at the instance.
    fn down(&mut self, now: Time) -> Vec<Event> {
        let at = self.gateway.epoch();
        while let Some(message) = self.gateway.poll_transmit(at, now) {
            self.instance.handle_batch(at, message.slice(PREFIX..), now).unwrap();
        }
        events(&mut self.instance)
    }

    /// Carries what the instance has to say; gives back the events that it makes at the gateway.
    fn up(&mut self, now: Time) -> Vec<Event> {
        let at = self.instance.epoch();
        while let Some(message) = self.instance.poll_transmit(at, now) {
            self.gateway.handle_batch(at, message.slice(PREFIX..), now).unwrap();
        }
        events(&mut self.gateway)
    }

    /// A call that both ends know.
    fn open(&mut self) -> CallId {
        let id = self.gateway.open(request(), T0).unwrap().id;
        let started = self.down(T0);
        assert!(matches!(started[..], [Event::Started { call, .. }] if call == id), "{started:?}");
        id
    }

    /// Everything that can be carried is, and every timer has run.
    fn settle(&mut self, now: Time) -> (Vec<Event>, Vec<Event>) {
        let (mut at_gateway, mut at_instance) = (Vec::new(), Vec::new());
        for step in 0..4 {
            let now = now + small().ack_delay * step;
            self.gateway.handle_timeout(now).unwrap();
            self.instance.handle_timeout(now).unwrap();
            at_instance.extend(self.down(now));
            at_gateway.extend(self.up(now));
        }
        (at_gateway, at_instance)
    }
}

fn events(tunnel: &mut Tunnel) -> Vec<Event> {
    std::iter::from_fn(|| tunnel.poll_event()).collect()
}

fn request() -> OpenCall {
    OpenCall { start: Start { path: "/p.S/M".into(), ..Start::default() }, ..OpenCall::default() }
}

fn unary(data: &'static str) -> OpenCall {
    OpenCall { data: data.into(), half_close: true, ..request() }
}

fn ok() -> Trailers {
    Trailers::default()
}

fn answer(data: &'static str) -> ResponsePart {
    ResponsePart { headers: Some(Headers::default()), data: data.into(), trailers: Some(ok()) }
}

fn part(len: usize) -> ResponsePart {
    ResponsePart { data: Bytes::from(vec![7; len]), ..ResponsePart::default() }
}

fn data_of(events: &[Event]) -> usize {
    let len = |event: &Event| match event {
        Event::Started { data, .. } | Event::Request { data, .. } | Event::Response { data, .. } => data.len(),
        _ => 0,
    };
    events.iter().map(len).sum()
}

fn frames(from: Side, message: &Bytes) -> Vec<Frame> {
    let batch = Batch::read(message.slice(PREFIX..)).unwrap();
    batch.frames().map(|frame| read_frame(from, batch.message(), frame).unwrap()).collect()
}

fn head(message: &Bytes) -> (u64, u64) {
    let batch = Batch::read(message.slice(PREFIX..)).unwrap();
    (batch.seq.get(), batch.ack.get())
}

/// A batch from a gateway that says whatever it likes.
fn from_gateway(seq: u64, calls: Vec<wire::RpcCall>) -> Bytes {
    let frames =
        calls.into_iter().map(|call| wire::GatewayFrame { kind: Some(gateway_frame::Kind::Call(call)) }).collect();
    wire::RegisterResponse { seq, ack: 0, frames }.encode_to_vec().into()
}

/// A batch from an instance that says whatever it likes.
fn from_instance(seq: u64, responses: Vec<wire::RpcResponse>) -> Bytes {
    let frames = responses
        .into_iter()
        .map(|response| wire::InstanceFrame { kind: Some(instance_frame::Kind::Response(response)) })
        .collect();
    wire::RegisterRequest { seq, ack: 0, frames }.encode_to_vec().into()
}

fn wire_start(id: CallId) -> wire::RpcCall {
    let start = wire::Start { path: "/p.S/M".into(), max_data: 1_000, ..Default::default() };
    wire::RpcCall { id: id.get(), start: Some(start), ..Default::default() }
}

fn wire_data(id: CallId, len: usize) -> wire::RpcCall {
    wire::RpcCall { id: id.get(), data: vec![7; len].into(), ..Default::default() }
}
