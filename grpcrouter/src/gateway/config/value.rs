//! Values that are texts in TOML and more than that here: checked where they stand, so that the error has their line.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

use crate::values;

/// `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Address(String);

/// A time, such as `30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Span(pub(in crate::gateway) Duration);

impl Address {
    /// # Errors
    /// What to write, for clap to show.
    pub(in crate::gateway) fn parse(text: &str) -> Result<Self, String> {
        let is_address =
            text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if is_address {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is no address; write HOST:PORT, such as 127.0.0.1:8080 or [::]:443"))
        }
    }

    pub(in crate::gateway) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        values::duration(&text).map(Self).map_err(|why| D::Error::custom(format!("{text:?} is no time; {why}")))
    }
}
