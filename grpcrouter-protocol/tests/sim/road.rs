//! One connection: a link each way, what either end takes it for, and how it dies: at any byte, in one direction or in
//! both, noticed soon, late or never.

use grpcrouter_protocol::{Epoch, Side, Time};

use super::link::Link;
use super::random::Random;

#[derive(Debug)]
pub(crate) struct Road {
    /// To the gateway and to the instance.
    pub(crate) up: Link,
    pub(crate) down: Link,
    pub(crate) at_gateway: Seat,
    pub(crate) at_instance: Seat,
    /// When it dies, nobody is told.
    pub(crate) is_silent: bool,
}

/// What one end takes a connection for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Gateway: no Hello has come yet.
    Listens,
    /// Instance: its Hello waits for the answer.
    Asks(Ask),
    /// It is the stream of this life with this number, now or formerly.
    Carries(usize, Epoch),
    /// This end is done with it.
    Gone,
}

/// What an instance asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The life whose tunnel it wants back; `None`: a new one.
    pub(crate) life: Option<usize>,
    /// The number of the new stream.
    pub(crate) epoch: Epoch,
    pub(crate) at: Time,
}

impl Road {
    pub(crate) fn new(ask: Ask, random: &mut Random) -> Self {
        Self {
            up: Link::new(random),
            down: Link::new(random),
            at_gateway: Seat::Listens,
            at_instance: Seat::Asks(ask),
            is_silent: false,
        }
    }

    pub(crate) fn seat(&self, side: Side) -> Seat {
        match side {
            Side::Gateway => self.at_gateway,
            Side::Instance => self.at_instance,
        }
    }

    fn seat_mut(&mut self, side: Side) -> &mut Seat {
        match side {
            Side::Gateway => &mut self.at_gateway,
            Side::Instance => &mut self.at_instance,
        }
    }

    pub(crate) fn sit(&mut self, side: Side, seat: Seat) {
        *self.seat_mut(side) = seat;
    }

    /// What comes to one end.
    pub(crate) fn link_to(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Gateway => &mut self.up,
            Side::Instance => &mut self.down,
        }
    }

    /// What one end writes.
    pub(crate) fn link_from(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Gateway => &mut self.down,
            Side::Instance => &mut self.up,
        }
    }

    /// It dies now. Of what is on its way some may still arrive.
    pub(crate) fn cut(&mut self, random: &mut Random) {
        self.up.cut(random);
        self.down.cut(random);
    }

    /// One end closes it: it reads no more, and what it wrote may still arrive.
    pub(crate) fn leave(&mut self, side: Side) {
        self.sit(side, Seat::Gone);
        self.link_to(side).close();
        self.link_to(side).drop_unread();
        self.link_from(side).close();
    }

    /// True if this end would be told now that the connection is over, having read all that came.
    pub(crate) fn has_ended_for(&mut self, side: Side) -> bool {
        !self.is_silent && self.seat(side) != Seat::Gone && self.link_to(side).has_ended()
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.up.is_dead() && !self.down.is_dead()
    }

    /// True if both ends know that it is over.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.at_gateway == Seat::Gone && self.at_instance == Seat::Gone
    }
}
