//! A resume is answered as the naive truth says: the right token, current or previous, until the instance has spoken on
//! the stream that brought the current one; a later stream than the last; counters that can be. A lost answer costs
//! nothing, and a wrong one changes nothing.

use bytes::Bytes;
use grpcrouter_protocol::{Resume, ResumeError, Resumed, TokenHash};

use crate::sim::life::Half;

/// The tokens that a gateway takes, and those that it took once.
#[derive(Debug)]
pub(crate) struct Good {
    pub(crate) current: Bytes,
    previous: Option<Bytes>,
    /// What a thief may have found.
    pub(crate) worn: Vec<Bytes>,
}

/// How a resume must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Resumed,
    WrongToken,
    OldEpoch,
    Impossible,
    Closed,
}

impl Good {
    pub(crate) fn new(first: Bytes) -> Self {
        Self { current: first, previous: None, worn: Vec::new() }
    }

    /// The gateway gave a new token to whoever showed this one.
    pub(crate) fn renew(&mut self, shown: Bytes, fresh: Bytes) {
        for old in [std::mem::replace(&mut self.current, fresh)].into_iter().chain(self.previous.take()) {
            if old != shown {
                self.worn.push(old);
            }
        }
        self.previous = Some(shown);
    }

    /// The instance has spoken on the stream that brought the current token.
    pub(crate) fn settle(&mut self) {
        self.worn.extend(self.previous.take());
    }

    /// How the gateway must answer.
    pub(crate) fn expected(&self, resume: &Resume, gateway: &Half) -> Expected {
        if !gateway.lives() {
            Expected::Closed
        } else if resume.token != self.current && Some(&resume.token) != self.previous.as_ref() {
            Expected::WrongToken
        } else if resume.epoch <= gateway.epoch {
            Expected::OldEpoch
        } else if is_impossible(resume, gateway) {
            Expected::Impossible
        } else {
            Expected::Resumed
        }
    }
}

impl Expected {
    /// True if the tunnel must be as before.
    pub(crate) fn is_harmless(self) -> bool {
        matches!(self, Self::WrongToken | Self::OldEpoch)
    }

    pub(crate) fn check(self, answer: &Result<Resumed, ResumeError>) {
        let came = match answer {
            Ok(_) => Self::Resumed,
            Err(ResumeError::WrongToken) => Self::WrongToken,
            Err(ResumeError::OldEpoch { .. }) => Self::OldEpoch,
            Err(ResumeError::Impossible(_)) => Self::Impossible,
            Err(_) => Self::Closed,
        };
        assert_eq!(came, self, "{answer:?}");
    }
}

/// True if it says that it has what was never sent, or that it never sent what came. That it wants again what it has acked
/// is as impossible, but only the gateway knows what was acked.
fn is_impossible(resume: &Resume, gateway: &Half) -> bool {
    let [rx_next, tx_first, tx_next] = [resume.rx_next, resume.tx_first, resume.tx_next].map(|seq| seq.get());
    let (sent, taken) = (gateway.numbers.sent, gateway.numbers.taken);
    rx_next == 0 || rx_next > sent + 1 || tx_first > taken + 1 || tx_next < taken + 1
}

/// Stands for SHA-256: another hash for each token.
pub(crate) fn hash(token: &[u8]) -> TokenHash {
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = token.get(at % 8).copied().unwrap_or_default() ^ at as u8;
    }
    TokenHash(hash)
}
