//! Who calls, once it is proved; and who may.

use std::fmt;

use grpcrouter_protocol::Text;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// Somebody whose credentials are good.
#[derive(Debug)]
pub(super) struct Caller {
    /// `name of the issuer:subject`, or `key:name of the key`: what the service is told.
    pub(super) principal: Text,
    pub(super) scopes: Vec<String>,
    /// Unix time from which on the credentials are no good any more, in seconds.
    pub(super) until: u64,
}

impl Caller {
    /// `subject` may be any text; what a header cannot hold is percent-encoded.
    pub(super) fn new(kind: &str, subject: &str, scopes: Vec<String>, until: u64) -> Self {
        let principal = Text::from(format!("{kind}:{}", utf8_percent_encode(subject, NOT_IN_HEADERS)));
        Self { principal, scopes, until }
    }
}

/// Who may call a method.
///
/// A principal is `key:` and the name of an API key, or the name of a [`JwtIssuer`](crate::JwtIssuer), a colon and the
/// subject of its token, such as `jwt:alice@example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Who {
    /// Everybody, also without credentials.
    Anybody,
    /// Everybody with good credentials. So it is for methods that no rule is about.
    Verified,
    /// Whose token or key has this scope.
    Scope(String),
    /// This principal; with a star at the end, all whose name begins so.
    Principal(String),
    /// Who is one of these.
    AnyOf(Vec<Who>),
    /// Nobody.
    Nobody,
}

impl Who {
    /// Whose token or key has this scope.
    pub fn scope(scope: impl Into<String>) -> Self {
        Self::Scope(scope.into())
    }

    /// This principal, `key:NAME` or `jwt:SUBJECT`; with a star at the end, all that begin so.
    pub fn principal(name: impl Into<String>) -> Self {
        Self::Principal(name.into())
    }

    /// Whether there is no need to ask.
    pub(super) fn is_anybody(&self) -> bool {
        match self {
            Self::Anybody => true,
            Self::AnyOf(these) => these.iter().any(Self::is_anybody),
            _ => false,
        }
    }

    /// Whether `caller` is one of them.
    pub(super) fn holds(&self, caller: &Caller) -> bool {
        match self {
            Self::Anybody | Self::Verified => true,
            Self::Scope(scope) => caller.scopes.iter().any(|has| has == scope),
            Self::Principal(name) => match name.strip_suffix('*') {
                Some(start) => caller.principal.bytes().starts_with(start.as_bytes()),
                None => caller.principal.bytes() == name.as_bytes(),
            },
            Self::AnyOf(these) => these.iter().any(|who| who.holds(caller)),
            Self::Nobody => false,
        }
    }

    /// # Errors
    /// Why nobody can be meant by it.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Scope(scope) if scope.is_empty() || scope.contains(char::is_whitespace) => {
                Err(format!("the scope {scope:?} cannot be: a scope is one word"))
            }
            Self::Principal(name) if !name.contains(':') => Err(format!(
                "the principal {name:?} cannot be: write key:NAME for an API key, or jwt:SUBJECT for a token"
            )),
            Self::AnyOf(these) if these.is_empty() => Err("AnyOf of none is nobody: say Nobody".to_owned()),
            Self::AnyOf(these) => these.iter().try_for_each(Self::check),
            _ => Ok(()),
        }
    }
}

/// What it takes to be one of them, for the one who is not. Names no other principal.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("everybody may"),
            Self::Verified => f.write_str("everybody with good credentials may"),
            Self::Scope(scope) => write!(f, "it takes the scope {scope:?}"),
            Self::Principal(_) => f.write_str("it is for certain principals only"),
            Self::AnyOf(these) => {
                let mut said: Vec<String> = these.iter().map(Self::to_string).collect();
                said.dedup();
                f.write_str(&said.join(", or "))
            }
            Self::Nobody => f.write_str("nobody may"),
        }
    }
}

/// A header's value is visible ASCII; a percent sign is escaped so that the escape can be undone.
const NOT_IN_HEADERS: &AsciiSet = &CONTROLS.add(b'%');

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(subject: &str) -> Caller {
        Caller::new("jwt", subject, vec!["orders.read".to_owned()], 0)
    }

    #[test]
    fn a_subject_is_told_in_what_a_header_can_hold() {
        assert_eq!(caller("alice@example.org").principal.as_str(), "jwt:alice@example.org");
        assert_eq!(caller("100% ü\r\nx: y").principal.as_str(), "jwt:100%25 %C3%BC%0D%0Ax: y");
    }

    #[test]
    fn a_rule_holds_whom_it_says() {
        let alice = caller("alice");

        for (who, holds) in [
            (Who::Anybody, true),
            (Who::Verified, true),
            (Who::Nobody, false),
            (Who::scope("orders.read"), true),
            (Who::scope("orders"), false),
            (Who::scope("orders.read.more"), false),
            (Who::principal("jwt:alice"), true),
            (Who::principal("jwt:al*"), true),
            (Who::principal("jwt:al"), false),
            (Who::principal("key:*"), false),
            (Who::AnyOf(vec![Who::Nobody, Who::scope("orders.read")]), true),
            (Who::AnyOf(vec![Who::Nobody, Who::scope("x")]), false),
        ] {
            assert_eq!(who.holds(&alice), holds, "{who:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for who in [Who::scope(""), Who::scope("a b"), Who::principal("alice"), Who::AnyOf(Vec::new())] {
            assert!(who.check().is_err(), "{who:?}");
            assert!(Who::AnyOf(vec![who.clone()]).check().is_err(), "{who:?}");
        }
        assert_eq!(Who::AnyOf(vec![Who::Verified, Who::principal("key:*")]).check(), Ok(()));
    }
}
