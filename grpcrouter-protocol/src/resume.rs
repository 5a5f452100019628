//! What a gateway remembers of a resume token: its hash, never the token, and the one before it until that is of no use.
//! Tokens are made and hashed by whoever has chance; here they are only compared, in constant time.

use std::fmt;

use bytes::Bytes;
use subtle::ConstantTimeEq;

use crate::id::{Epoch, Seq};

/// The SHA-256 of a resume token.
#[derive(Clone, Copy)]
pub struct TokenHash(pub [u8; 32]);

impl PartialEq for TokenHash {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// A token that nobody has seen yet.
#[derive(Clone)]
pub struct FreshToken {
    /// What the instance is told: at most 256 bytes, out of 256 bits of chance.
    pub token: Bytes,
    /// What the gateway keeps.
    pub hash: TokenHash,
}

impl fmt::Debug for FreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreshToken(..)")
    }
}

/// What an instance says of a tunnel that it wants on another stream; with the tunnel's id and token it is a
/// [`Resume`](crate::Resume).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// The stream that asks.
    pub epoch: Epoch,
    /// The batch that the instance expects next.
    pub rx_next: Seq,
    /// The first batch that it can send again.
    pub tx_first: Seq,
    /// The next batch that it will number.
    pub tx_next: Seq,
}

/// The tokens that resume a tunnel.
#[derive(Debug)]
pub(crate) struct Tokens {
    current: TokenHash,
    /// The one that the last resume showed. Until something comes on the stream of that resume, its answer with the
    /// current one may have been lost.
    previous: Option<TokenHash>,
}

impl Tokens {
    pub(crate) const fn new(first: TokenHash) -> Self {
        Self { current: first, previous: None }
    }

    pub(crate) fn fits(&self, shown: TokenHash) -> bool {
        // Both are compared, always.
        let (is_current, is_previous) = (self.current == shown, self.previous.is_some_and(|token| token == shown));
        is_current | is_previous | mutant!(AnyToken)
    }

    /// `shown` was good, and `fresh` is on its way to the instance.
    pub(crate) fn renew(&mut self, shown: TokenHash, fresh: TokenHash) {
        self.previous = if mutant!(PreviousTokenDropped) { None } else { Some(shown) };
        self.current = fresh;
    }

    /// The instance has the current one: it spoke on the stream that brought it.
    pub(crate) fn settle(&mut self) {
        if !mutant!(PreviousTokenKept) {
            self.previous = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TokenHash = TokenHash([1; 32]);
    const B: TokenHash = TokenHash([2; 32]);
    const C: TokenHash = TokenHash([3; 32]);

    #[test]
    fn the_token_before_is_good_until_the_instance_has_spoken_on_the_stream_of_the_new_one() {
        let mut tokens = Tokens::new(A);
        tokens.renew(A, B);
        assert!(tokens.fits(A) && tokens.fits(B) && !tokens.fits(C));
        // The answer was lost, and the next attempt's is on its way: B was never heard of.
        tokens.renew(A, C);
        assert!(tokens.fits(A) && tokens.fits(C) && !tokens.fits(B));
        tokens.settle();
        assert!(!tokens.fits(A) && tokens.fits(C));
    }

    #[test]
    fn no_token_is_shown_to_a_log() {
        let fresh = FreshToken { token: Bytes::from_static(b"secret"), hash: A };
        assert_eq!(format!("{fresh:?} {A:?}"), "FreshToken(..) TokenHash(..)");
    }
}
