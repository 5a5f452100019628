//! The world of one schedule: a seed, a clock, two links, two tunnels and the apps around them.
//! It runs in three parts: wild, then calm with the stalled calls still stalled, then healed to the end.

use std::time::Duration;

use grpcrouter_protocol::{Close, CloseCode, Config, PART_OVERHEAD, Time, Tunnel};

use super::apps;
use super::invariants::{
    all_returns, each_call_ends_once, nobody_waits_for_a_stalled_call, outbox_bounded, windows_hold,
};
use super::link::Link;
use super::model::{self, Call, Plan, Seen};
use super::random::Random;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) gateway: Tunnel,
    pub(crate) instance: Tunnel,
    pub(crate) calls: Vec<Call>,
    pub(crate) seen: Seen,
    /// The stalled consumers take again.
    pub(crate) is_healed: bool,
    pub(crate) is_draining: bool,
    /// One side closed the tunnel, or the stream is gone.
    pub(crate) is_over: bool,
    down: Link,
    up: Link,
}

/// How a schedule ends the tunnel, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    Drains,
    Lost,
    GatewayCloses,
    InstanceCloses,
}

/// Steps within which everything that can end must end.
const PATIENCE: usize = 60_000;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let config = model::config(&mut random);
        // At most some dozen windows, or the smallest parts would take for ever.
        let part = config.max_part as u64;
        let carried = usize::try_from(config.initial_window * part / (part + PART_OVERHEAD)).unwrap();
        let longest = random.size(8, 6_000.min(16 + 40 * carried));
        let calls = random.size(1, 16);
        let call = |index| Call {
            index,
            plan: Plan::random(&mut random, longest),
            id: None,
            gateway: Default::default(),
            instance: Default::default(),
        };
        let calls = (0..calls).map(call).collect();
        let now = Time::default();
        Self {
            gateway: Tunnel::gateway(config.clone(), now),
            instance: Tunnel::instance(config.clone(), now),
            calls,
            seen: Seen::default(),
            is_healed: false,
            is_draining: false,
            is_over: false,
            down: Link::new(&mut random),
            up: Link::new(&mut random),
            now,
            config,
            random,
        }
    }

    pub(crate) fn run(mut self) -> Seen {
        let fate = match self.random.between(0, 9) {
            0..=4 => Fate::Lives,
            5..=6 => Fate::Drains,
            7 => Fate::Lost,
            8 => Fate::GatewayCloses,
            _ => Fate::InstanceCloses,
        };
        for _ in 0..self.random.between(1, 200) {
            self.step();
        }
        self.meet(fate);
        self.until("calls wait for a stalled one", |world| nobody_waits_for_a_stalled_call::holds(&world.calls));
        self.is_healed = true;
        self.until("calls do not end", Self::all_ended);
        each_call_ends_once::at_rest(&self.calls);
        self.until("the tunnel does not come to rest", Self::is_at_rest);
        all_returns::at_rest(&mut self);
        self.seen.late_frames = self.gateway.late_frames() + self.instance.late_frames();
        self.seen
    }

    fn meet(&mut self, fate: Fate) {
        let close = Close { code: CloseCode::Shutdown, reason: "fate".into(), retry_after: Duration::ZERO };
        self.is_draining = fate == Fate::Drains;
        self.is_over = !matches!(fate, Fate::Lives | Fate::Drains);
        match fate {
            Fate::Lives => {}
            Fate::Drains => self.instance.drain(self.now),
            Fate::Lost => {
                self.gateway.lost(self.now);
                self.instance.lost(self.now);
            }
            Fate::GatewayCloses => self.gateway.close(close, self.now),
            Fate::InstanceCloses => self.instance.close(close, self.now),
        }
        self.tell();
    }

    fn until(&mut self, problem: &str, is_done: impl Fn(&Self) -> bool) {
        for _ in 0..PATIENCE {
            self.step();
            if is_done(self) {
                return;
            }
        }
        panic!("{problem}: {self:#?}");
    }

    /// A little time passes, and anyone who can do something may do it.
    fn step(&mut self) {
        self.now = self.now + Duration::from_nanos(self.random.between(0, 4_000_000));
        if self.random.once_in(200) {
            // A quiet spell, long enough for a ping.
            self.now = self.now + Duration::from_secs(3);
        }
        self.read();
        for tunnel in [&mut self.gateway, &mut self.instance] {
            if tunnel.poll_timeout().is_some_and(|at| at <= self.now) {
                tunnel.handle_timeout(self.now).expect("the peer answers");
            }
        }
        self.tell();
        if self.random.once_in(3) {
            apps::open(self);
            self.tell();
        }
        for index in 0..self.calls.len() {
            if self.random.once_in(2) {
                apps::client_step(self, index);
                self.tell();
            }
            if self.random.once_in(2) {
                apps::handler_step(self, index);
                self.tell();
            }
        }
        self.write();
        self.check();
    }

    fn read(&mut self) {
        while let Some(message) = self.down.read(self.now) {
            self.instance.handle_batch(message, self.now).expect("the gateway keeps the protocol");
            self.tell();
            self.check();
        }
        while let Some(message) = self.up.read(self.now) {
            self.gateway.handle_batch(message, self.now).expect("the instance keeps the protocol");
            self.tell();
            self.check();
        }
    }

    fn write(&mut self) {
        for (tunnel, link) in [(&mut self.gateway, &mut self.down), (&mut self.instance, &mut self.up)] {
            // Writers are slow now and then, so that queues fill.
            while link.may_write() && !self.random.once_in(4) {
                let wants = tunnel.wants_transmit();
                let message = tunnel.poll_transmit(self.now);
                assert_eq!(wants, message.is_some(), "wants_transmit tells the truth");
                let Some(message) = message else { break };
                assert!(message.len() <= self.config.max_batch + 5, "a batch of {}", message.len());
                self.seen.trace(&message);
                link.write(message, &mut self.random, self.now);
            }
        }
        self.tell();
    }

    /// Hands all events to the apps.
    fn tell(&mut self) {
        while let Some(event) = self.gateway.poll_event() {
            apps::gateway_event(self, event);
        }
        while let Some(event) = self.instance.poll_event() {
            apps::instance_event(self, event);
        }
    }

    fn check(&self) {
        windows_hold::always(&self.calls, &self.config);
        for tunnel in [&self.gateway, &self.instance] {
            outbox_bounded::always(tunnel, &self.config);
        }
    }

    fn all_ended(&self) -> bool {
        let has_ended = |call: &Call| match call.id {
            Some(_) => !call.gateway.is_open && !call.instance.is_open,
            // A draining or closed tunnel opens no more.
            None => self.is_draining || self.is_over,
        };
        self.calls.iter().all(has_ended)
    }

    fn is_at_rest(&self) -> bool {
        let is_quiet =
            |tunnel: &Tunnel| !tunnel.wants_transmit() && tunnel.open_calls() == 0 && tunnel.unacked_bytes() == 0;
        self.down.is_empty() && self.up.is_empty() && is_quiet(&self.gateway) && is_quiet(&self.instance)
    }
}
