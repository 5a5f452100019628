//! One call as both ends know it: its number, its kind, and what is in each of its messages.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// gRPC's four kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One message each way.
    Unary,
    /// Many come back.
    Down,
    /// Many go out.
    Up,
    /// Each that goes out is answered.
    Both,
}

/// One call. It stands at the head of its request, so that the service knows what to expect and what to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// No other call has it.
    pub id: u64,
    /// Its kind.
    pub kind: Kind,
    /// How many messages a stream of it has.
    pub messages: u32,
    /// How long each of them is, in bytes.
    pub size: usize,
    /// Between two messages, at whoever sends them; before the answer, if there is one only.
    pub pause: Duration,
}

/// Whose messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    Client,
    Service,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unary, Self::Down, Self::Up, Self::Both];
}

impl Work {
    /// The line that the request begins with.
    pub(crate) fn head(&self) -> String {
        let Self { id, kind, messages, size, pause } = self;
        format!("{id} {} {messages} {size} {}\n", *kind as usize, pause.as_micros())
    }

    /// The work of a request, and what stands behind its head.
    pub(crate) fn read(text: &str) -> Option<(Self, &str)> {
        let (head, rest) = text.split_once('\n')?;
        let mut parts = head.split(' ').map(str::parse::<u64>);
        let mut next = || parts.next()?.ok();
        let work = Self {
            id: next()?,
            kind: *Kind::ALL.get(usize::try_from(next()?).ok()?)?,
            messages: u32::try_from(next()?).ok()?,
            size: usize::try_from(next()?).ok()?,
            pause: Duration::from_micros(next()?),
        };
        Some((work, rest))
    }

    /// What message `index` of this side says.
    pub(crate) fn content(&self, from: From, index: u32) -> String {
        let salt = match from {
            From::Client => 1,
            From::Service => 2,
        };
        let mut state = (self.id << 2 | salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(index) << 40) | 1;
        let mut text = String::with_capacity(self.size + 8);
        while text.len() < self.size {
            // xorshift64: eight characters at a time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.extend(state.to_le_bytes().map(|byte| char::from(b' ' + byte % 64)));
        }
        text.truncate(self.size);
        text
    }

    /// The hash of all that the client says.
    pub(crate) fn hash(&self) -> String {
        let mut hash = Sha256::new();
        (0..self.messages).for_each(|index| hash.update(self.content(From::Client, index)));
        shown(hash)
    }
}

/// A hash as text.
pub(crate) fn shown(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_and_no_two_messages_are_alike() {
        let work = Work { id: 7, kind: Kind::Up, messages: 3, size: 100, pause: Duration::from_micros(1500) };

        assert_eq!(Work::read(&format!("{}rest", work.head())), Some((work, "rest")));
        assert_eq!(Work::read("no head"), None);
        let all = [(From::Client, 0), (From::Client, 1), (From::Service, 0)].map(|(from, i)| work.content(from, i));
        assert!(all.iter().all(|text| text.len() == 100));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }
}
