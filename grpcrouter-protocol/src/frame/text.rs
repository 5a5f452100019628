//! Text that came from a peer, checked once and kept as a slice of the message that brought it.
//! It is bytes to whoever forwards it and `&str` to whoever reads it.

use std::fmt;

use bytes::Bytes;

/// Valid UTF-8 in reference-counted bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Bytes);

impl Text {
    /// Text that lives as long as the program; costs no allocation.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text. Looks at every byte, so keep what it gives where it is needed twice.
    pub fn as_str(&self) -> &str {
        // Checked at the door; `unsafe` is forbidden here, so the check is paid again.
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text's bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// True if there is no text.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of the text.
    pub const fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::from_static(text)
    }
}

impl TryFrom<Bytes> for Text {
    type Error = std::str::Utf8Error;

    fn try_from(bytes: Bytes) -> Result<Self, Self::Error> {
        str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    #[test]
    fn text_is_checked_at_the_door() {
        assert!(Text::try_from(Bytes::from_static(b"\xff")).is_err());
        assert_eq!(Text::try_from(Bytes::from_static("käse".as_bytes())).unwrap().as_str(), "käse");
    }

    #[test]
    fn text_shares_the_bytes_that_it_came_in() {
        let bytes = Bytes::from(b"/a.B/C".to_vec());
        let text = Text::try_from(bytes.clone()).unwrap();
        assert_eq!(text.bytes().as_ptr(), bytes.as_ptr());
    }
}
