//! `grpc-timeout`: at most 8 digits and one of H M S m u n.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use crate::status::Answer;

/// # Errors
/// The answer to a malformed value.
pub(super) fn parse(value: &[u8]) -> Result<Duration, Answer> {
    let malformed = || {
        let shown = crate::status::shown(&String::from_utf8_lossy(value));
        Answer::malformed_request(format!(
            "grpc-timeout \"{shown}\" is malformed: it takes 1 to 8 digits and one of H M S m u n"
        ))
    };
    let (unit, digits) = value.split_last().ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    // Eight digits fit easily.
    let amount = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(malformed()),
    }
}

/// In the finest unit that holds it, rounded down: a deadline is never made longer.
pub(super) fn format(left: Duration) -> HeaderValue {
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (u128::from(left.as_secs()), 'S'),
        (u128::from(left.as_secs() / 60), 'M'),
        (u128::from(left.as_secs() / 3600), 'H'),
    ];
    let (amount, unit) = units.into_iter().find(|(amount, _)| *amount <= MAX_AMOUNT).unwrap_or((MAX_AMOUNT, 'H'));
    HeaderValue::from_maybe_shared(Bytes::from(format!("{amount}{unit}"))).unwrap_or(HeaderValue::from_static("0n"))
}

const MAX_DIGITS: usize = 8;
const MAX_AMOUNT: u128 = 99_999_999;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("2M", Duration::from_secs(120)),
            ("2S", Duration::from_secs(2)),
            ("2m", Duration::from_millis(2)),
            ("2u", Duration::from_micros(2)),
            ("2n", Duration::from_nanos(2)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("00000000S", Duration::ZERO),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_malformed_value_is_an_internal_error() {
        for text in ["", "S", "123456789S", "1", "1x", "-1S", "+1S", "1.5S", " 1S", "1 S"] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code, tonic::Code::Internal, "{text}");
        }
    }

    #[test]
    fn what_is_left_is_written_in_at_most_eight_digits_and_rounded_down() {
        for (left, expected) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_millis(1500), "1500000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(86_400 * 365), "31536000S"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format(left), expected);
        }
    }
}
