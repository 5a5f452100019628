//! What holds for any input: nothing panics, errors are errors, and nobody makes the other end keep more than the limits
//! say. The fuzz targets and a test of this crate feed it.

use std::time::Duration;

use grpcrouter_protocol::{
    Bytes, CallId, CancelReason, Config, Epoch, Event, Headers, Metadata, OpenCall, PART_OVERHEAD, ResponsePart, Side,
    Start, Time, Trailers, Tunnel, charge, decode_hello, decode_welcome, encode_hello, encode_welcome,
};

/// Any bytes as a message of the wire, at each place where one is read.
pub(crate) fn any_message(input: &[u8]) {
    let message = Bytes::copy_from_slice(input);
    if let Ok(hello) = decode_hello(message.clone()) {
        let again = decode_hello(encode_hello(&hello).slice(PREFIX..)).expect("what was read can be written");
        assert_eq!(again, hello);
    }
    if let Ok(welcome) = decode_welcome(message.clone()) {
        let again = decode_welcome(encode_welcome(&welcome).slice(PREFIX..)).expect("what was read can be written");
        assert_eq!(again, welcome);
    }
    for side in [Side::Gateway, Side::Instance] {
        let mut pair = Pair::new();
        pair.open(&mut Steps(&[1, 0, 0, 9]));
        pair.carry();
        let now = pair.now;
        let _ = pair.end(side).handle_batch(Epoch::FIRST, message.clone(), now);
        pair.check();
    }
}

/// Any steps of two apps and of a way between them that may change what it carries.
pub(crate) fn any_steps(input: &[u8]) {
    let mut pair = Pair::new();
    let mut steps = Steps(input);
    while let Some(step) = steps.next() {
        pair.step(step, &mut steps);
        pair.check();
    }
}

/// Bytes to choose by; none left is zeros.
struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    fn data(&mut self) -> Bytes {
        vec![self.byte(); self.number() % 3_000].into()
    }

    fn metadata(&mut self) -> Metadata {
        let mut builder = Metadata::builder();
        for _ in 0..self.byte() % 4 {
            builder.push(b"key", &vec![self.byte(); usize::from(self.byte())]);
        }
        builder.finish()
    }
}

/// A gateway, an instance, and what is on the way between them.
struct Pair {
    config: Config,
    gateway: Tunnel,
    instance: Tunnel,
    now: Time,
    down: Vec<Bytes>,
    up: Vec<Bytes>,
    /// What came of each call and was not consumed, at the gateway and at the instance.
    waiting: [Vec<(CallId, u64)>; 2],
    /// The last calls that either knows.
    calls: Vec<CallId>,
    /// Bytes were changed, so that either may find fault with the other.
    is_broken: bool,
}

impl Pair {
    fn new() -> Self {
        let config = Config {
            initial_window: 2_000,
            max_window: 8_000,
            window_pool: 10_000,
            max_part: 700,
            max_metadata: 500,
            max_metadata_entries: 3,
            max_trailers: 500,
            max_batch: 3_000,
            max_open_calls: 6,
            replay_limit: 10_000,
            ..Config::default()
        };
        let config = config.checked().expect("limits that can work");
        let now = Time::from_nanos(0);
        Self {
            gateway: Tunnel::gateway(config.clone(), now),
            instance: Tunnel::instance(config.clone(), now),
            config,
            now,
            down: Vec::new(),
            up: Vec::new(),
            waiting: [Vec::new(), Vec::new()],
            calls: Vec::new(),
            is_broken: false,
        }
    }

    fn end(&mut self, side: Side) -> &mut Tunnel {
        match side {
            Side::Gateway => &mut self.gateway,
            Side::Instance => &mut self.instance,
        }
    }

    fn step(&mut self, step: u8, steps: &mut Steps<'_>) {
        self.now = self.now + Duration::from_millis(u64::from(step / 16));
        let (now, call) = (self.now, self.call(steps));
        match step % 16 {
            0 | 1 => self.open(steps),
            2 | 3 => {
                let half_close = steps.byte().is_multiple_of(4);
                self.gateway.send(call, steps.data(), half_close, now);
            }
            4 | 5 => {
                let headers = steps.byte().is_multiple_of(2).then(|| headers(steps));
                let trailers = steps.byte().is_multiple_of(4).then(|| trailers(steps));
                self.instance.respond(call, ResponsePart { headers, data: steps.data(), trailers }, now);
            }
            6 => self.gateway.cancel(call, CancelReason::ClientGone, now),
            7 | 8 => self.consume(usize::from(steps.byte() % 2)),
            9 => {
                // Nobody may count wrong to open a window.
                self.gateway.consumed(call, steps.number(), now);
                self.instance.consumed(call, steps.number(), now);
                self.waiting = [Vec::new(), Vec::new()];
            }
            10 => {
                self.now = self.now + Duration::from_millis(steps.number() as u64);
                let _ = self.gateway.handle_timeout(self.now);
                let _ = self.instance.handle_timeout(self.now);
            }
            11 => self.change(steps),
            12 if steps.byte() == 0 => self.instance.drain(now),
            13 if steps.byte() == 0 => self.gateway.lost(now),
            _ => self.carry(),
        }
    }

