//! A key that is a segment of the path, percent-decoded.

use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::percent_decode;

use super::Malformed;

/// The key that `segment` spells; `None` for a path without one.
pub(super) fn decode(segment: Option<&str>) -> Result<Option<Bytes>, Malformed> {
    let Some(segment) = segment else { return Ok(None) };
    let broken = segment.split('%').skip(1).any(|after| !starts_with_two_digits(after.as_bytes()));
    if broken {
        return Err("a '%' in it is not followed by two hexadecimal digits".into());
    }
    let key: Vec<u8> = match percent_decode(segment.as_bytes()).into() {
        Cow::Borrowed(plain) => plain.to_vec(),
        Cow::Owned(decoded) => decoded,
    };
    if std::str::from_utf8(&key).is_err() {
        return Err("it is not UTF-8".into());
    }
    Ok(Some(key.into()))
}

fn starts_with_two_digits(bytes: &[u8]) -> bool {
    matches!(bytes, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_comes_back_from_its_encoding(key in ".*") {
            let encoded = utf8_percent_encode(&key, NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(decode(Some(&encoded)), Ok(Some(Bytes::from(key))));
        }

        #[test]
        fn any_segment_is_text_or_told(segment in "[a%0-9A-Fz]*") {
            let decoded = decode(Some(&segment));
            prop_assert!(decoded.is_err() || decoded.is_ok_and(|key| key.is_some_and(|key| std::str::from_utf8(&key).is_ok())));
        }
    }

    #[test]
    fn a_segment_is_decoded_once() {
        for (segment, key) in
            [("a", "a"), ("eu%2Fwest", "eu/west"), ("%C3%BC", "ü"), ("100%25", "100%"), ("a+b", "a+b")]
        {
            assert_eq!(decode(Some(segment)), Ok(Some(Bytes::from_static(key.as_bytes()))), "{segment}");
        }
        assert_eq!(decode(None), Ok(None));
    }

    #[test]
    fn broken_encodings_and_what_is_no_text_are_told() {
        for segment in ["%", "%4", "%zz", "a%", "%41%4"] {
            assert!(decode(Some(segment)).is_err_and(|why| why.contains("two hexadecimal digits")), "{segment}");
        }
        assert_eq!(decode(Some("%FF")), Err("it is not UTF-8".into()));
    }
}
