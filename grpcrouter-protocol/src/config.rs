//! The limits of a tunnel: why each is what it is, and what it costs in memory.
//! The gateway sets them; an instance adopts what Welcome says.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::ConfigError;
use crate::frame::{Accepted, Heartbeat, Limits};
use crate::id::CallId;

/// The limits of one tunnel. Check it once with [`checked`](Self::checked).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What one direction of a call may carry before the receiver grants more, in charged bytes. Default 64 KiB: a
    /// small call never waits, and it is the most that a reader which stalls from the start can make the other end hold,
    /// for each call and direction. What a window has grown to comes out of `window_pool`.
    pub initial_window: u64,
    /// How large a window may become, in charged bytes: it doubles while half of it is consumed within two round trips.
    /// Default 4 MiB: 80 MB/s for one call over a way of 50 ms. Below `initial_window`: it does not grow. This side's
    /// own; the other side need not know.
    pub max_window: u64,
    /// What the windows of all calls of a tunnel may have beyond their first size, in charged bytes. Default 64 MiB:
    /// some dozen calls at full speed over a long way. This side's own.
    pub window_pool: u64,
    /// The most bytes of a batch. Default 64 KiB: a burst of small calls shares one write, and a ping waits behind
    /// at most so much. Each tunnel has one buffer of this size.
    pub max_batch: usize,
    /// The most bytes of one data part. Default 16 KiB, the size of an HTTP/2 frame: large enough that its 32 bytes
    /// of overhead are nothing, small enough that turns between calls are short.
    pub max_part: usize,
    /// The most bytes of request or response headers: texts, keys and values. Default 16 KiB, twice what gRPC
    /// libraries take; each open call may hold it once a direction.
    pub max_metadata: usize,
    /// The most entries of metadata. Default 128: far more than real calls have, few enough to look through.
    pub max_metadata_entries: usize,
    /// The most bytes of trailers: message, details, keys and values. Default 32 KiB, since status details are often
    /// larger than headers; each open call may hold it once.
    pub max_trailers: usize,
    /// Calls that may be open at once. Default 1024. All other memory is a multiple of this; the table of calls
    /// itself takes about 0.6 KiB a call.
    pub max_open_calls: u32,
    /// The most bytes sent and not yet acked, a direction. Default 16 MiB: a fast link's data for the round trip of
    /// a slow one. At the bound no data and no call goes out; what is said of running calls still does.
    pub replay_limit: usize,
    /// How long an ack may wait for a batch to ride on. Default 25 ms: at most 40 lone acks a second, and the peer
    /// keeps what it sent for no longer than that.
    pub ack_delay: Duration,
    /// An ack goes out at once after so many bytes. Default 1 MiB: a sixteenth of the replay bound, so a fast sender
    /// never waits for the delay.
    pub ack_bytes: usize,
    /// When to ping and when to give up. Default: 3 s with calls open, 10 s without, dead after 3 unanswered. A
    /// dead peer is noticed within 12 s while calls wait for it.
    pub heartbeat: Heartbeat,
    /// How long a tunnel is kept without a stream. Default 15 s: a lost connection is noticed and dialled again in less,
    /// also over a way that is down for some seconds. Zero: a lost stream ends its tunnel. An instance keeps its end one
    /// second longer, so that it never gives up what the gateway would still resume.
    pub resume_window: Duration,
}

impl Config {
    /// The versions of the protocol that this crate speaks.
    pub const VERSIONS: RangeInclusive<u32> = 1..=1;

    /// Checks the limits, also against each other.
    ///
    /// # Errors
    /// Names the first field that cannot work.
    pub fn checked(self) -> Result<Self, ConfigError> {
        at_least("initial_window", self.initial_window, 64)?;
        at_most("initial_window", self.initial_window, MAX_WINDOW)?;
        at_most("max_window", self.max_window, MAX_GROWN_WINDOW)?;
        at_least("max_part", self.max_part as u64, 1)?;
        at_most("max_batch", self.max_batch as u64, MAX_BATCH)?;
        at_least("max_metadata_entries", self.max_metadata_entries as u64, 1)?;
        at_most("max_metadata_entries", self.max_metadata_entries as u64, MAX_ENTRIES)?;
        // A batch must hold the largest headers or trailers whole: tags and lengths take at most 16 bytes an entry,
        // and 256 cover the frame around it.
        let framing = self.max_metadata_entries as u64 * 16 + 256;
        let whole = (self.max_metadata.max(self.max_trailers) as u64).saturating_add(framing);
        at_least("max_batch", self.max_batch as u64, whole)?;
        at_least("max_batch", self.max_batch as u64, (self.max_part as u64).saturating_add(128))?;
        at_least("max_open_calls", self.max_open_calls.into(), 1)?;
        at_most("max_open_calls", self.max_open_calls.into(), 1 << CallId::SLOT_BITS)?;
        at_least("replay_limit", self.replay_limit as u64, 2 * (self.max_batch as u64 + 64))?;
        at_least("heartbeat.unanswered", self.heartbeat.unanswered.into(), 1)?;
        at_least("heartbeat.busy", millis(self.heartbeat.busy), 1)?;
        at_least("heartbeat.idle", millis(self.heartbeat.idle), 1)?;
        at_most("resume_window", millis(self.resume_window), MAX_RESUME_WINDOW)?;
        Ok(self)
    }

