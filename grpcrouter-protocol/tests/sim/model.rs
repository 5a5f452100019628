//! The naive truth about every call: what each app gave, what arrived, what was consumed, how it ended.
//! It knows nothing of frames, batches or credit.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{CallId, Config, OpenCall, PART_OVERHEAD, Time};

use super::random::Random;

/// What one call is going to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) request_len: usize,
    pub(crate) response_len: usize,
    /// The handler answers only when it has heard the half-close (unary and client-streaming calls).
    pub(crate) answers_at_end: bool,
    /// The handler gives its trailers without reading on.
    pub(crate) answers_early: bool,
    /// The consumer of one side takes nothing until the world heals.
    pub(crate) client_stalls: bool,
    pub(crate) handler_stalls: bool,
    /// The client cancels with this chance, one in so many steps.
    pub(crate) cancel_once_in: Option<u64>,
    pub(crate) timeout: Option<Duration>,
}

impl Plan {
    pub(crate) fn random(random: &mut Random, longest: usize) -> Self {
        // Unary, client-streaming, server-streaming, both.
        let (many_requests, many_responses) = (random.once_in(2), random.once_in(2));
        let mut len = |many| random.small_size(if many { longest } else { longest / 8 });
        let (request_len, response_len) = (len(many_requests), len(many_responses));
        Self {
            request_len,
            response_len,
            answers_at_end: !many_responses || random.once_in(3),
            answers_early: random.once_in(10),
            client_stalls: random.once_in(8),
            handler_stalls: random.once_in(8),
            cancel_once_in: random.once_in(6).then(|| random.between(1, 60)),
            timeout: random.once_in(5).then(|| Duration::from_millis(random.between(0, 400))),
        }
    }

    /// True if this call may have to wait for the world to heal.
    pub(crate) fn stalls(&self) -> bool {
        self.client_stalls || self.handler_stalls
    }
}

/// How a call ended on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Trailers: given at the instance, heard at the gateway; these after a whole answer.
    Answered,
    /// The same, but the handler gave up before it had said all.
    GaveUp,
    Cancelled,
    Deadline,
    Refused,
    Lost,
    /// Its process is gone.
    Killed,
}

/// One side's view of one call.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) is_open: bool,
    pub(crate) capacity: usize,
    pub(crate) gave: usize,
    pub(crate) gave_head: bool,
    pub(crate) gave_end: bool,
    pub(crate) heard: usize,
    pub(crate) heard_head: bool,
    pub(crate) heard_end: bool,
    /// Delivered and not yet consumed.
    pub(crate) pending: VecDeque<usize>,
    pub(crate) end: Option<End>,
}

impl Side {
    /// What is delivered and not yet consumed costs the window so much.
    pub(crate) fn held(&self) -> u64 {
        self.pending.iter().map(|&len| len as u64 + PART_OVERHEAD).sum()
    }
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) index: usize,
    pub(crate) plan: Plan,
    /// The tunnel that it was opened in last, and its name there.
    pub(crate) at: Option<(usize, CallId)>,
    /// When it was opened there.
    pub(crate) opened: Time,
    /// When its client gives up, once it was opened anywhere.
    pub(crate) deadline: Option<Time>,
    /// Something was written since it was opened.
    pub(crate) may_be_sent: bool,
    /// It came back whole and is to be opened elsewhere.
    pub(crate) back: Option<OpenCall>,
    pub(crate) gateway: Side,
    pub(crate) instance: Side,
    /// The instance knows the deadline this well: it runs its handler no longer than this.
    pub(crate) bound: Option<Time>,
}

impl Call {
    pub(crate) fn new(index: usize, plan: Plan) -> Self {
        Self {
            index,
            plan,
            at: None,
            opened: Time::default(),
            deadline: None,
            may_be_sent: false,
            back: None,
            gateway: Side::default(),
            instance: Side::default(),
            bound: None,
        }
    }

    /// The life of the tunnel that it is in.
    pub(crate) fn life(&self) -> Option<usize> {
        self.at.map(|(life, _)| life)
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// The bytes that a call says from one position on; each position of each call and direction has its own.
pub(crate) fn bytes(index: usize, direction: Direction, from: usize, len: usize) -> Bytes {
    let salt = match direction {
        Direction::Request => 17,
        Direction::Response => 91,
    };
    (from..from + len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ index.wrapping_mul(57) ^ salt) as u8).collect()
}

/// What a schedule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Windows so small that each call waits for credit again and again.
    Narrow,
    /// Windows so wide that a call uses up its turn before its credit.
    Wide,
    /// So many small calls that what is said of them does not fit one batch.
    Crowd,
}

impl Shape {
    pub(crate) fn random(random: &mut Random) -> Self {
        match random.between(0, 7) {
            0 => Self::Wide,
            1 => Self::Crowd,
            _ => Self::Narrow,
        }
    }

    /// How many calls there are.
    pub(crate) fn calls(self, random: &mut Random) -> usize {
        match self {
            Self::Narrow => random.size(1, 16),
            Self::Wide => random.size(2, 6),
            Self::Crowd => random.size(30, 80),
        }
    }

    /// The most bytes that a call says each way. At most some dozen windows, or the smallest parts would take for ever.
    pub(crate) fn longest(self, random: &mut Random, config: &Config) -> usize {
        let part = config.max_part as u64;
        let carried = usize::try_from(config.initial_window * part / (part + PART_OVERHEAD)).unwrap();
        match self {
            Self::Narrow => random.size(8, LONGEST.min(16 + 40 * carried)),
            Self::Wide => LONGEST,
            Self::Crowd => random.size(8, 100),
        }
    }
}

