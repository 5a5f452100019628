//! A gateway, an instance, and a road between them of some rate and length, in simulated time.
//! The apps at both ends give as much as they may and take what comes at once, unless they are told not to.

use std::collections::VecDeque;
use std::time::Duration;

use grpcrouter_protocol::{
    Bytes, CallId, Config, Epoch, Event, Headers, OpenCall, ResponsePart, Start, Time, Trailers, Tunnel, WindowLease,
    WindowPool, charge,
};

/// An end of the road; as a direction, where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    Gateway,
    Instance,
}

/// One call, by its place in [`Road::calls`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ref(usize);

#[derive(Debug)]
struct Call {
    id: CallId,
    request: Flow,
    response: Flow,
    /// It answers what it is asked as soon as all of it has come.
    is_small: bool,
    is_over: bool,
    /// The batch that carried its start.
    started_in: Option<usize>,
}

/// One direction of a call.
#[derive(Debug, Default)]
struct Flow {
    is_endless: bool,
    /// How much its source may give now.
    capacity: usize,
    arrived: u64,
    /// Parts that came and were not consumed.
    waiting: VecDeque<usize>,
    /// Bytes a second that its consumer takes; `None`: all at once.
    pace: Option<u64>,
    /// What it may take now.
    allowance: u64,
}

#[derive(Debug)]
pub(crate) struct Road {
    now: Time,
    gateway: Tunnel,
    instance: Tunnel,
    calls: Vec<Call>,
    down: Lane,
    up: Lane,
    is_reading: bool,
    batches_out: usize,
    batches_in: usize,
    round_trips: Vec<Duration>,
    leases: Vec<WindowLease>,
    most_grown: u64,
    most_waiting: u64,
}

/// One direction of the road. A batch leaves when those before it have, and arrives after the delay.
#[derive(Debug)]
struct Lane {
    rate: u64,
    delay: Duration,
    free_at: Time,
    on_the_way: VecDeque<(Time, Bytes)>,
}

/// What runs between two looks at the world.
const TICK: Duration = Duration::from_micros(250);

/// What a socket takes before the writer has to wait, in the time that the lane needs for it.
const SOCKET: Duration = Duration::from_micros(500);

impl Lane {
    fn may_write(&self, now: Time) -> bool {
        self.free_at <= now + SOCKET
    }

    fn write(&mut self, message: Bytes, now: Time) {
        let takes = Duration::from_nanos(message.len() as u64 * 1_000_000_000 / self.rate);
        self.free_at = self.free_at.max(now) + takes;
        self.on_the_way.push_back((self.free_at + self.delay, message));
    }

    fn read(&mut self, now: Time) -> Option<Bytes> {
        self.on_the_way.front().filter(|(at, _)| *at <= now)?;
        self.on_the_way.pop_front().map(|(_, message)| message.slice(5..))
    }
}

impl Road {
    pub(crate) fn new(config: Config, rate: u64, delay: Duration) -> Self {
        Self::with_pool(config, rate, delay, &WindowPool::new(u64::MAX))
    }

    pub(crate) fn with_pool(config: Config, rate: u64, delay: Duration, pool: &WindowPool) -> Self {
        let config = config.checked().unwrap();
        let now = Time::from_nanos(0);
        let lane = || Lane { rate, delay, free_at: now, on_the_way: VecDeque::new() };
        Self {
            now,
            gateway: Tunnel::gateway(config.clone(), now).with_pool(pool.clone()),
            instance: Tunnel::instance(config, now),
            calls: Vec::new(),
            down: lane(),
            up: lane(),
            is_reading: true,
            batches_out: 0,
            batches_in: 0,
            round_trips: Vec::new(),
            leases: Vec::new(),
            most_grown: 0,
            most_waiting: 0,
        }
    }

    // ---- what the apps do

    /// A call with an endless request or response.
    pub(crate) fn bulk(&mut self, toward: Toward) -> Ref {
        let call = self.open_quiet();
        let Call { request, response, .. } = &mut self.calls[call.0];
        match toward {
            Toward::Instance => request.is_endless = true,
            Toward::Gateway => response.is_endless = true,
        }
        call
    }

    /// The call opened last answers without end too.
    pub(crate) fn answer_in_bulk(&mut self) -> Ref {
        let last = self.calls.len() - 1;
        self.calls[last].response.is_endless = true;
        Ref(last)
    }

