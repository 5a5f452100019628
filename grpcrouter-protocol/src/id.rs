//! The names and numbers that gateway and instance use for each other, as types that cannot be mixed up.
//! A call id holds its own place in the table of calls, so that finding a call is one look.

use std::fmt;
use std::sync::Arc;

use crate::error::NameError;

/// Names one call of a tunnel: `counter << 20 | slot`. The gateway gives it; it rises and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// The low bits of an id that hold its slot.
    pub const SLOT_BITS: u32 = 20;

    /// The id of the `counter`-th call, kept in `slot`; of each only the bits that fit are taken.
    pub const fn new(counter: u64, slot: u32) -> Self {
        Self((counter << Self::SLOT_BITS) | (slot as u64 & SLOT_MASK))
    }

    /// The id that this number on the wire names.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number on the wire.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The place of the call in the table of calls.
    pub const fn slot(self) -> usize {
        (self.0 & SLOT_MASK) as usize
    }

    /// How many calls the gateway had given ids to.
    pub const fn counter(self) -> u64 {
        self.0 >> Self::SLOT_BITS
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.counter(), self.slot())
    }
}

/// The number of a batch, from 1, one higher each time; 0 marks a batch that is never replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(u64);

impl Seq {
    /// The number of a batch that carries state alone.
    pub const STATE: Seq = Seq(0);

    /// The batch number `seq`.
    pub const fn new(seq: u64) -> Self {
        Self(seq)
    }

    /// The number on the wire.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An absolute limit: so many charged bytes one direction of a call may carry in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MaxData(u64);

impl MaxData {
    /// The limit of `bytes` charged bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number on the wire.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Who an instance is, for routing: stable across restarts. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// The longest instance id, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Checks an instance id: 1 to 256 bytes without control characters.
    ///
    /// # Errors
    /// Says what is wrong with the name.
    pub fn parse(id: impl Into<String>) -> Result<Self, NameError> {
        let id = id.into();
        check_name(&id, Self::MAX_LEN)?;
        Ok(Self(id.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of an instance's process: 16 random bytes, new at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub [u8; 16]);

/// Names a tunnel to its gateway; given in Welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TunnelId(pub [u8; 16]);

/// Which of a tunnel's streams, one after the other, is meant. It rises; an attempt that failed leaves a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// The stream of the Hello that made the tunnel.
    pub const FIRST: Self = Self(0);

    /// The stream with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as it crosses.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after it.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The two ends of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Accepts client calls and opens them in the tunnel.
    Gateway,
    /// Dialled out and answers calls.
    Instance,
}

/// The one rule for names that a peer chooses.
pub(crate) fn check_name(name: &str, longest: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > longest {
        return Err(NameError::TooLong { len: name.len(), longest });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::ControlCharacter);
    }
    Ok(())
}

const SLOT_MASK: u64 = (1 << CallId::SLOT_BITS) - 1;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    #[test]
    fn a_call_id_gives_back_its_counter_and_slot() {
        let id = CallId::new(7, 3);
        assert_eq!((id.counter(), id.slot(), id.get()), (7, 3, 7 << 20 | 3));
        assert_eq!(id.to_string(), "7/3");
    }

    #[test]
    fn a_later_call_has_a_higher_id_whatever_its_slot() {
        assert!(CallId::new(8, 0) > CallId::new(7, 1_048_575));
    }

    #[test]
    fn an_instance_id_is_refused_when_empty_too_long_or_with_control_characters() {
        assert_eq!(InstanceId::parse(""), Err(NameError::Empty));
        assert_eq!(InstanceId::parse("a\nb"), Err(NameError::ControlCharacter));
        let long = "x".repeat(257);
        assert_eq!(InstanceId::parse(long), Err(NameError::TooLong { len: 257, longest: 256 }));
        assert_eq!(InstanceId::parse("web-1").unwrap().as_str(), "web-1");
    }
}
