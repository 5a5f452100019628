//! The token that a backend shows to its gateway.

use std::path::{Path, PathBuf};

use http::HeaderValue;

use super::proxy::Hidden;
use crate::error::{ConfigError, TokenError};

/// Where the token comes from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Token {
    #[default]
    None,
    Text(Hidden),
    /// Read again with each dial.
    File(PathBuf),
}

impl Token {
    pub(crate) fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Checks what can be checked before there is a file to read.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Text(text) => match bearer(&text.0) {
                Ok(_) => Ok(()),
                Err(why) => Err(ConfigError::setting(
                    "token",
                    "…",
                    format!("{why}; give what `grpcrouter token create` printed"),
                )),
            },
            Self::None | Self::File(_) => Ok(()),
        }
    }

    /// The value of the `authorization` header. Reads a file.
    pub(super) fn read(&self) -> Result<Option<HeaderValue>, TokenError> {
        match self {
            Self::None => Ok(None),
            // It was checked.
            Self::Text(text) => Ok(bearer(&text.0).ok()),
            Self::File(path) => read_file(path).map(Some),
        }
    }
}

fn read_file(path: &Path) -> Result<HeaderValue, TokenError> {
    let malformed = |why| TokenError::Malformed { path: path.into(), why };
    let text = std::fs::read(path).map_err(|source| TokenError::Unreadable { path: path.into(), source })?;
    if text.len() > MAX_TOKEN {
        return Err(malformed("it is longer than 8 KiB"));
    }
    let text = std::str::from_utf8(&text).map_err(|_| malformed("it is not text"))?;
    bearer(text).map_err(malformed)
}

fn bearer(token: &str) -> Result<HeaderValue, &'static str> {
    let token = token.trim();
    if token.is_empty() {
        return Err("it is empty");
    }
    if token.len() > MAX_TOKEN {
        return Err("it is longer than 8 KiB");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it has spaces, line breaks or letters that no token has");
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "it cannot stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

/// The most that gateways read of a token.
const MAX_TOKEN: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_token_goes_out_as_bearer_and_is_shown_nowhere() {
        let token = Token::Text(Hidden("grt_1_secret\n".to_owned()));

        let value = token.read().unwrap().unwrap();

        assert_eq!(value, "Bearer grt_1_secret");
        assert!(!format!("{token:?} {value:?}").contains("secret"));
    }

    #[test]
    fn a_file_is_read_anew_each_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = Token::File(file.path().to_owned());

        std::fs::write(file.path(), "grt_1_old\n").unwrap();
        assert_eq!(token.read().unwrap().unwrap(), "Bearer grt_1_old");
        std::fs::write(file.path(), "grt_1_new\n").unwrap();
        assert_eq!(token.read().unwrap().unwrap(), "Bearer grt_1_new");
    }

    #[test]
    fn what_is_no_token_is_told_by_the_name_of_its_file_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, said) in
            [("", "it is empty"), ("two secrets", "it has spaces"), (&"x".repeat(9000), "longer than 8 KiB")]
        {
            std::fs::write(file.path(), text).unwrap();
            let error = Token::File(file.path().to_owned()).read().unwrap_err().to_string();
            assert!(error.contains(said) && error.starts_with(file.path().to_str().unwrap()), "{error}");
            assert!(!error.contains("secrets"), "{error}");
        }
        let gone = Token::File("/nowhere/token".into()).read().unwrap_err().to_string();
        assert!(gone.starts_with("cannot read the token from /nowhere/token: "), "{gone}");
        let error = Token::Text(Hidden("two secrets".to_owned())).check().unwrap_err().to_string();
        assert!(error.starts_with("token(…) cannot be used: it has spaces") && !error.contains("secrets"), "{error}");
    }
}
