//! The file of who may register: read strictly, so that what is misspelt permits nothing by accident, and each mistake is
//! told with its line.

use std::{
    collections::HashSet,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    time::SystemTime,
};

use prost_types::Timestamp;
use serde::Deserialize;
use toml::{Spanned, value::Datetime};

use super::{MAX_INSTANCES, MAX_LIVE_TOKENS, Pattern, RegistrationRule, TokenRecord};
use crate::gateway::secrets::SecretHash;

/// The file of who may register, for those who change it.
///
/// # The file
/// ```toml
/// [[principal]]
/// name = "site-a"                        # letters, digits, . _ -
/// services = ["shop.*"]                  # names or patterns; * stands for any text
/// instances = ["site-a-*"]               # instance ids; when left out, any
/// routing_keys = ["customer-*"]          # keys beside its instance id; when left out, none
/// max_instances = 4                      # when left out, 16
/// expires = 2027-12-31T00:00:00Z         # when left out, never
/// certificates = ["spiffe://hospital.example/site-a"]  # by what TLS proves it, if it does
/// tokens = [                             # `grpcrouter token create` and `revoke` write these
///   { id = "7Qd0aVbC2e", hash = "sha256:…", created = 2026-11-21T18:00:00Z, expires = 2027-02-19T18:00:00Z },
/// ]
/// ```
///
/// What is changed here leaves all else of the file as it is, comments too, but for those inside of `tokens`.
#[derive(Debug, Clone)]
pub struct RegistrationFile {
    pub(super) path: PathBuf,
    /// As it was read; none where there was no file.
    pub(super) before: Option<String>,
    pub(super) text: String,
    pub(super) rules: Vec<RegistrationRule>,
}

impl RegistrationFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or something in it cannot be meant: the text has the line.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, RegistrationFileError> {
        let path = path.into();
        let text = read(&path)?;
        let rules = parse(&path, &text)?;
        Ok(Self { path, before: Some(text.clone()), text, rules })
    }

    /// The same, of a file that need not be there yet.
    ///
    /// # Errors
    /// As for [`read`](Self::read), if it is there.
    pub fn read_or_new(path: impl Into<PathBuf>) -> Result<Self, RegistrationFileError> {
        let path = path.into();
        match Self::read(&path) {
            Err(RegistrationFileError::Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { path, before: None, text: String::new(), rules: Vec::new() })
            }
            other => other,
        }
    }

    /// What it says, in its order.
    pub fn rules(&self) -> &[RegistrationRule] {
        &self.rules
    }
}

/// A file of who may register that cannot be used, or not be changed.
///
/// Its text is the whole story, with what the system said; so it names no [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationFileError {
    /// The file could not be read.
    #[error(
        "cannot read {}: {error}; check the path, and that this process may read it; `grpcrouter token create NAME --file \
         FILE --services 'shop.*'` makes one",
        .path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },

    /// Something in the file cannot be meant.
    #[error("{}:{line}: {why}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        why: String,
    },

    /// The change asked for is none that can be made.
    #[error("{why}")]
    Refused {
        /// Why not, and what can be.
        why: String,
    },

    /// The file could not be written.
    #[error("cannot write {}: {error}; the file is as it was", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The text of a file.