    /// A unary call.
    pub(crate) fn small_call(&mut self) -> Ref {
        self.open("ping", true)
    }

    /// A call that says nothing yet.
    pub(crate) fn open_quiet(&mut self) -> Ref {
        self.open("", false)
    }

    fn open(&mut self, data: &'static str, is_small: bool) -> Ref {
        let start = Start { path: format!("/way/{}", self.calls.len()).into(), ..Start::default() };
        let call = OpenCall { start, data: data.into(), half_close: is_small, ..OpenCall::default() };
        let opened = self.gateway.open(call, self.now).unwrap();
        let request = Flow { capacity: opened.capacity, ..Flow::default() };
        let (response, id) = (Flow::default(), opened.id);
        self.calls.push(Call { id, request, response, is_small, is_over: false, started_in: None });
        Ref(self.calls.len() - 1)
    }

    /// One message of a client.
    pub(crate) fn say(&mut self, call: Ref, data: Bytes) {
        let call = &mut self.calls[call.0];
        call.request.capacity = self.gateway.send(call.id, data, false, self.now);
    }

    /// The handler ends its answer.
    pub(crate) fn finish(&mut self, call: Ref) {
        let call = &mut self.calls[call.0];
        call.response.is_endless = false;
        let trailers = Some(Trailers::default());
        self.instance.respond(call.id, ResponsePart { trailers, ..ResponsePart::default() }, self.now);
    }

    /// From now on what comes is taken at so many bytes a second.
    pub(crate) fn consume_at_most(&mut self, call: Ref, pace: u64) {
        self.calls[call.0].response.pace = Some(pace);
    }

    /// From now on nobody takes anything.
    pub(crate) fn stop_reading(&mut self) {
        self.is_reading = false;
    }

    pub(crate) fn drop_leases(&mut self) {
        self.leases.clear();
    }

    // ---- what was seen

    pub(crate) fn arrived(&self, call: Ref) -> u64 {
        let Call { request, response, .. } = &self.calls[call.0];
        request.arrived + response.arrived
    }

    /// Bytes on the way to the instance, frames and all.
    pub(crate) fn on_the_way(&self) -> u64 {
        self.down.on_the_way.iter().map(|(_, message)| message.len() as u64).sum()
    }

    pub(crate) fn has_started(&self, call: Ref) -> bool {
        self.calls[call.0].started_in.is_some()
    }

    /// Which of the gateway's batches carried the start.
    pub(crate) fn started_in(&self, call: Ref) -> usize {
        self.calls[call.0].started_in.unwrap()
    }

    pub(crate) fn is_over(&self, call: Ref) -> bool {
        self.calls[call.0].is_over
    }

    pub(crate) fn batches_out(&self) -> usize {
        self.batches_out
    }

    pub(crate) fn round_trips(&self) -> &[Duration] {
        &self.round_trips
    }

    /// The most that windows had of the pool at the gateway, and the most that waited there, in charged bytes.
    pub(crate) fn most_grown(&self) -> (u64, u64) {
        (self.most_grown, self.most_waiting)
    }

    /// What came and was not consumed at each end, in charged bytes.
    pub(crate) fn waiting(&self) -> [(Toward, u64); 2] {
        let charged = |flow: &Flow| flow.waiting.iter().map(|&len| charge(len)).sum::<u64>();
        [
            (Toward::Gateway, self.calls.iter().map(|call| charged(&call.response)).sum()),
            (Toward::Instance, self.calls.iter().map(|call| charged(&call.request)).sum()),
        ]
    }

    /// What waits for credit at each end.
    pub(crate) fn queued(&self) -> [(Toward, usize); 2] {
        [(Toward::Gateway, self.gateway.queued_bytes()), (Toward::Instance, self.instance.queued_bytes())]
    }