    /// What a gateway with these limits says in Welcome.
    pub fn limits(&self) -> Limits {
        Limits {
            initial_window: self.initial_window,
            max_batch: self.max_batch as u64,
            max_part: self.max_part as u64,
            max_metadata: self.max_metadata as u64,
            max_metadata_entries: u32::try_from(self.max_metadata_entries).unwrap_or(u32::MAX),
            max_trailers: self.max_trailers as u64,
            max_open_calls: self.max_open_calls.into(),
        }
    }

    /// These limits with the gateway's in place of the instance's own, where the gateway decides.
    ///
    /// # Errors
    /// The gateway named a limit that cannot work, or one that would cost this process too much memory, or a version
    /// that this crate does not speak.
    pub fn adopt(self, accepted: &Accepted) -> Result<Self, ConfigError> {
        at_least("version", accepted.version.into(), (*Self::VERSIONS.start()).into())?;
        at_most("version", accepted.version.into(), (*Self::VERSIONS.end()).into())?;
        let limits = &accepted.limits;
        let open_calls = limits.max_open_calls.min(self.max_open_calls.into());
        Self {
            initial_window: limits.initial_window,
            max_batch: size(limits.max_batch),
            max_part: size(limits.max_part),
            max_metadata: size(limits.max_metadata),
            max_metadata_entries: limits.max_metadata_entries as usize,
            max_trailers: size(limits.max_trailers),
            max_open_calls: u32::try_from(open_calls).unwrap_or(u32::MAX),
            heartbeat: accepted.heartbeat,
            // Without a token there is nothing to resume with.
            resume_window: match accepted.resume_token.is_empty() {
                true => Duration::ZERO,
                false => accepted.resume_window.min(Duration::from_millis(MAX_RESUME_WINDOW)),
            },
            ..self
        }
        .checked()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            initial_window: 64 * KIB as u64,
            max_window: MAX_WINDOW,
            window_pool: 64 << 20,
            max_batch: 64 * KIB,
            max_part: 16 * KIB,
            max_metadata: 16 * KIB,
            max_metadata_entries: 128,
            max_trailers: 32 * KIB,
            max_open_calls: 1024,
            replay_limit: 16 * 1024 * KIB,
            ack_delay: Duration::from_millis(25),
            ack_bytes: 1024 * KIB,
            heartbeat: Heartbeat { busy: Duration::from_secs(3), idle: Duration::from_secs(10), unanswered: 3 },
            resume_window: Duration::from_secs(15),
        }
    }
}

const KIB: usize = 1024;

/// The largest first window that is taken from a peer: one call cannot make this process hold more.
const MAX_WINDOW: u64 = 4 << 20;

/// A window beyond this is a slip: it would be the memory of a small machine, for one call.
const MAX_GROWN_WINDOW: u64 = 1 << 30;

/// The largest batch that is taken from a peer; gRPC libraries stop at 4 MiB messages by default.
const MAX_BATCH: u64 = 4 << 20;

/// In milliseconds. For longer nobody waits, and all that a tunnel holds is kept meanwhile.
const MAX_RESUME_WINDOW: u64 = 300_000;

/// Metadata is looked through from the front, so there cannot be very many.
const MAX_ENTRIES: u64 = 4096;

fn at_least(field: &'static str, value: u64, least: u64) -> Result<(), ConfigError> {
    if value < least {
        return Err(ConfigError { field, problem: format!("{value} is too small, the least is {least}") });
    }
    Ok(())
}

fn at_most(field: &'static str, value: u64, most: u64) -> Result<(), ConfigError> {
    if value > most {
        return Err(ConfigError { field, problem: format!("{value} is too large, the most is {most}") });
    }
    Ok(())
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// A size that does not fit is refused by `checked`, which knows the bounds.
fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
