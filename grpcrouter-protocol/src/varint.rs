//! The few rules of protobuf's encoding that the hot frames need: varints, tags, and skipping what is not known.
//! The reader takes any bytes and never panics.

use bytes::BufMut;

use crate::error::ProtocolError;

/// Bytes that `value` takes as a varint.
pub(crate) const fn len(value: u64) -> usize {
    // 9/64 for each bit is 1/7, exact over the whole range.
    ((value | 1).ilog2() as usize * 9 + 73) / 64
}

/// Writes `value` as a varint.
pub(crate) fn put(buf: &mut impl BufMut, value: u64) {
    put_all(buf, &[value]);
}

/// Writes two varints, mostly a tag and a length or a number; as one piece, for each piece that is added to a buffer
/// costs far more than its bytes.
#[inline]
pub(crate) fn put_pair(buf: &mut impl BufMut, tag: u8, value: u64) {
    if value < 0x80 {
        buf.put_slice(&[tag, value as u8]);
    } else {
        put_all(buf, &[tag.into(), value]);
    }
}

/// Writes up to four varints as one piece.
pub(crate) fn put_all(buf: &mut impl BufMut, values: &[u64]) {
    let mut piece = [0_u8; 40];
    let mut len = 0;
    let mut bytes = piece.iter_mut();
    for &(mut value) in values {
        while value >= 0x80 {
            if let Some(byte) = bytes.next() {
                *byte = value as u8 | 0x80;
            }
            value >>= 7;
            len += 1;
        }
        if let Some(byte) = bytes.next() {
            *byte = value as u8;
        }
        len += 1;
    }
    buf.put_slice(piece.get(..len).unwrap_or_default());
}

/// What a field holds. Groups are not in proto3, so they are malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Message(&'a [u8]),
    /// Four or eight bytes; no message of ours has one.
    Fixed,
}

impl<'a> Field<'a> {
    /// The bytes of a message, text or bytes field.
    pub(crate) fn message(self) -> Result<&'a [u8], ProtocolError> {
        match self {
            Self::Message(bytes) => Ok(bytes),
            _ => Err(WIRE_TYPE),
        }
    }

    /// The number of a varint field.
    pub(crate) fn varint(self) -> Result<u64, ProtocolError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(WIRE_TYPE),
        }
    }
}

/// Reads the fields of one message, in order.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next field: its number and what it holds. `None` at the end.
    #[inline(always)]
    pub(crate) fn next_field(&mut self) -> Result<Option<(u32, Field<'a>)>, ProtocolError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| TAG)?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.fixed(8)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| SHORT)?;
                Field::Message(self.take(len)?)
            }
            5 => self.fixed(4)?,
            _ => return Err(WIRE_TYPE),
        };
        match tag >> 3 {
            0 => Err(TAG),
            number => Ok(Some((number, field))),
        }
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, ProtocolError> {
        // Nearly every tag and length is one byte.
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, ProtocolError> {
        let mut value = 0_u64;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            // The tenth byte has room for one bit.
            if index == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(ProtocolError::Malformed("a varint has no end"))
    }

    #[inline(always)]
    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed(&mut self, len: usize) -> Result<Field<'a>, ProtocolError> {
        self.take(len).map(|_| Field::Fixed)
    }
}

const TAG: ProtocolError = ProtocolError::Malformed("a tag that cannot be");
const SHORT: ProtocolError = ProtocolError::Malformed("a field is longer than its message");
const WIRE_TYPE: ProtocolError = ProtocolError::Malformed("a field of another wire type");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn a_varint_takes_a_byte_for_each_seven_bits() {
        let mut buf = BytesMut::new();
        for bits in 0..64 {
            for value in [1_u64 << bits, (1_u64 << bits) - 1, u64::MAX >> bits] {
                buf.clear();
                put(&mut buf, value);
                assert_eq!(buf.len(), len(value), "{value}");
                assert_eq!(Reader::new(&buf).varint().unwrap(), value);
            }
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
        assert!(Reader::new(&[0x80]).varint().is_err());
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        assert!(Reader::new(&[1 << 3 | 3]).next_field().is_err());
        assert!(Reader::new(&[0, 0]).next_field().is_err());
    }

    #[test]
    fn a_field_longer_than_its_message_is_refused() {
        assert!(Reader::new(&[1 << 3 | 2, 2, 0]).next_field().is_err());
        assert!(Reader::new(&[1 << 3 | 1, 2, 0]).next_field().is_err());
    }
}
