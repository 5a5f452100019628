//! The first message of a request, from the bytes that have come: its key is looked for once it is whole.

use std::borrow::Cow;

use super::Malformed;

/// The first message, as far as it has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First<'a> {
    /// More of it has to come.
    Waits,
    /// The request has no message at all.
    None,
    Whole(Cow<'a, [u8]>),
}

/// What `parts`, the first bytes of a request, hold. `ended`: no more will come.
pub(super) fn first<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone, ended: bool) -> Result<First<'a>, Malformed> {
    let mut prefix = parts.clone().flatten().take(PREFIX).copied();
    let Some(flag) = prefix.next() else { return Ok(if ended { First::None } else { First::Waits }) };
    if flag != 0 {
        return Err("the first message is compressed, and the field is only read from one that is not".into());
    }
    let length: Vec<u8> = prefix.collect();
    let length = <[u8; 4]>::try_from(length).ok().map(|bytes| u32::from_be_bytes(bytes) as usize);
    if let Some(length) = length.filter(|length| *length > MAX_MESSAGE) {
        return Err(format!(
            "the first message has {length} bytes, and the field is only read from one of at most {MAX_MESSAGE}"
        )
        .into());
    }
    let come: usize = parts.clone().map(<[u8]>::len).sum();
    match length.map(|length| PREFIX + length).filter(|whole| *whole <= come) {
        Some(whole) => Ok(First::Whole(cut(parts, whole))),
        None if ended => Err("the request ended inside of its first message".into()),
        None => Ok(First::Waits),
    }
}

/// The bytes behind the prefix, up to `whole`. Most often they came in one part and are not copied.
fn cut<'a>(mut parts: impl Iterator<Item = &'a [u8]> + Clone, whole: usize) -> Cow<'a, [u8]> {
    if let Some(message) = parts.clone().next().and_then(|part| part.get(PREFIX..whole)) {
        return Cow::Borrowed(message);
    }
    let mut all = Vec::with_capacity(whole);
    while all.len() < whole
        && let Some(part) = parts.next()
    {
        all.extend_from_slice(part.get(..whole - all.len()).unwrap_or(part));
    }
    Cow::Owned(all.split_off(PREFIX.min(all.len())))
}

/// gRPC's length prefix: a flag and four bytes.
const PREFIX: usize = 5;

/// The longest message that is looked into: as much as one call's window holds, so that holding it back costs no more
/// than any other call may.
const MAX_MESSAGE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    const WIRE: &[u8] = b"\0\0\0\0\x03abc\0\0\0\0\x01d";

    #[test]
    fn the_first_message_is_whole_wherever_it_is_cut() {
        for cut in 1..=WIRE.len() {
            let parts: Vec<&[u8]> = WIRE.chunks(cut).collect();
            assert_eq!(first(parts.iter().copied(), false), Ok(First::Whole(Cow::Borrowed(b"abc"))), "cut {cut}");
        }
    }

    #[test]
    fn it_is_waited_for_until_the_request_ends() {
        for come in 0..8 {
            let parts = || std::iter::once(&WIRE[..come]);
            assert_eq!(first(parts(), false), Ok(First::Waits), "{come}");
            match come {
                0 => assert_eq!(first(parts(), true), Ok(First::None)),
                _ => assert!(first(parts(), true).is_err_and(|why| why.contains("ended inside")), "{come}"),
            }
        }
    }

    #[test]
    fn compressed_or_too_long_is_told_from_the_prefix_alone() {
        let told = |wire: &'static [u8]| first(std::iter::once(wire), false).unwrap_err();
        assert!(told(b"\x01").contains("compressed"));
        assert!(told(b"\0\0\x01\0\x01").contains("has 65537 bytes"));
        assert_eq!(first(std::iter::once(&b"\0\0\x01\0\0"[..]), false), Ok(First::Waits));
    }

    #[test]
    fn a_message_in_one_part_is_not_copied() {
        assert!(matches!(first(std::iter::once(WIRE), false), Ok(First::Whole(Cow::Borrowed(b"abc")))));
    }
}
