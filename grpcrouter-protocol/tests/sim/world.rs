//! The world of one schedule: a seed, a clock, tunnels with the connections and apps around them, and what goes wrong.
//! It runs in three parts: wild, then without new faults but with the stalled calls still stalled, then healed to the end.

use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{Config, Epoch, Side, Time};

use super::adversary;
use super::apps;
use super::invariants::{
    all_returns, credit_returns, deadlines_run, each_call_ends_once, fence_holds, nobody_waits_for_a_stalled_call,
    numbers_rise, outbox_bounded, over_for_a_reason, windows_hold,
};
use super::life::Life;
use super::model::{self, Call, Plan, Seen, Shape};
use super::random::Random;
use super::road::{Road, Seat};
use super::shell;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) shape: Shape,
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) lives: Vec<Life>,
    pub(crate) roads: Vec<Road>,
    pub(crate) calls: Vec<Call>,
    pub(crate) seen: Seen,
    /// Which life of the instance's process this is.
    pub(crate) incarnation: u8,
    /// Tokens given so far.
    pub(crate) tokens: u64,
    /// An instance without a stream dials with this chance, one in so many steps.
    pub(crate) redials: u64,
    /// Something goes wrong with this chance, one in so many steps.
    pub(crate) faults: Option<u64>,
    /// What goes wrong are connections, and nothing worse: most tunnels live on and on.
    pub(crate) is_gentle: bool,
    /// The next numbered batch that is read comes twice, or an ack of the future after it.
    pub(crate) nonsense: bool,
    /// The next answer to a resume is a lie.
    pub(crate) lies: bool,
    /// Nothing goes wrong any more.
    pub(crate) is_calm: bool,
    /// The stalled consumers take again.
    pub(crate) is_healed: bool,
}

pub(crate) const SIDES: [Side; 2] = [Side::Gateway, Side::Instance];

