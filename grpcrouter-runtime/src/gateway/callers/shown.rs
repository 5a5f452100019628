//! What credentials a call shows, before anybody looks whether they are good.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

use super::{API_KEY, api_keys::PREFIX};

/// Credentials.
pub(super) enum Shown<'a> {
    /// A token after `Bearer`.
    Token(&'a str),
    /// An API key, from this entry.
    Key { text: &'a str, from: HeaderName },
}

impl<'a> Shown<'a> {
    /// Finds them, if there are any of the kinds that are taken. `x-api-key` comes first: then `authorization` is the
    /// service's.
    ///
    /// # Errors
    /// They cannot be read, or stand there twice: which would be meant is anybody's guess.
    pub(super) fn read(headers: &'a HeaderMap, keys: bool, tokens: bool) -> Result<Option<Self>, String> {
        if keys && let Some(text) = only(headers, &API_KEY)? {
            return Ok(Some(Self::Key { text, from: API_KEY }));
        }
        if !keys && !tokens {
            return Ok(None);
        }
        let Some(text) = only(headers, &AUTHORIZATION)? else { return Ok(None) };
        let bearer = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, text)) = bearer else {
            return Err("the metadata entry \"authorization\" must be \"Bearer\", a blank, and the token".to_owned());
        };
        let text = text.trim_matches(' ');
        Ok(Some(if is_key(text) { Self::Key { text, from: AUTHORIZATION } } else { Self::Token(text) }))
    }

    /// Where they stand.
    pub(super) fn entry(&self) -> HeaderName {
        match self {
            Self::Token(_) => AUTHORIZATION,
            Self::Key { from, .. } => from.clone(),
        }
    }

    /// Whether they can be for nobody else.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Key { text, .. } if is_key(text))
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shown").field(&self.entry()).finish()
    }
}

fn is_key(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('_'))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(format!("the metadata entry \"{name}\" is there twice: send one")),
        (Some(value), None) => {
            read(value).map(Some).ok_or_else(|| format!("the metadata entry \"{name}\" is not ASCII"))
        }
    }
}

fn read(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn shown(pairs: &[(&'static str, &'static str)], keys: bool, tokens: bool) -> String {
        let headers =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = headers.fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        });
        match Shown::read(&headers, keys, tokens) {
            Ok(None) => "none".to_owned(),
            Ok(Some(Shown::Token(text))) => format!("token {text}"),
            Ok(Some(Shown::Key { text, from })) => format!("key {text} in {from}"),
            Err(why) => why,
        }
    }

    #[test]
    fn credentials_are_found_where_they_may_be() {
        let both = |pairs: &[(&'static str, &'static str)]| shown(pairs, true, true);

        assert_eq!(both(&[]), "none");
        assert_eq!(both(&[("authorization", "Bearer a.b.c")]), "token a.b.c");
        assert_eq!(both(&[("authorization", "bEARER  a.b.c ")]), "token a.b.c");
        assert_eq!(both(&[("authorization", "Bearer grk_a_b")]), "key grk_a_b in authorization");
        assert_eq!(both(&[("x-api-key", "grk_a_b")]), "key grk_a_b in x-api-key");
        assert_eq!(both(&[("authorization", "Bearer a.b.c"), ("x-api-key", "grk_a_b")]), "key grk_a_b in x-api-key");
    }

    #[test]
    fn credentials_of_kinds_that_are_not_taken_are_the_services() {
        assert_eq!(shown(&[("x-api-key", "k")], false, true), "none");
        assert_eq!(shown(&[("authorization", "Basic x"), ("x-api-key", "k")], false, false), "none");
    }

    #[test]
    fn credentials_that_cannot_be_read_are_told() {
        let both = |pairs: &[(&'static str, &'static str)]| shown(pairs, true, true);

        for text in ["Basic dTpw", "Bearer", "a.b.c", "Bearera.b.c", ""] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(text).unwrap())]);
            assert!(Shown::read(&headers, true, true).unwrap_err().contains("must be \"Bearer\""), "{text}");
        }
        assert!(both(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]).contains("there twice"));
        assert!(both(&[("x-api-key", "a"), ("x-api-key", "b")]).contains("there twice"));
    }
}
