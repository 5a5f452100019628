//! What happens in one schedule: all of it follows from its seed.

use std::{fmt, time::Duration};

use grpcrouter_chaos::{Kind, Work};
use grpcrouter_tests::relay::{Cut, Way};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// One schedule.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) story: Story,
    pub(crate) gateways: usize,
    /// The ways to the gateways: one for each instance where there is one gateway, else one for each gateway.
    pub(crate) links: usize,
    /// When the first gateway is asked to stop.
    pub(crate) leaves: Option<Duration>,
    pub(crate) resume_window: Duration,
    pub(crate) calls: Vec<PlannedCall>,
    /// In the order of their times.
    pub(crate) faults: Vec<(Duration, Fault)>,
}

/// What kind of trouble there is; the most that a call may suffer from it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    /// Connections of instances are cut, held for less than it takes to miss them, and half-closed.
    Cuts,
    /// They are also held until they are given up, and refused.
    Outages,
    /// An instance that is asked to stop, and started again; and cuts.
    Drains,
    /// Instances that end without a word, and are started again; and cuts.
    Crashes,
    /// Outages that last longer than the window.
    TooLong,
    /// One of two gateways is asked to stop; and cuts.
    GatewayLeaves,
}

#[derive(Debug)]
pub(crate) struct PlannedCall {
    pub(crate) at: Duration,
    pub(crate) work: Work,
    pub(crate) gateway: usize,
    /// The backend that is asked for.
    pub(crate) key: Option<usize>,
    pub(crate) deadline: Option<Duration>,
    /// The client takes it back.
    pub(crate) cancel_after: Option<Duration>,
    pub(crate) dawdle: Duration,
    /// Through the client connection that is cut.
    pub(crate) on_bad_line: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Cut { link: usize, how: Cut },
    CutAfter { link: usize, way: Way, bytes: u64, how: Cut },
    Hold { link: usize, way: Way, lasts: Duration },
    HalfClose { link: usize, way: Way },
    Strand { link: usize },
    Refuse { link: usize, lasts: Duration },
    Stop { backend: usize, back_after: Duration },
    Kill { backend: usize, back_after: Duration },
    CutClients { gateway: usize },
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let story = match seed % 11 {
            0..=3 => Story::Cuts,
            4 | 5 => Story::Outages,
            6 => Story::Drains,
            7 | 8 => Story::Crashes,
            9 => Story::TooLong,
            _ => Story::GatewayLeaves,
        };
        let gateways = if story == Story::GatewayLeaves { 2 } else { dice.random_range(1..=2) };
        let links = if gateways == 1 { BACKENDS } else { gateways };
        let leaves = (story == Story::GatewayLeaves).then(|| ms(&mut dice, 500..=3_000));
        let calls = (0..CALLS).map(|id| PlannedCall::new(&mut dice, id, gateways, leaves)).collect();
        let count = dice.random_range(3..=8);
        let mut faults: Vec<_> =
            (0..count).map(|_| (ms(&mut dice, 0..=5_000), Fault::new(&mut dice, story, gateways, links))).collect();
        faults.sort_by_key(|(at, _)| *at);
        let resume_window = if story == Story::TooLong { Duration::from_secs(2) } else { Duration::from_secs(300) };
        Self { seed, story, gateways, links, leaves, resume_window, calls, faults }
    }
}

impl PlannedCall {
    fn new(dice: &mut StdRng, id: u64, gateways: usize, leaves: Option<Duration>) -> Self {
        let at = ms(dice, 0..=3_000);
        // Who dials a gateway that has just been asked to stop is told to go elsewhere; here it went there at once.
        let left = leaves.is_some_and(|leaves| at + GOING >= leaves);
        let gateway = if left { 1 } else { dice.random_range(0..gateways) };
        let size = *[10, 10, 1_000, 1_000, 10_000, 40_000].choose(dice).expect("not empty");
        let kind = *Kind::ALL.choose(dice).expect("not empty");
        let messages = dice.random_range(1..=6);
        let work = Work { id, kind, messages, size, pause: ms(dice, 0..=500) };
        Self {
            at,
            work,
            gateway,
            key: dice.random_bool(0.3).then(|| dice.random_range(0..BACKENDS)),
            deadline: dice.random_bool(0.15).then(|| ms(dice, 100..=4_000)),
            cancel_after: dice.random_bool(0.1).then(|| ms(dice, 0..=2_000)),
            dawdle: if dice.random_bool(0.1) { ms(dice, 100..=1_000) } else { Duration::ZERO },
            on_bad_line: dice.random_bool(0.15),
        }
    }
}

impl Fault {
    fn new(dice: &mut StdRng, story: Story, gateways: usize, links: usize) -> Self {
        let (backend, link) = (dice.random_range(0..BACKENDS), dice.random_range(0..links));
        let how = *[Cut::Reset, Cut::Finish].choose(dice).expect("not empty");
        let way = *[Way::Out, Way::Back].choose(dice).expect("not empty");
        let of_the_story = dice.random_bool(0.5);
        match story {
            Story::Outages if of_the_story && dice.random_bool(0.3) => Self::Strand { link },
            Story::Outages | Story::TooLong if of_the_story && dice.random() => {
                Self::Hold { link, way, lasts: ms(dice, 3_000..=25_000) }
            }
            Story::Outages | Story::TooLong if of_the_story => Self::Refuse { link, lasts: ms(dice, 100..=10_000) },
            // One at a time: somebody has to be there for the calls.
            Story::Drains if of_the_story => Self::Stop { backend: 0, back_after: ms(dice, 0..=2_000) },
            Story::Crashes if of_the_story => Self::Kill { backend, back_after: ms(dice, 0..=2_000) },
            _ => match dice.random_range(0..10) {
                0..=2 => Self::Cut { link, how },
                3..=6 => Self::CutAfter { link, way, bytes: dice.random_range(1..=100_000), how },
                7 => Self::Hold { link, way, lasts: ms(dice, 1..=1_000) },
                8 => Self::HalfClose { link, way },
                _ => Self::CutClients { gateway: dice.random_range(0..gateways) },
            },
        }
    }
}

fn ms(dice: &mut StdRng, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(dice.random_range(range))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {:?}, {} gateways, faults:", self.seed, self.story, self.gateways)?;
        self.faults.iter().try_for_each(|(at, fault)| write!(f, "\n    {at:?} {fault:?}"))
    }
}

/// So long before a gateway is asked to stop its clients go elsewhere already.
const GOING: Duration = Duration::from_millis(100);

pub(crate) const BACKENDS: usize = 3;

const CALLS: u64 = 20;