/// Steps within which everything that can end must end.
const PATIENCE: usize = 60_000;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let shape = Shape::random(&mut random);
        let config = model::config(&mut random, shape);
        let longest = shape.longest(&mut random, &config);
        let calls = shape.calls(&mut random);
        let calls = (0..calls).map(|index| Call::new(index, Plan::random(&mut random, longest))).collect();
        Self {
            lives: Vec::new(),
            roads: Vec::new(),
            calls,
            seen: Seen::default(),
            incarnation: 1,
            tokens: 0,
            redials: random.between(1, 20),
            faults: (!random.once_in(4)).then(|| random.between(2, 50)),
            is_gentle: random.once_in(3),
            nonsense: false,
            lies: false,
            is_calm: false,
            is_healed: false,
            now: Time::default(),
            shape,
            config,
            random,
        }
    }

    pub(crate) fn run(mut self) -> Seen {
        for _ in 0..self.random.between(1, 250) {
            if let Some(faults) = self.faults
                && self.random.once_in(faults)
            {
                adversary::strike(&mut self);
                self.tell();
            }
            self.step();
        }
        self.meet_fate();
        self.settle();
        self.seen
    }

    /// Nothing goes wrong any more: all that can be delivered is, every call ends, and all returns to where it was.
    pub(crate) fn settle(&mut self) {
        self.is_calm = true;
        self.nonsense = false;
        self.lies = false;
        self.until("calls wait for a stalled one", |world| nobody_waits_for_a_stalled_call::holds(&world.calls));
        self.is_healed = true;
        self.until("calls do not end", Self::all_ended);
        each_call_ends_once::at_rest(&self.calls);
        self.until("the tunnels do not come to rest", Self::is_at_rest);
        all_returns::at_rest(self);
        let tunnels = self.lives.iter().flat_map(|life| [&life.gateway.tunnel, &life.instance.tunnel]).flatten();
        self.seen.late_frames = tunnels.map(|tunnel| tunnel.late_frames()).sum();
    }

    /// Half of all schedules end a tunnel in one way or another, whatever else goes wrong.
    fn meet_fate(&mut self) {
        match self.random.between(0, 9) {
            0..=6 => {}
            7..=8 => {
                if self.shape == Shape::Crowd {
                    // Many starts are on their way.
                    (0..self.config.max_open_calls).for_each(|_| apps::open(self));
                    self.write();
                }
                adversary::drain(self);
            }
            _ => adversary::close(self),
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
        if self.random.once_in(if self.is_calm { 20 } else { 100 }) {
            self.pass_quiet_time();
        }
        self.notice_what_ended();
        shell::run_out_of_patience(self);
        shell::dial(self);
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
        credit_returns::when_quiet(self);
        deadlines_run::when_all_is_heard(self);
    }

    /// Nothing happens until the next timer, or for long enough for a ping.
    fn pass_quiet_time(&mut self) {
        let tunnels = self.lives.iter().flat_map(|life| [&life.gateway, &life.instance]);
        let timers = tunnels.filter_map(|half| half.tunnel.as_ref()?.poll_timeout());
        let arrivals = self.roads.iter().flat_map(|road| [road.up.next_at(), road.down.next_at()]).flatten();
        let asks = self.roads.iter().filter_map(shell::patience_ends_at);
        if let Some(next) = timers.chain(arrivals).chain(asks).min()
            && next > self.now
        {
            self.now = next;
        }
    }

    fn run_timers(&mut self) {
        for life in 0..self.lives.len() {
            for side in SIDES {
                let half = self.lives[life].half_mut(side);
                // Timers run late now and then.
                half.is_asleep ^= self.random.once_in(20);
                let next = half.tunnel.as_ref().and_then(|tunnel| tunnel.poll_timeout());
                if half.is_asleep || next.is_none_or(|at| at > self.now) {
                    continue;
                }
                let was_over = half.is_over;
                let is_alive = half.run_timers(&self.config, self.now);
                self.seen.expired += u64::from(half.is_over && !was_over);
                if !is_alive {
                    let epoch = half.epoch;
                    self.seen.silent += 1;
                    self.leave(side, life, epoch);
                }
                self.tell();
                deadlines_run::after_timers(&self.calls, life, side, self.now);
            }
        }
    }

    /// The shell gives a stream up that is dead.
    fn leave(&mut self, side: Side, life: usize, epoch: Epoch) {
        let seat = Seat::Carries(life, epoch);
        if let Some(road) = self.roads.iter().position(|road| road.seat(side) == seat) {
            self.notice(side, road);
        } else {
            self.lives[life].half_mut(side).detach(epoch, self.now);
        }
    }

    /// One end learns that its connection is gone.
    pub(crate) fn notice(&mut self, side: Side, road: usize) {
        match self.roads[road].seat(side) {
            Seat::Asks(ask) => shell::give_up(self, road, ask),
            Seat::Carries(life, epoch) => {
                self.roads[road].leave(side);
                self.lives[life].half_mut(side).detach(epoch, self.now);
            }
            Seat::Listens | Seat::Gone => self.roads[road].leave(side),
        }
        self.tell();
    }

    /// Ends that were told learn of it, some late. Shells drop streams that carry nothing any more, some late.
    fn notice_what_ended(&mut self) {
        for road in 0..self.roads.len() {
            for side in SIDES {
                if self.roads[road].has_ended_for(side) && self.random.once_in(4) {
                    self.notice(side, road);
                }
                if let Seat::Carries(life, epoch) = self.roads[road].seat(side) {
                    let half = self.lives[life].half(side);
                    let is_flushed = half.tunnel.as_ref().is_none_or(|tunnel| tunnel.is_closed());
                    if (is_flushed || !half.is_carried_by(epoch)) && self.random.once_in(4) {
                        self.notice(side, road);
                    }
                }
            }
        }
        self.roads.retain(|road| !road.is_forgotten());
    }

    pub(crate) fn read(&mut self) {
        for road in 0..self.roads.len() {
            for side in SIDES {
                while self.may_read(side, road)
                    && let Some(message) = self.roads[road].link_to(side).read(self.now)
                {
                    self.take(side, road, message);
                }
            }
        }
    }

    /// A whole message came to one end of a connection.
    pub(crate) fn take(&mut self, side: Side, road: usize, message: Bytes) {
        match self.roads[road].seat(side) {
            Seat::Listens => shell::hello_came(self, road, message),
            Seat::Asks(ask) => shell::welcome(self, road, ask, message),
            Seat::Carries(life, epoch) => self.hand_in(side, life, epoch, message),
            Seat::Gone => {}
        }
        self.tell();
        self.check();
    }

    fn hand_in(&mut self, side: Side, life: usize, epoch: Epoch, message: Bytes) {
        let life = &mut self.lives[life];
        let is_taken = life.half_mut(side).hand_in(epoch, message.clone(), self.now);
        if is_taken && side == Side::Gateway {
            life.good.settle();
        }
        if is_taken && self.nonsense && numbers_rise::number_of(&message).is_some() {
            self.nonsense = false;
            self.seen.nonsense += 1;
            let is_ack = self.random.once_in(3);
            let message = if is_ack { Bytes::from_static(numbers_rise::FUTURE_ACK) } else { message };
            life.half_mut(side).hand_in_nonsense(epoch, message, self.now);
        }
    }

    /// A frozen stream is not read, or only by a shell that had done so already.
    fn may_read(&mut self, side: Side, road: usize) -> bool {
        match self.roads[road].seat(side) {
            Seat::Carries(life, epoch) => {
                let half = self.lives[life].half(side);
                !(half.is_frozen() && half.epoch == epoch) || (!self.is_calm && self.random.once_in(50))
            }
            _ => true,
        }
    }

    pub(crate) fn write(&mut self) {
        for road in 0..self.roads.len() {
            for side in SIDES {
                self.write_on(road, side);
            }
        }
        self.tell();
    }

    fn write_on(&mut self, road: usize, side: Side) {
        let Self { roads, lives, random, now, config, seen, calls, .. } = self;
        let Seat::Carries(life, epoch) = roads[road].seat(side) else { return };
        let half = lives[life].half_mut(side);
        let is_carrier = half.is_attached() && half.epoch == epoch;
        // Writers are slow now and then, so that queues fill.
        while roads[road].link_from(side).may_write() && !random.once_in(4) {
            let Some(tunnel) = &mut half.tunnel else { return };
            let wants = tunnel.wants_transmit();
            let message = tunnel.poll_transmit(epoch, *now);
            fence_holds::wrote(is_carrier, wants, message.is_some());
            let Some(message) = message else { return };
            assert!(message.len() <= config.max_batch + 5, "a batch of {}", message.len());
            seen.trace(&message);
            half.numbers.send(&message[5..]);
            half.owed.wrote();
            roads[road].link_from(side).write(message, random, *now);
            if side == Side::Gateway {
                calls.iter_mut().filter(|call| call.life() == Some(life)).for_each(|call| call.may_be_sent = true);
            }
        }
    }

    /// Hands all events to the apps.
    pub(crate) fn tell(&mut self) {
        for life in 0..self.lives.len() {
            while let Some(event) = self.lives[life].gateway.tunnel.as_mut().and_then(|tunnel| tunnel.poll_event()) {
                apps::gateway_event(self, life, event);
            }
            while let Some(event) = self.lives[life].instance.tunnel.as_mut().and_then(|tunnel| tunnel.poll_event()) {
                apps::instance_event(self, life, event);
            }
        }
    }

    pub(crate) fn check(&mut self) {
        windows_hold::always(self);
        over_for_a_reason::always(self);
        deadlines_run::always(self);
        for half in self.lives.iter().flat_map(|life| [&life.gateway, &life.instance]) {
            let Some(tunnel) = &half.tunnel else { continue };
            self.seen.grown += u64::from(tunnel.grown_bytes() > 0);
            outbox_bounded::always(tunnel, &self.config);
            if half.is_attached() {
                half.owed.always(tunnel, &self.config, self.now);
            }
        }
    }

    fn all_ended(&self) -> bool {
        self.calls.iter().all(|call| call.gateway.end.is_some() && !call.instance.is_open)
    }

    /// Nothing of this life is on its way, and neither end has anything to say; the stream between them is alive.
    pub(crate) fn is_quiet(&self, life: usize) -> bool {
        self.instance_has_heard_all(life)
            && self.road_of(life).is_some_and(|road| road.up.is_empty())
            && self.lives[life].instance.has_nothing_to_say()
    }

    /// The stream of this life is alive, and all that the gateway has to say was read.
    pub(crate) fn instance_has_heard_all(&self, life: usize) -> bool {
        self.lives[life].is_whole()
            && self.lives[life].gateway.has_nothing_to_say()
            && self.road_of(life).is_some_and(|road| road.is_alive() && road.down.is_empty())
    }

    /// The connection that carries this life at both ends.
    fn road_of(&self, life: usize) -> Option<&Road> {
        let seat = Seat::Carries(life, self.lives[life].gateway.epoch);
        self.roads.iter().find(|road| road.at_gateway == seat && road.at_instance == seat)
    }

    /// Each life has ended, or is whole, quiet and empty; and one of them takes calls.
    fn is_at_rest(&self) -> bool {
        let is_done = |life: usize| {
            let Life { gateway, instance, .. } = &self.lives[life];
            let is_over = gateway.has_ended() && instance.has_ended();
            let is_empty = [gateway, instance].iter().all(|half| {
                half.tunnel.as_ref().is_some_and(|tunnel| tunnel.open_calls() == 0 && tunnel.unacked_bytes() == 0)
            });
            is_over || (is_empty && self.is_quiet(life))
        };
        (0..self.lives.len()).all(is_done) && self.lives.iter().any(Life::is_whole)
    }
}