pub(in crate::gateway) fn read(path: &Path) -> Result<String, RegistrationFileError> {
    let unreadable = |error| RegistrationFileError::Unreadable { path: path.into(), error };
    if fs::metadata(path).map_err(unreadable)?.len() > MAX_LENGTH {
        return Err(unreadable(io::Error::other("it is larger than 16 MiB")));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// What a file says.
pub(in crate::gateway) fn parse(path: &Path, text: &str) -> Result<Vec<RegistrationRule>, RegistrationFileError> {
    let mistake = |(span, why): Mistake| {
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        RegistrationFileError::Malformed { path: path.into(), line, why }
    };
    let file = toml::from_str::<FileText>(text)
        .map_err(|error| mistake((error.span().unwrap_or(0..0), hint(error.message()))))?;
    let mut seen = Seen { now: SystemTime::now(), names: HashSet::new(), ids: HashSet::new() };
    file.principal.into_iter().map(|rule| rule.check(&mut seen).map_err(mistake)).collect()
}

/// Where `tokens` stand of each principal, and where its name does.
pub(super) fn places(text: &str) -> Vec<(Option<Range<usize>>, Range<usize>)> {
    let rules = toml::from_str::<FileText>(text).map(|file| file.principal).unwrap_or_default();
    rules.iter().map(|rule| (rule.tokens.as_ref().map(Spanned::span), rule.name.span())).collect()
}

/// What is wrong, and where.
type Mistake = (Range<usize>, String);

/// What must not come twice in one file.
struct Seen {
    now: SystemTime,
    names: HashSet<String>,
    ids: HashSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    principal: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Spanned<String>,
    services: Spanned<Vec<Spanned<String>>>,
    instances: Option<Spanned<Vec<Spanned<String>>>>,
    routing_keys: Option<Vec<Spanned<String>>>,
    max_instances: Option<Spanned<i64>>,
    expires: Option<Spanned<Datetime>>,
    certificates: Option<Vec<Spanned<String>>>,
    tokens: Option<Spanned<Vec<TokenText>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenText {
    id: Spanned<String>,
    hash: Spanned<String>,
    created: Option<Spanned<Datetime>>,
    expires: Option<Spanned<Datetime>>,
    revoked: Option<Spanned<Datetime>>,
}

impl RuleText {
    fn check(self, seen: &mut Seen) -> Result<RegistrationRule, Mistake> {
        let place = self.name.span();
        let tokens_place = self.tokens.as_ref().map_or_else(|| place.clone(), Spanned::span);
        let name = self.name.into_inner();
        check_name(&name).map_err(|why| (place.clone(), why))?;
        if !seen.names.insert(name.clone()) {
            return Err((place, format!("the principal {name:?} is here twice: join the two, or name one otherwise")));
        }
        let some = |patterns: Spanned<Vec<Spanned<String>>>, what: &str| {
            let span = patterns.span();
            match patterns.into_inner() {
                none if none.is_empty() => Err((span, format!("{what} is empty, so {name:?} may register nothing"))),
                some => checked(some, Pattern::parse),
            }
        };
        let services = some(self.services, "services")?;
        let instances = self.instances.map_or_else(|| Ok(vec!["*".to_owned()]), |list| some(list, "instances"))?;
        let max_instances = match self.max_instances {
            None => MAX_INSTANCES,
            Some(most) => usize::try_from(*most.get_ref())
                .ok()
                .filter(|most| *most > 0)
                .ok_or_else(|| (most.span(), "max_instances must be 1 or more".to_owned()))?,
        };
        let tokens = self.tokens.map(Spanned::into_inner).unwrap_or_default();
        let rule = RegistrationRule {
            routing_keys: checked(self.routing_keys.unwrap_or_default(), Pattern::parse)?,
            expires: time(self.expires)?,
            certificates: checked(self.certificates.unwrap_or_default(), Pattern::parse_uri)?,
            tokens: tokens.into_iter().map(|token| token.check(seen)).collect::<Result<_, _>>()?,
            name,
            services,
            instances,
            max_instances,
        };
        check_live(&rule, seen.now).map_err(|why| (tokens_place, why))?;
        Ok(rule)
    }
}

impl TokenText {
    fn check(self, seen: &mut Seen) -> Result<TokenRecord, Mistake> {
        let id = self.id.get_ref().clone();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err((
                self.id.span(),
                "a token's id has letters and digits alone: copy it from the token".to_owned(),
            ));
        }
        if !seen.ids.insert(id.clone()) {
            return Err((self.id.span(), format!("the token id {id} is here twice: remove one of them")));
        }
        let hash = self.hash.get_ref();
        hash.parse::<SecretHash>().map_err(|error| (self.hash.span(), format!("hash cannot be used: {error}")))?;
        Ok(TokenRecord {
            hash: hash.clone(),
            created: time(self.created)?,
            expires: time(self.expires)?,
            revoked: time(self.revoked)?,
            id,
        })
    }
}

/// The rules for all rules, for those of code too.
pub(in crate::gateway) fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        return Err(format!("the name {name:?} cannot be used: 1 to {MAX_NAME} letters, digits, `.`, `_` and `-`"));
    }
    Ok(())
}

