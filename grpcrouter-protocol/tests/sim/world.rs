//! The world of one schedule: a seed, a clock, two links, two tunnels and the apps around them.
//! It runs in three parts: wild, then calm with the stalled calls still stalled, then healed to the end.

use std::time::Duration;

use grpcrouter_protocol::{Close, CloseCode, Config, Time, Tunnel};

use super::apps;
use super::invariants::acks_in_time::Owed;
use super::invariants::{
    all_returns, credit_returns, each_call_ends_once, nobody_waits_for_a_stalled_call, outbox_bounded, windows_hold,
};
use super::link::Link;
use super::model::{self, Call, Plan, Seen, Shape};
use super::random::Random;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    shape: Shape,
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
    /// What the gateway and the instance have to ack.
    owed: [Owed; 2],
    /// Their timers do not run.
    is_asleep: [bool; 2],
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
        let shape = Shape::random(&mut random);
        let config = model::config(&mut random, shape);
        let longest = shape.longest(&mut random, &config);
        let calls = shape.calls(&mut random);
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
            owed: Default::default(),
            is_asleep: Default::default(),
            now,
            shape,
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
        self.is_over = !matches!(fate, Fate::Lives | Fate::Drains);
        match fate {
            Fate::Lives => {}
            Fate::Drains => {
                if self.shape == Shape::Crowd {
                    // Many starts are on their way.
                    (0..self.config.max_open_calls).for_each(|_| apps::open(self));
                    self.write();
                }
                self.is_draining = true;
                self.instance.drain(self.now);
            }
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
        self.run_timers();
        self.tell();
        let opens = if self.shape == Shape::Crowd { self.random.size(0, 8) } else { self.random.once_in(3).into() };
        for _ in 0..opens {
            apps::open(self);
            self.tell();
        }
        if self.shape == Shape::Crowd && self.random.once_in(100) {
            // One connection of many clients dies.
            apps::cancel_all(self);
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
        if self.is_quiet() {
            credit_returns::when_quiet(self);
        }
    }

    fn run_timers(&mut self) {
        let ends = [&mut self.gateway, &mut self.instance].into_iter().zip(&mut self.is_asleep).zip(&self.owed);
        for ((tunnel, is_asleep), owed) in ends {
            // Timers run late now and then.
            *is_asleep ^= self.random.once_in(20);
            if !*is_asleep && tunnel.poll_timeout().is_some_and(|at| at <= self.now) {
                tunnel.handle_timeout(self.now).expect("the peer answers");
                owed.after_timers(tunnel, &self.config, self.now);
            }
        }
    }

    fn read(&mut self) {
        while let Some(message) = self.down.read(self.now) {
            self.owed[1].read(&message, self.now);
            self.instance.handle_batch(message, self.now).expect("the gateway keeps the protocol");
            self.tell();
            self.check();
        }
        while let Some(message) = self.up.read(self.now) {
            self.owed[0].read(&message, self.now);
            self.gateway.handle_batch(message, self.now).expect("the instance keeps the protocol");
            self.tell();
            self.check();
        }
    }

    fn write(&mut self) {
        let [by_gateway, by_instance] = &mut self.owed;
        let ends = [(&mut self.gateway, &mut self.down, by_gateway), (&mut self.instance, &mut self.up, by_instance)];
        for (tunnel, link, owed) in ends {
            // Writers are slow now and then, so that queues fill.
            while link.may_write() && !self.random.once_in(4) {
                let wants = tunnel.wants_transmit();
                let message = tunnel.poll_transmit(self.now);
                assert_eq!(wants, message.is_some(), "wants_transmit tells the truth");
                let Some(message) = message else { break };
                assert!(message.len() <= self.config.max_batch + 5, "a batch of {}", message.len());
                self.seen.trace(&message);
                owed.wrote();
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

    fn check(&mut self) {
        self.seen.grown += u64::from(self.gateway.grown_bytes() + self.instance.grown_bytes() > 0);
        windows_hold::always(self);
        for (tunnel, owed) in [&self.gateway, &self.instance].into_iter().zip(&self.owed) {
            outbox_bounded::always(tunnel, &self.config);
            owed.always(tunnel, &self.config, self.now);
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

    /// Nothing is on its way, and nobody has anything to say.
    fn is_quiet(&self) -> bool {
        let are_empty = self.down.is_empty() && self.up.is_empty();
        are_empty && !self.gateway.wants_transmit() && !self.instance.wants_transmit()
    }

    fn is_at_rest(&self) -> bool {
        let is_done = |tunnel: &Tunnel| tunnel.open_calls() == 0 && tunnel.unacked_bytes() == 0;
        self.is_quiet() && is_done(&self.gateway) && is_done(&self.instance)
    }
}
