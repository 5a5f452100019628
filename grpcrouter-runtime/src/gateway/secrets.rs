//! Secrets that this project issues: `<prefix>_<id>_<secret>`, such as `grk_7Qd0aVbC2e_…`. The id finds the entry, the
//! whole is kept as its SHA-256 alone and compared in constant time. Nothing here shows a secret.

use std::{fmt, str::FromStr};

use rand::{Rng as _, distr::Alphanumeric};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A secret that somebody presents. Only its shape is checked.
#[derive(Clone, Copy)]
pub(crate) struct Secret<'a> {
    whole: &'a str,
    id: &'a str,
}

impl<'a> Secret<'a> {
    /// Reads `text`, if it has the shape of a secret with this prefix.
    pub(crate) fn parse(prefix: &str, text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(prefix)?.strip_prefix('_')?.split_once('_')?;
        let plain = |part: &str, most| part.len() <= most && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fits = !id.is_empty() && secret.len() >= SECRET_CHARS && plain(id, MOST_CHARS) && plain(secret, MOST_CHARS);
        fits.then_some(Self { whole: text, id })
    }

    /// Which entry it says it is of.
    pub(crate) fn id(&self) -> &'a str {
        self.id
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.whole).into())
    }
}

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is kept of a secret: it tells a right one and cannot be presented.
#[derive(Clone, Copy)]
pub(crate) struct SecretHash([u8; 32]);

impl SecretHash {
    /// Whether `secret` is the one that this was made of. Takes the same time wherever they differ.
    #[cfg(any(feature = "callers", test))]
    pub(crate) fn matches(&self, secret: &Secret<'_>) -> bool {
        *self == secret.hash()
    }

    /// Of no secret: for comparing where there is nothing to compare with, so that time does not tell that.
    pub(crate) fn of_nothing() -> Self {
        Self([0; 32])
    }
}

/// Takes the same time wherever they differ.
impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// As it stands in a file: `sha256:` and 64 hexadecimal digits.
impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_NAME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// This text is no hash of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be \"sha256:\" and 64 hexadecimal digits")]
pub(crate) struct NoHash;

impl FromStr for SecretHash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let digits = text.strip_prefix(HASH_NAME).ok_or(NoHash)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoHash);
        }
        let mut hash = [0; 32];
        for (byte, two) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let two = std::str::from_utf8(two).map_err(|_| NoHash)?;
            *byte = u8::from_str_radix(two, 16).map_err(|_| NoHash)?;
        }
        Ok(Self(hash))
    }
}

/// A secret that was just made. Its text is told once, to the one who asked for it.
pub(crate) struct NewSecret {
    id: String,
    text: String,
}

impl NewSecret {
    /// Makes one, with about 190 random bits, from the system's randomness.
    pub(crate) fn generate(prefix: &str) -> Self {
        let chars = |count| rand::rng().sample_iter(Alphanumeric).take(count).map(char::from).collect::<String>();
        let id = chars(ID_CHARS);
        let text = format!("{prefix}_{id}_{}", chars(SECRET_CHARS));
        Self { id, text }
    }

    /// Which entry it is of.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The secret itself, to hand out.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What to keep.
    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(&self.text).into())
    }
}

impl fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

const HASH_NAME: &str = "sha256:";

/// Letters and digits of an id: enough that a million of them differ.
const ID_CHARS: usize = 10;

/// Letters and digits of a secret: 62^32 is more than 2^190.
const SECRET_CHARS: usize = 32;

/// No part is longer: what is hashed for each try is short.
const MOST_CHARS: usize = 128;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_new_secret_is_known_by_its_id_and_its_hash() {
        let new = NewSecret::generate("grk");

        let shown = Secret::parse("grk", new.text()).unwrap();

        assert_eq!(shown.id(), new.id());
        let kept: SecretHash = new.hash().to_string().parse().unwrap();
        assert!(kept.matches(&shown));
        assert!(!kept.matches(&Secret::parse("grk", NewSecret::generate("grk").text()).unwrap()));
    }

    #[test]
    fn the_right_secret_under_another_id_is_wrong() {
        let new = NewSecret::generate("grk");
        let other = new.text().replace(new.id(), "AAAAAAAAAA");

        assert!(!new.hash().matches(&Secret::parse("grk", &other).unwrap()));
    }

    #[test]
    fn what_has_not_the_shape_is_no_secret() {
        let secret = "s".repeat(SECRET_CHARS);

        assert!(Secret::parse("grk", &format!("grk_id_{secret}")).is_some());
        for text in [
            String::new(),
            "grk".into(),
            "grk_".into(),
            format!("grk__{secret}"),
            format!("grt_id_{secret}"),
            format!("GRK_id_{secret}"),
            format!("grk_id_{}", "s".repeat(SECRET_CHARS - 1)),
            format!("grk_id_{secret}_more"),
            format!("grk_../id_{secret}"),
            format!("grk_id_{secret}\n"),
            format!("grk_id_{}", "s".repeat(129)),
            format!("grk_{}_{secret}", "i".repeat(129)),
        ] {
            assert!(Secret::parse("grk", &text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_hash_that_is_none_is_refused() {
        let good = NewSecret::generate("grk").hash().to_string();

        assert_eq!(good.parse::<SecretHash>().unwrap().to_string(), good);
        for text in [&good[1..], &good[..70], "sha256:", "", "md5:00", &format!("sha256:+{}", &good[8..])] {
            assert_eq!(text.parse::<SecretHash>().unwrap_err(), NoHash, "{text}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let new = NewSecret::generate("grk");
        let secret = new.text().rsplit_once('_').unwrap().1;
        let shown = format!("{new:?} {:?} {:?}", Secret::parse("grk", new.text()).unwrap(), new.hash());

        assert!(!shown.contains(secret), "{shown}");
        assert!(shown.contains(new.id()));
    }
}