/// No more tokens hold than one that goes and one that comes.
pub(in crate::gateway) fn check_live(rule: &RegistrationRule, now: SystemTime) -> Result<(), String> {
    let live = rule.live_tokens(now).count();
    if live > MAX_LIVE_TOKENS {
        return Err(format!(
            "{live} tokens of {:?} hold at the same time: at most {MAX_LIVE_TOKENS} may, the old one and the new; revoke one \
             with `grpcrouter token revoke ID`",
            rule.name
        ));
    }
    Ok(())
}

fn checked(
    list: Vec<Spanned<String>>,
    parse: fn(&str) -> Result<Pattern, &'static str>,
) -> Result<Vec<String>, Mistake> {
    let each = list.into_iter().map(|text| match parse(text.get_ref()) {
        Ok(_) => Ok(text.into_inner()),
        Err(why) => Err((text.span(), format!("{:?} cannot be used: {why}", text.get_ref()))),
    });
    each.collect()
}

fn time(time: Option<Spanned<Datetime>>) -> Result<Option<SystemTime>, Mistake> {
    let Some(time) = time else { return Ok(None) };
    let read = time.get_ref().offset.and_then(|_| time.get_ref().to_string().parse::<Timestamp>().ok());
    match read.and_then(|time| SystemTime::try_from(time).ok()) {
        Some(read) => Ok(Some(read)),
        None => {
            let why =
                format!("{} is no moment: write date, time and zone, such as 2027-02-19T18:00:00Z", time.get_ref());
            Err((time.span(), why))
        }
    }
}

/// What the library says, with what to do where it does not say that.
fn hint(message: &str) -> String {
    match message {
        "missing field `services`" => {
            "services is missing: write what this principal may answer, such as services = [\"shop.*\"]".to_owned()
        }
        "missing field `name`" => "name is missing: write who this is about, such as name = \"site-a\"".to_owned(),
        other => other.replace('\n', " "),
    }
}

/// As it stands in logs.
const MAX_NAME: usize = 64;

