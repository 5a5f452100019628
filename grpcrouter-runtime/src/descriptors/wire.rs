//! Protobuf's wire format, read field by field with nothing copied or kept: for descriptors, of which a few names are
//! looked at and the rest is passed on as it is.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// What is no protobuf message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a descriptor: {0}")]
pub(crate) struct Broken(pub(crate) &'static str);

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    /// All of its bytes.
    pub(crate) raw: &'a [u8],
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, Broken> {
        let bytes = self.bytes().ok_or(Broken("a name is not a text"))?;
        std::str::from_utf8(bytes).map_err(|_| Broken("a name is not UTF-8"))
    }
}

/// The fields of one message, in the order in which they stand.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// `None` if it is broken.
    fn take(&mut self) -> Option<Field<'a>> {
        let before = self.rest;
        let (number, wire_type) = decode_key(&mut self.rest).ok()?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(decode_varint(&mut self.rest).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut self.rest).ok()?).ok()?;
                let (bytes, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            _ => {
                skip_field(wire_type, number, &mut self.rest, DecodeContext::default()).ok()?;
                Value::Other
            }
        };
        let raw = before.get(..before.len() - self.rest.len())?;
        Some(Field { number, value, raw })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.take();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(Broken("no protobuf message")))
    }
}