    fn call(&self, steps: &mut Steps<'_>) -> CallId {
        let choice = usize::from(steps.byte());
        self.calls.get(choice % self.calls.len().max(1)).copied().unwrap_or(CallId::from_raw(choice as u64))
    }

    fn open(&mut self, steps: &mut Steps<'_>) {
        let start = Start { path: "/a.B/C".into(), metadata: steps.metadata(), ..Start::default() };
        let deadline = (steps.byte() % 4 == 1).then(|| self.now + Duration::from_millis(steps.number() as u64));
        let call = OpenCall { start, deadline, data: steps.data(), half_close: steps.byte() % 2 == 1 };
        if let Ok(opened) = self.gateway.open(call, self.now) {
            self.calls.truncate(8);
            self.calls.insert(0, opened.id);
        }
    }

    /// Everything that can be carried is.
    fn carry(&mut self) {
        for _ in 0..3 {
            while let Some(message) = self.gateway.poll_transmit(Epoch::FIRST, self.now) {
                self.down.push(message);
            }
            while let Some(message) = self.instance.poll_transmit(Epoch::FIRST, self.now) {
                self.up.push(message);
            }
            for message in std::mem::take(&mut self.down) {
                let taken = self.instance.handle_batch(Epoch::FIRST, message.slice(PREFIX..), self.now);
                assert!(taken.is_ok() || self.is_broken, "{taken:?}");
            }
            for message in std::mem::take(&mut self.up) {
                let taken = self.gateway.handle_batch(Epoch::FIRST, message.slice(PREFIX..), self.now);
                assert!(taken.is_ok() || self.is_broken, "{taken:?}");
            }
            self.hear();
        }
    }

    /// Some bytes of the next batches are others.
    fn change(&mut self, steps: &mut Steps<'_>) {
        self.is_broken = true;
        let batches =
            [self.gateway.poll_transmit(Epoch::FIRST, self.now), self.instance.poll_transmit(Epoch::FIRST, self.now)];
        for (batch, way) in batches.into_iter().zip([&mut self.down, &mut self.up]) {
            let Some(batch) = batch else { continue };
            let mut batch = batch.to_vec();
            for _ in 0..steps.byte() % 4 {
                let at = PREFIX + steps.number() % (batch.len() - PREFIX).max(1);
                if let Some(byte) = batch.get_mut(at) {
                    *byte = steps.byte();
                }
            }
            way.push(batch.into());
        }
    }

    fn hear(&mut self) {
        let [at_gateway, at_instance] = &mut self.waiting;
        for (tunnel, waiting) in [(&mut self.gateway, at_gateway), (&mut self.instance, at_instance)] {
            while let Some(event) = tunnel.poll_event() {
                let (call, data) = match event {
                    Event::Started { call, data, .. } => {
                        self.calls.truncate(8);
                        self.calls.insert(0, call);
                        (call, data)
                    }
                    Event::Request { call, data, .. } | Event::Response { call, data, trailers: None, .. } => {
                        (call, data)
                    }
                    Event::Response { call, .. } | Event::Ended { call, .. } | Event::Refused { call, .. } => {
                        waiting.retain(|(of, _)| *of != call);
                        continue;
                    }
                    _ => continue,
                };
                if !data.is_empty() {
                    waiting.push((call, data.len() as u64));
                }
            }
        }
    }

    fn consume(&mut self, end: usize) {
        let [at_gateway, at_instance] = &mut self.waiting;
        let (tunnel, waiting) =
            if end == 0 { (&mut self.gateway, at_gateway) } else { (&mut self.instance, at_instance) };
        for (call, len) in waiting.drain(..) {
            tunnel.consumed(call, len as usize, self.now);
        }
    }

    /// Nobody keeps more than the limits say.
    fn check(&self) {
        let config = &self.config;
        for (tunnel, waiting) in [&self.gateway, &self.instance].into_iter().zip(&self.waiting) {
            assert!(tunnel.open_calls() <= config.max_open_calls as usize);
            assert!(tunnel.unacked_bytes() <= config.replay_limit);
            assert!(tunnel.grown_bytes() <= config.window_pool, "{}", tunnel.grown_bytes());
            let charged = waiting.iter().map(|(_, len)| charge(*len as usize)).sum::<u64>();
            let calls = u64::from(config.max_open_calls);
            // A call that is over may still have its last parts with its app.
            let most = 2 * calls * config.initial_window + config.window_pool + PART_OVERHEAD;
            assert!(charged <= most, "{charged} of {most}");
        }
    }
}

fn headers(steps: &mut Steps<'_>) -> Headers {
    Headers { metadata: steps.metadata(), ..Headers::default() }
}

fn trailers(steps: &mut Steps<'_>) -> Trailers {
    Trailers { status: u32::from(steps.byte() % 20), metadata: steps.metadata(), ..Trailers::default() }
}

/// gRPC's prefix before each message.
const PREFIX: usize = 5;
