//! The life of one tunnel: its two halves as the shells hold them, and beside each the naive truth of what it is attached
//! to, since when it is not, and whether it may be over.

use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{
    CloseCode, Config, Epoch, FreshToken, ProtocolError, Resume, ResumeError, Resumed, Side, Time, Tunnel,
};

use super::invariants::acks_in_time::Owed;
use super::invariants::numbers_rise::Numbers;
use super::invariants::{attached_as_told, fence_holds, numbers_rise, tokens_hold};
use super::shell::close;

/// One tunnel, from Welcome on.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) gateway: Half,
    pub(crate) instance: Half,
    /// What the instance would show.
    pub(crate) token: Bytes,
    /// What the gateway takes.
    pub(crate) good: tokens_hold::Good,
    /// The life of the process that said Hello.
    pub(crate) incarnation: u8,
    /// The instance was told to go elsewhere.
    pub(crate) is_told_to_move: bool,
    /// The newest update said and heard, and the newest list of gateways.
    pub(crate) updates: Newest,
    pub(crate) peers: Newest,
}

/// Which of a row of values was said last, and which was heard last.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    pub(crate) said: u64,
    pub(crate) heard: u64,
}

impl Newest {
    /// What is heard is newer than before, and no newer than what was said.
    pub(crate) fn hear(&mut self, value: u64) {
        assert!(self.heard < value && value <= self.said, "{value} after {self:?}");
        self.heard = value;
    }
}

/// One end.
#[derive(Debug)]
pub(crate) struct Half {
    side: Side,
    /// `None`: it has not begun, or its process is gone.
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) epoch: Epoch,
    link: Link,
    /// When the stream that carries it was attached.
    pub(crate) attached_at: Time,
    /// It may end its calls: it was told to, or waited too long.
    pub(crate) is_over: bool,
    /// It said Close.
    pub(crate) has_closed: bool,
    pub(crate) is_draining: bool,
    resume_window: Duration,
    pub(crate) numbers: Numbers,
    /// What it has to ack.
    pub(crate) owed: Owed,
    /// Its timers do not run.
    pub(crate) is_asleep: bool,
}

/// How a half is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Attached,
    Frozen,
    Detached(Time),
}

impl Life {
    /// A gateway has said Welcome; the instance has not heard it yet.
    pub(crate) fn new(config: &Config, fresh: FreshToken, incarnation: u8, now: Time) -> Self {
        let tunnel = Tunnel::gateway(config.clone(), now).with_token(fresh.hash);
        Self {
            gateway: Half::new(Side::Gateway, Some(tunnel), config.resume_window, now),
            instance: Half::new(Side::Instance, None, config.resume_window, now),
            token: fresh.token.clone(),
            good: tokens_hold::Good::new(fresh.token),
            incarnation,
            is_told_to_move: false,
            updates: Newest::default(),
            peers: Newest::default(),
        }
    }

    pub(crate) fn half(&self, side: Side) -> &Half {
        match side {
            Side::Gateway => &self.gateway,
            Side::Instance => &self.instance,
        }
    }