/// No call says more each way.
pub(crate) const LONGEST: usize = 6_000;

/// Limits so small that every one of them is met.
pub(crate) fn config(random: &mut Random, shape: Shape) -> Config {
    let (window, max_part, most_calls) = match shape {
        Shape::Narrow => (random.between(64, 2_000), random.size(1, 300), random.between(1, 8)),
        Shape::Wide => (random.between(20_000, 60_000), random.size(1, 8), random.between(2, 6)),
        Shape::Crowd => (random.between(64, 2_000), random.size(1, 200), random.between(30, 80)),
    };
    let least = max_part.max(224) + 128;
    let max_batch = if shape == Shape::Crowd { least } else { random.size(least, 3_000) };
    Config {
        initial_window: window,
        max_window: window * random.between(0, 8),
        window_pool: window * random.between(0, 8),
        max_batch,
        max_part,
        max_metadata: 64,
        max_metadata_entries: 2,
        max_trailers: 64,
        max_open_calls: most_calls as u32,
        replay_limit: 2 * (max_batch + 64) + random.small_size(10_000),
        ack_bytes: random.size(1, 3_000),
        resume_window: match random.between(0, 11) {
            0 => Duration::ZERO,
            1..=3 => Duration::from_millis(random.between(1, 500)),
            _ => Duration::from_secs(15),
        },
        ..Config::default()
    }
    .checked()
    .unwrap()
}

/// What happened in all schedules, to know that nothing is tested in name only.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) calls: u64,
    pub(crate) answered: u64,
    pub(crate) gave_up: u64,
    pub(crate) cancelled: u64,
    pub(crate) deadlines: u64,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    pub(crate) killed: u64,
    pub(crate) not_sent: u64,
    pub(crate) opened_elsewhere: u64,
    pub(crate) detached: u64,
    pub(crate) writable: u64,
    pub(crate) no_more_calls: u64,
    pub(crate) replay_full: u64,
    pub(crate) late_frames: u64,
    pub(crate) round_trips: u64,
    pub(crate) grown: u64,
    pub(crate) credit_looks: u64,
    pub(crate) lives: u64,
    pub(crate) dials: u64,
    pub(crate) resumes: u64,
    pub(crate) moves: u64,
    pub(crate) thaws: u64,
    pub(crate) given_up: u64,
    pub(crate) unknown: u64,
    pub(crate) cuts: u64,
    pub(crate) silences: u64,
    pub(crate) silent: u64,
    pub(crate) expired: u64,
    pub(crate) restarts: u64,
    pub(crate) closes: u64,
    pub(crate) displaced: u64,
    pub(crate) thieves: u64,
    pub(crate) impossible: u64,
    pub(crate) nonsense: u64,
    pub(crate) lies: u64,
    pub(crate) deadline_looks: u64,
    pub(crate) bytes: u64,
    pub(crate) trace: u64,
}

impl Seen {
    pub(crate) fn end(&mut self, end: End) {
        let count = match end {
            End::Answered => &mut self.answered,
            End::GaveUp => &mut self.gave_up,
            End::Cancelled => &mut self.cancelled,
            End::Deadline => &mut self.deadlines,
            End::Refused => &mut self.refused,
            End::Lost => &mut self.lost,
            End::Killed => &mut self.killed,
        };
        *count += 1;
    }

    fn counts(&mut self) -> [(&'static str, &mut u64); 38] {
        [
            ("calls", &mut self.calls),
            ("answered", &mut self.answered),
            ("gave up", &mut self.gave_up),
            ("cancelled", &mut self.cancelled),
            ("deadlines", &mut self.deadlines),
            ("refused", &mut self.refused),
            ("lost", &mut self.lost),
            ("killed", &mut self.killed),
            ("not sent", &mut self.not_sent),
            ("opened elsewhere", &mut self.opened_elsewhere),
            ("detached", &mut self.detached),
            ("writable", &mut self.writable),
            ("no more calls", &mut self.no_more_calls),
            ("replay full", &mut self.replay_full),
            ("late frames", &mut self.late_frames),
            ("round trips", &mut self.round_trips),
            ("grown", &mut self.grown),
            ("credit looks", &mut self.credit_looks),
            ("lives", &mut self.lives),
            ("dials", &mut self.dials),
            ("resumes", &mut self.resumes),
            ("moves", &mut self.moves),
            ("thaws", &mut self.thaws),
            ("given up", &mut self.given_up),
            ("unknown", &mut self.unknown),
            ("cuts", &mut self.cuts),
            ("silences", &mut self.silences),
            ("silent", &mut self.silent),
            ("expired", &mut self.expired),
            ("restarts", &mut self.restarts),
            ("closes", &mut self.closes),
            ("displaced", &mut self.displaced),
            ("thieves", &mut self.thieves),
            ("impossible", &mut self.impossible),
            ("nonsense", &mut self.nonsense),
            ("lies", &mut self.lies),
            ("deadline looks", &mut self.deadline_looks),
            ("bytes", &mut self.bytes),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = Self { ..*other };
        for ((_, sum), (_, count)) in self.counts().into_iter().zip(other.counts()) {
            *sum += *count;
        }
    }

    pub(crate) fn assert_everything_happened(&mut self) {
        for (name, count) in self.counts() {
            assert!(*count > 0, "no schedule had any: {name}");
        }
    }

    /// Mixes bytes into the trace.
    pub(crate) fn trace(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
