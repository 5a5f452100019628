//! Tokens that instances register with: made here, handed out once, and kept as a hash.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;

use crate::gateway::secrets::NewSecret;

/// What a token begins with.
pub(in crate::gateway) const PREFIX: &str = "grt";

/// A token that was just made, `grt_<id>_<secret>`. Its `Debug` shows the id alone.
pub struct RegistrationToken(NewSecret);

impl RegistrationToken {
    /// Makes one, with about 190 bits from the system's randomness.
    pub fn generate() -> Self {
        Self(NewSecret::generate(PREFIX))
    }

    /// By what it is known in files and logs; no secret.
    pub fn id(&self) -> &str {
        self.0.id()
    }

    /// The token itself, for the backend's owner. Nothing can tell it again.
    pub fn text(&self) -> &str {
        self.0.text()
    }
}

impl fmt::Debug for RegistrationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationToken").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// What is kept of a token: enough to know it again, not enough to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenRecord {
    /// By what it is known.
    pub id: String,
    /// `sha256:` and 64 hexadecimal digits, of the whole token.
    pub hash: String,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// From then on it does not hold.
    pub expires: Option<SystemTime>,
    /// When it was taken back: it does not hold any more.
    pub revoked: Option<SystemTime>,
}

impl TokenRecord {
    /// Of a token, which then holds for good.
    pub fn of(token: &RegistrationToken) -> Self {
        Self {
            id: token.id().to_owned(),
            hash: token.0.hash().to_string(),
            created: Some(SystemTime::now()),
            expires: None,
            revoked: None,
        }
    }

    /// Sets [`expires`](Self::expires).
    pub fn expires(self, at: SystemTime) -> Self {
        Self { expires: Some(at), ..self }
    }

    /// Whether it holds.
    pub fn is_live(&self, now: SystemTime) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|at| now < at)
    }
}

/// As people write it: `2027-02-19T18:00:00Z`.
pub(in crate::gateway) fn shown_time(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }.to_string()
}