    pub(crate) fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Gateway => &mut self.gateway,
            Side::Instance => &mut self.instance,
        }
    }

    /// True if both ends have it and agree on the stream.
    pub(crate) fn is_whole(&self) -> bool {
        let is_up = |half: &Half| half.lives() && half.is_attached();
        is_up(&self.gateway) && is_up(&self.instance) && self.gateway.epoch == self.instance.epoch
    }

    /// True if the calls of this side may end as lost.
    pub(crate) fn may_be_lost(&self, side: Side) -> bool {
        match side {
            Side::Gateway => self.gateway.is_over || self.instance.has_closed,
            Side::Instance => self.instance.is_over || self.gateway.has_closed,
        }
    }

    /// The gateway is asked for the tunnel.
    pub(crate) fn resume(&mut self, resume: &Resume, fresh: FreshToken, now: Time) -> Result<Resumed, ResumeError> {
        let Self { gateway, good, .. } = self;
        gateway.expire(now);
        let expected = good.expected(resume, gateway);
        let Some(tunnel) = &mut gateway.tunnel else { return Err(ResumeError::Closed) };
        let before = expected.is_harmless().then(|| format!("{tunnel:?}"));
        let answer = tunnel.resume(resume, tokens_hold::hash(&resume.token), fresh.clone(), now);
        expected.check(&answer);
        if let Some(before) = before {
            assert_eq!(before, format!("{tunnel:?}"), "a refused resume changes nothing");
        }
        match &answer {
            Ok(resumed) => {
                assert_eq!((resumed.epoch, &resumed.new_token), (resume.epoch, &fresh.token));
                gateway.numbers.answer(resumed);
                good.renew(resume.token.clone(), fresh.token);
                gateway.attach(resumed.epoch, now);
            }
            Err(ResumeError::Impossible(_)) => {
                gateway.is_over = true;
                gateway.has_closed = true;
            }
            Err(_) => {}
        }
        answer
    }
}

impl Half {
    fn new(side: Side, tunnel: Option<Tunnel>, resume_window: Duration, now: Time) -> Self {
        Self {
            side,
            tunnel,
            epoch: Epoch::FIRST,
            link: Link::Attached,
            attached_at: now,
            is_over: false,
            has_closed: false,
            is_draining: false,
            resume_window,
            numbers: Numbers::default(),
            owed: Owed::default(),
            is_asleep: false,
        }
    }

    /// The instance heard Welcome.
    pub(crate) fn begin(&mut self, tunnel: Tunnel, now: Time) {
        self.tunnel = Some(tunnel);
        self.attached_at = now;
    }

    /// The process is gone.
    pub(crate) fn die(&mut self) {
        self.tunnel = None;
    }

    /// True if it is there and not over.
    pub(crate) fn lives(&self) -> bool {
        self.tunnel.is_some() && !self.is_over && !self.tunnel.as_ref().is_some_and(Tunnel::is_closed)
    }

