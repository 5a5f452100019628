//! Callers that show an API key, `grk_<id>_<secret>`: a file of their hashes, and how one is made.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    ops::Range,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;
use serde::Deserialize;
use toml::{Spanned, value::Datetime};

use super::caller::Caller;
use crate::gateway::secrets::{NewSecret, Secret, SecretHash};

/// What a key begins with.
pub(super) const PREFIX: &str = "grk";

/// An API key that was just made, `grk_<id>_<secret>`. Its `Debug` shows the id alone.
pub struct ApiKey(NewSecret);

impl ApiKey {
    /// Makes one, with about 190 bits from the system's randomness.
    pub fn generate() -> Self {
        Self(NewSecret::generate(PREFIX))
    }

    /// By what it is known in the file; no secret.
    pub fn id(&self) -> &str {
        self.0.id()
    }

    /// The key itself, for the caller. Nothing can tell it again.
    pub fn text(&self) -> &str {
        self.0.text()
    }

    /// What to keep of it: `sha256:` and 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        self.0.hash().to_string()
    }

    /// The lines for the file of keys, for the caller `name` with these scopes.
    pub fn entry(&self, name: &str, scopes: &[&str]) -> String {
        let mut entry = format!("[[key]]\nname = {name:?}\nid = \"{}\"\nhash = \"{}\"\n", self.id(), self.hash());
        if !scopes.is_empty() {
            entry.push_str(&format!("scopes = {scopes:?}\n"));
        }
        entry
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// All keys of a file, by id.
#[derive(Debug)]
pub(super) struct ApiKeys(HashMap<String, Key>);

#[derive(Debug)]
struct Key {
    hash: SecretHash,
    caller: Arc<Caller>,
}

impl ApiKeys {
    /// # Errors
    /// The first mistake, with its line and what would be right.
    pub(super) fn read(content: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(content).map_err(|_| "it is no text in UTF-8".to_owned())?;
        let at = |span: &Range<usize>| 1 + text.get(..span.start).map_or(0, |before| before.matches('\n').count());
        let file: FileText = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| format!("line {}: ", at(&span))).unwrap_or_default();
            format!("{line}{}", error.message().replace('\n', " "))
        })?;
        let mut keys = HashMap::new();
        let mut live: HashMap<String, usize> = HashMap::new();
        let now = super::jwt::unix_now();
        for entry in file.key {
            let key = entry.check(|span, why| format!("line {}: {why}", at(span)));
            let (id, place, name, key) = key?;
            let wrong = |why: String| Err(format!("line {}: {why}", at(&place)));
            if key.caller.until > now {
                let live = live.entry(name.clone()).or_default();
                *live += 1;
                if *live > MOST_LIVE {
                    return wrong(format!(
                        "{name:?} has more than {MOST_LIVE} keys that are good: the old one and the new"
                    ));
                }
            }
            match keys.entry(id) {
                Entry::Vacant(place) => place.insert(key),
                Entry::Occupied(taken) => return wrong(format!("the id {:?} is there twice", taken.key())),
            };
        }
        Ok(Self(keys))
    }

    /// Whose key this is, if it is good.
    ///
    /// # Errors
    /// Why it is not. An id that is not there and a secret that is wrong are told alike, and take the same time.
    pub(super) fn verify(&self, text: &str) -> Result<Arc<Caller>, String> {
        let Some(secret) = Secret::parse(PREFIX, text) else {
            return Err(format!("the API key has not the shape {PREFIX}_<id>_<secret>: was it cut short?"));
        };
        let key = self.0.get(secret.id());
        let nobody = SecretHash::of_nothing();
        if !key.map_or(&nobody, |key| &key.hash).matches(&secret) {
            return Err("the API key is not known here, or was withdrawn".to_owned());
        }
        match key.map(|key| &key.caller) {
            Some(caller) if caller.until > super::jwt::unix_now() => Ok(caller.clone()),
            Some(_) => Err("the API key is expired: ask for a new one".to_owned()),
            None => Err("the API key is not known here, or was withdrawn".to_owned()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    key: Vec<KeyText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyText {
    name: Spanned<String>,
    id: Spanned<String>,
    hash: Spanned<String>,
    #[serde(default)]
    scopes: Vec<Spanned<String>>,
    expires: Option<Spanned<Datetime>>,
}

impl KeyText {
    fn check(
        self,
        wrong: impl Fn(&Range<usize>, String) -> String,
    ) -> Result<(String, Range<usize>, String, Key), String> {
        let name = self.name.get_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@/".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(plain) {
            let why = format!("the name {name:?} cannot be: 1 to {LONGEST_NAME} letters, digits and ._-@/");
            return Err(wrong(&self.name.span(), why));
        }
        let id = self.id.get_ref();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            // Not shown: it may be the whole key.
            let why = "this id cannot be: it is what stands between the first two _ of the key".to_owned();
            return Err(wrong(&self.id.span(), why));
        }
        let hash = self.hash.get_ref().parse::<SecretHash>();
        let hash = hash.map_err(|why| wrong(&self.hash.span(), format!("the hash cannot be: {why}")))?;
        for scope in &self.scopes {
            if scope.get_ref().is_empty() || scope.get_ref().contains(char::is_whitespace) {
                let why = format!("the scope {:?} cannot be: a scope is one word", scope.get_ref());
                return Err(wrong(&scope.span(), why));
            }
        }
        let until = match &self.expires {
            None => u64::MAX,
            Some(time) => moment(time.get_ref()).ok_or_else(|| {
                let why =
                    format!("{} is no moment: write date, time and zone, such as 2027-02-19T18:00:00Z", time.get_ref());
                wrong(&time.span(), why)
            })?,
        };
        let scopes = self.scopes.into_iter().map(Spanned::into_inner).collect();
        let (name, place) = (self.name.into_inner(), self.id.span());
        let key = Key { hash, caller: Arc::new(Caller::new("key", &name, scopes, until)) };
        Ok((self.id.into_inner(), place, name, key))
    }
}

/// In seconds of Unix time; what was before that is long over.
fn moment(time: &Datetime) -> Option<u64> {
    time.offset?;
    let time = SystemTime::try_from(time.to_string().parse::<Timestamp>().ok()?).ok()?;
    Some(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// The one that goes and the one that comes.
const MOST_LIVE: usize = 2;

/// As it stands in a header and in logs.
const LONGEST_NAME: usize = 128;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn read(text: &str) -> Result<ApiKeys, String> {
        ApiKeys::read(text.as_bytes())
    }

    #[test]
    fn a_key_of_the_file_is_good_and_no_other() {
        let (key, other, late) = (ApiKey::generate(), ApiKey::generate(), ApiKey::generate());
        let mut file = key.entry("ci", &["orders.read", "orders.write"]);
        file.push_str(&late.entry("old", &[]));
        file.push_str("expires = 2020-01-01T00:00:00+02:00\n");
        let keys = read(&file).unwrap();

        let caller = keys.verify(key.text()).unwrap();

        assert_eq!((caller.principal.as_str(), caller.until), ("key:ci", u64::MAX));
        assert_eq!(caller.scopes, ["orders.read", "orders.write"]);
        let forged = key.text().replace(key.id(), other.id());
        let changed = format!("{}A", &key.text()[..key.text().len() - 1]);
        let changed = if changed == key.text() { changed.replace('A', "B") } else { changed };
        let unknown = keys.verify(other.text()).unwrap_err();
        assert_eq!(keys.verify(&forged).unwrap_err(), unknown);
        assert_eq!(keys.verify(&changed).unwrap_err(), unknown);
        assert!(keys.verify(late.text()).unwrap_err().contains("expired"));
        for text in ["", "grk_", "grk_a_b", "Bearer x"] {
            assert!(keys.verify(text).unwrap_err().contains("grk_<id>_<secret>"), "{text}");
        }
    }

    #[test]
    fn each_mistake_is_told_with_its_line_and_what_would_be_right() {
        let good = ApiKey::generate().entry("ci", &[]);
        let of = |line: &str, instead: &str| {
            let kept = good.lines().filter(|kept| !kept.starts_with(line)).collect::<Vec<_>>().join("\n");
            format!("{kept}\n{instead}\n")
        };
        for (text, said) in [
            (of("name", "name = \"a b\""), "line 4: the name \"a b\" cannot be"),
            (of("id", "id = \"a_b\""), "line 4: this id cannot be"),
            (of("hash", "hash = \"grk_secret\""), "line 4: the hash cannot be: it must be \"sha256:\""),
            (of("scopes", "scopes = [\"a b\"]"), "line 5: the scope \"a b\" cannot be"),
            (of("expires", "expires = 2027-01-01"), "line 5: 2027-01-01 is no moment"),
            (of("expires", "expires = 2027-01-01T00:00:00"), "line 5: 2027-01-01T00:00:00 is no moment"),
            (of("key", "secret = \"x\""), "line 5: unknown field `secret`"),
            (of("name", ""), "line 1: missing field `name`"),
            (of("", "[keys]"), "line 2: unknown field `keys`"),
            (format!("{good}{good}"), "line 7: the id"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(said), "{text}\n{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn two_keys_of_one_caller_are_good_at_a_time() {
        let entry = |more: &str| ApiKey::generate().entry("ci", &[]) + more;
        let two = entry("") + &entry("");

        assert_eq!(read(&(two.clone() + &entry("expires = 2020-01-01T00:00:00Z\n"))).unwrap().0.len(), 3);
        let error = read(&(two + &entry("expires = 2120-01-01T00:00:00Z\n"))).unwrap_err();
        assert!(error.contains("\"ci\" has more than 2 keys that are good"), "{error}");
    }

    #[test]
    fn nothing_shows_a_key() {
        let key = ApiKey::generate();
        let keys = read(&key.entry("ci", &[])).unwrap();

        let shown = format!("{key:?} {keys:?} {}", key.entry("ci", &[]));

        assert!(!shown.contains(key.text().rsplit_once('_').unwrap().1), "{shown}");
    }
}