/// Some ten thousand principals.
const MAX_LENGTH: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::time::Duration;

    use super::*;
    use crate::gateway::registration::{RegistrationToken, shown_time};

    fn read(text: &str) -> Result<Vec<RegistrationRule>, String> {
        parse(Path::new("registration.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        let token = TokenRecord::of(&RegistrationToken::generate());
        let text = format!(
            "[[principal]]\nname = \"site-a\"\nservices = [\"shop.*\", \"bank.Accounts\"]\ninstances = [\"site-a-*\"]\n\
             routing_keys = [\"k*\"]\nmax_instances = 3\nexpires = 2027-12-31T01:00:00+01:00\n\
             certificates = [\"spiffe://hospital.example/site-a\"]\n\
             tokens = [{{ id = \"{}\", hash = \"{}\", expires = 2030-01-01T00:00:00Z }}]\n\n\
             [[principal]]\nname = \"site-b\"\nservices = [\"*\"]\n",
            token.id, token.hash
        );

        let rules = read(&text).unwrap();

        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        let token = TokenRecord { created: None, expires: Some(expires), ..token };
        let first = RegistrationRule::new("site-a")
            .services(["shop.*", "bank.Accounts"])
            .instances(["site-a-*"])
            .routing_keys(["k*"])
            .max_instances(3)
            .expires(SystemTime::UNIX_EPOCH + Duration::from_secs(1_830_211_200))
            .certificate("spiffe://hospital.example/site-a")
            .token(token);
        assert_eq!(rules, [first, RegistrationRule::new("site-b").services(["*"])]);
        assert_eq!(shown_time(expires), "2030-01-01T00:00:00Z");
    }

    #[test]
    fn a_file_that_says_nothing_permits_nothing() {
        assert_eq!(read("# nobody yet\n").unwrap(), []);
    }

    #[test]
    fn each_mistake_is_told_with_its_line_and_what_would_be_right() {
        let hash = TokenRecord::of(&RegistrationToken::generate()).hash;
        let of = |line: &str| format!("[[principal]]\nname = \"a\"\nservices = [\"shop.*\"]\n{line}\n");
        let token = |rest: &str| of(&format!("tokens = [\n  {{ {rest} }},\n]"));
        for (text, said) in [
            (of("service = [\"x\"]"), "registration.toml:4: unknown field `service`, expected one of "),
            (of("max_instances = 0"), "registration.toml:4: max_instances must be 1 or more"),
            (of("max_instances = \"2\""), "registration.toml:4: invalid type: string \"2\", expected i64"),
            (of("instances = \"a\""), "registration.toml:4: invalid type: string \"a\", expected a sequence"),
            (of("instances = []"), "registration.toml:4: instances is empty, so \"a\" may register nothing"),
            (
                of("instances = [\n\"a\",\n\"b c\"]"),
                "registration.toml:6: \"b c\" cannot be used: it holds white space",
            ),
            (of("certificates = [\"*\"]"), "registration.toml:4: \"*\" cannot be used: it is no URI with a path: "),
            (of("expires = 2027-01-01"), "registration.toml:4: 2027-01-01 is no moment: write date, time and zone, "),
            (of("expires = 2027-01-01T00:00:00"), "registration.toml:4: 2027-01-01T00:00:00 is no moment: "),
            (of("name = \"b\""), "registration.toml:4: duplicate key"),
            (of("what is this"), "registration.toml:4: "),
            (
                of("[[principal]]\nname = \"a\"\nservices = [\"x\"]"),
                "registration.toml:5: the principal \"a\" is here twice",
            ),
            (of("[principals]"), "registration.toml:4: unknown field `principals`, expected `principal`"),
            (
                "[[principal]]\nname = \"a b\"\nservices = [\"x\"]".into(),
                "registration.toml:2: the name \"a b\" cannot be",
            ),
            ("\n[[principal]]\nname = \"a\"".into(), "registration.toml:2: services is missing: write what "),
            (token(&format!("id = \"a_b\", hash = \"{hash}\"")), "registration.toml:5: a token's id has letters and "),
            (token("id = \"a\", hash = \"sha256:12\""), "registration.toml:5: hash cannot be used: it must be "),
            (
                token(&format!("id = \"a\", hash = \"{hash}\", secret = \"x\"")),
                "registration.toml:5: unknown field `secret`",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(said), "{text}\n{error}\n{said}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_third_token_that_holds_is_one_too_many() {
        let hash = TokenRecord::of(&RegistrationToken::generate()).hash;
        let of = |third: &str| {
            let token = |id: &str, more: &str| format!("{{ id = \"{id}\", hash = \"{hash}\"{more} }}");
            format!(
                "[[principal]]\nname = \"a\"\nservices = [\"x\"]\ntokens = [{}, {}, {}]",
                token("a", ""),
                token("b", ""),
                token("c", third)
            )
        };

        assert!(read(&of(", revoked = 2026-01-01T00:00:00Z")).is_ok());
        assert!(read(&of(", expires = 2020-01-01T00:00:00Z")).is_ok());
        let error = read(&of(", expires = 2120-01-01T00:00:00Z")).unwrap_err();
        assert!(error.starts_with("registration.toml:4: 3 tokens of \"a\" hold at the same time: "), "{error}");
    }
}