    /// True if it knows that it is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_closed || self.tunnel.as_ref().is_none_or(Tunnel::is_closed)
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.link == Link::Attached
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.link == Link::Frozen
    }

    pub(crate) fn is_detached(&self) -> bool {
        matches!(self.link, Link::Detached(_))
    }

    pub(crate) fn has_nothing_to_say(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| !tunnel.wants_transmit())
    }

    /// True if this stream carries it, or is frozen to be taken up again.
    pub(crate) fn is_carried_by(&self, at: Epoch) -> bool {
        self.epoch == at && !self.is_detached()
    }

    /// Another stream carries it from here on.
    pub(crate) fn attach(&mut self, epoch: Epoch, now: Time) {
        self.epoch = epoch;
        self.link = Link::Attached;
        self.attached_at = now;
        self.owed.attached(now);
        attached_as_told::look(self);
    }

    /// A stream is gone.
    pub(crate) fn detach(&mut self, at: Epoch, now: Time) {
        if self.is_carried_by(at) {
            self.is_lost(now);
        }
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.detach(at, now);
        }
        attached_as_told::look(self);
    }

    /// Says what to ask for on another stream.
    pub(crate) fn resume_point(&mut self, now: Time) -> Option<grpcrouter_protocol::ResumePoint> {
        self.expire(now);
        let point = self.tunnel.as_mut()?.resume_point(now);
        assert_eq!(point.is_some(), self.lives(), "a tunnel that is not over can be asked for");
        if let Some(point) = &point {
            self.numbers.ask(point);
        }
        if self.link == Link::Attached && point.is_some() {
            self.link = Link::Frozen;
            self.owed = Owed::default();
        }
        attached_as_told::look(self);
        point
    }

    pub(crate) fn resumed(&mut self, resumed: &Resumed, now: Time) -> Result<(), ProtocolError> {
        self.expire(now);
        let Some(tunnel) = &mut self.tunnel else { return Ok(()) };
        if tunnel.is_closed() || self.is_over {
            assert!(tunnel.resumed(resumed, now).is_err(), "a tunnel that is over comes not back");
            return Ok(());
        }
        tunnel.resumed(resumed, now)?;
        self.attach(resumed.epoch, now);
        Ok(())
    }

    pub(crate) fn thaw(&mut self, now: Time) {
        if self.link == Link::Frozen {
            self.link = Link::Attached;
        }
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.thaw(now);
        }
        attached_as_told::look(self);
    }

    /// What was read on a stream is handed in. True if it was taken.
    pub(crate) fn hand_in(&mut self, at: Epoch, message: Bytes, now: Time) -> bool {
        let is_taken = self.link == Link::Attached && self.epoch == at;
        if is_taken {
            self.numbers.take(&message);
            self.owed.read(&message, now);
        } else if self.is_carried_by(at) {
            // Read while it was frozen: given up.
            self.is_lost(now);
        }
        let Some(tunnel) = &mut self.tunnel else { return false };
        let before = tunnel.totals();
        let problem = tunnel.handle_batch(at, message, now);
        assert_eq!(problem, Ok(()), "the {:?}'s peer keeps the protocol: {tunnel:#?}", self.side);
        if !is_taken {
            fence_holds::took_nothing(before, tunnel);
        }
        attached_as_told::look(self);
        is_taken
    }

    /// A peer that says a batch twice, or acks one that was never sent, breaks the protocol, and the shell ends the tunnel.
    pub(crate) fn hand_in_nonsense(&mut self, at: Epoch, message: Bytes, now: Time) {
        let Some(tunnel) = self.tunnel.as_mut().filter(|tunnel| !tunnel.is_closed() && !self.is_over) else { return };
        let problem = tunnel.handle_batch(at, message, now);
        numbers_rise::refused(&problem);
        self.is_over = true;
        self.has_closed = true;
        tunnel.close(close(CloseCode::ProtocolError), now);
    }

    /// An answer that is none: to another question, or with a number that cannot be. The tunnel ends.
    pub(crate) fn hear_a_lie(&mut self, lie: &Resumed, now: Time) {
        self.expire(now);
        let Some(tunnel) = &mut self.tunnel else { return };
        assert!(tunnel.resumed(lie, now).is_err() && !tunnel.wants_transmit(), "a lie is believed: {lie:?}");
        assert!(tunnel.is_closed(), "who cannot go on ends: {tunnel:#?}");
        self.is_over = true;
        self.has_closed = true;
    }

    /// Does what is due. False if the stream is dead.
    pub(crate) fn run_timers(&mut self, config: &Config, now: Time) -> bool {
        self.expire(now);
        let is_attached = self.is_attached();
        let Some(tunnel) = &mut self.tunnel else { return true };
        let pulse = tunnel.handle_timeout(now);
        assert!(!self.is_over || self.has_closed || tunnel.is_closed(), "the resume window is over: {tunnel:#?}");
        assert!(pulse.is_ok() || is_attached, "only a stream can be silent");
        if pulse.is_ok() && is_attached {
            self.owed.after_timers(tunnel, config, now);
        }
        pulse.is_ok()
    }

    fn is_lost(&mut self, now: Time) {
        self.link = Link::Detached(now);
        self.owed = Owed::default();
        // Without a window a lost stream is a lost tunnel.
        self.is_over |= self.resume_window.is_zero();
    }

    /// How long it is kept without a stream.
    fn window(&self) -> Duration {
        match self.side {
            Side::Gateway => self.resume_window,
            Side::Instance => self.resume_window + Duration::from_secs(1),
        }
    }

    /// What must be over by now is. Call before anything that may notice.
    pub(crate) fn expire(&mut self, now: Time) {
        if let Link::Detached(since) = self.link
            && since + self.window() <= now
        {
            self.is_over = true;
        }
    }

    /// When it is over without a stream.
    pub(crate) fn expires_at(&self) -> Option<Time> {
        match self.link {
            Link::Detached(since) if self.lives() => Some(since + self.window()),
            _ => None,
        }
    }
}