    // ---- time

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    pub(crate) fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !is_done(self) {
            assert!(self.now < end, "this does not come to pass");
            self.step();
        }
    }

    fn step(&mut self) {
        self.now = self.now + TICK;
        for tunnel in [&mut self.gateway, &mut self.instance] {
            if tunnel.poll_timeout().is_some_and(|at| at <= self.now) {
                tunnel.handle_timeout(self.now).unwrap();
            }
        }
        while let Some(message) = self.down.read(self.now) {
            self.batches_in += 1;
            self.instance.handle_batch(Epoch::FIRST, message, self.now).unwrap();
            self.hear_at_instance();
        }
        while let Some(message) = self.up.read(self.now) {
            self.gateway.handle_batch(Epoch::FIRST, message, self.now).unwrap();
            self.hear_at_gateway();
        }
        self.take();
        self.give();
        self.write();
        self.most_grown = self.most_grown.max(self.gateway.grown_bytes());
        self.most_waiting = self.most_waiting.max(self.waiting()[0].1);
    }

    fn write(&mut self) {
        while self.down.may_write(self.now)
            && let Some(message) = self.gateway.poll_transmit(Epoch::FIRST, self.now)
        {
            self.batches_out += 1;
            self.down.write(message, self.now);
            self.hear_at_gateway();
            self.give();
        }
        while self.up.may_write(self.now)
            && let Some(message) = self.instance.poll_transmit(Epoch::FIRST, self.now)
        {
            self.up.write(message, self.now);
            self.hear_at_instance();
            self.give();
        }
    }

    fn give(&mut self) {
        let chunk = Bytes::from_static(&[7; 64 << 10]);
        for Call { id, request, response, is_over, .. } in &mut self.calls {
            while !*is_over && request.is_endless && request.capacity > 0 {
                let part = chunk.slice(..request.capacity.min(chunk.len()));
                request.capacity = self.gateway.send(*id, part, false, self.now);
            }
            while !*is_over && response.is_endless && response.capacity > 0 {
                let data = chunk.slice(..response.capacity.min(chunk.len()));
                response.capacity = self.instance.respond(*id, ResponsePart { data, ..Default::default() }, self.now);
            }
        }
    }

    fn take(&mut self) {
        if !self.is_reading {
            return;
        }
        let tick = TICK.as_micros() as u64;
        for Call { id, request, response, .. } in &mut self.calls {
            for (flow, tunnel) in [(request, &mut self.instance), (response, &mut self.gateway)] {
                if let Some(pace) = flow.pace {
                    flow.allowance += pace * tick / 1_000_000;
                }
                while let Some(&len) = flow.waiting.front() {
                    if flow.pace.is_some() {
                        let Some(left) = flow.allowance.checked_sub(len as u64) else { break };
                        flow.allowance = left;
                    }
                    flow.waiting.pop_front();
                    tunnel.consumed(*id, len, self.now);
                }
            }
        }
    }

    fn hear_at_instance(&mut self) {
        while let Some(event) = self.instance.poll_event() {
            match event {
                Event::Started { start, data, .. } => {
                    let index: usize = start.path.as_str().strip_prefix("/way/").unwrap().parse().unwrap();
                    let call = &mut self.calls[index];
                    call.request.hear(&data);
                    call.started_in = Some(self.batches_in);
                    let mut part = ResponsePart { headers: Some(Headers::default()), ..ResponsePart::default() };
                    if call.is_small {
                        part.trailers = Some(Trailers::default());
                    }
                    call.response.capacity = self.instance.respond(call.id, part, self.now);
                }
                Event::Request { call, data, .. } => self.call(call).request.hear(&data),
                Event::Writable { call, capacity } => self.call(call).response.capacity = capacity,
                Event::RoundTrip(trip) => self.round_trips.push(trip),
                event => panic!("{event:?}"),
            }
        }
    }

    fn hear_at_gateway(&mut self) {
        while let Some(event) = self.gateway.poll_event() {
            match event {
                Event::Leased { lease, .. } => self.leases.push(lease),
                Event::Response { call, data, trailers, .. } => {
                    let call = self.call(call);
                    call.response.hear(&data);
                    call.is_over |= trailers.is_some();
                }
                Event::Writable { call, capacity } => self.call(call).request.capacity = capacity,
                Event::RoundTrip(trip) => self.round_trips.push(trip),
                event => panic!("{event:?}"),
            }
        }
    }

    fn call(&mut self, id: CallId) -> &mut Call {
        self.calls.iter_mut().find(|call| call.id == id).unwrap()
    }
}

impl Flow {
    fn hear(&mut self, data: &Bytes) {
        if !data.is_empty() {
            self.arrived += data.len() as u64;
            self.waiting.push_back(data.len());
        }
    }
}
