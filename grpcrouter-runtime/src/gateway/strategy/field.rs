//! Finds one field in the wire bytes of a message, without decoding it: what protobuf's own readers would find there.
//! Messages that come in parts are merged, the last value wins, and what is not looked for is stepped over.

use bytes::Bytes;

use crate::codegen::{FieldPath, FieldType};

/// A [`FieldPath`] of one's own: those of generated code are constants, those of descriptors are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Field {
    numbers: Vec<u32>,
    kind: FieldType,
    presence: bool,
    rivals: Vec<Vec<u32>>,
}

impl From<FieldPath<'_>> for Field {
    fn from(path: FieldPath<'_>) -> Self {
        Self {
            numbers: path.numbers.to_vec(),
            kind: path.kind,
            presence: path.presence,
            rivals: path.rivals.iter().map(|rivals| rivals.to_vec()).collect(),
        }
    }
}

/// The key at `path`; `None` if it is not set.
pub(super) fn read(message: &[u8], path: &Field) -> Result<Option<Bytes>, &'static str> {
    let mut scan = Scan { path, found: None };
    scan.message(&mut Wire(message), 0, End::OfBytes)?;
    match scan.found {
        Some(value) if path.presence || !value.is_default() => value.key(path.kind).map(Some),
        _ => Ok(None),
    }
}

/// Why `path` cannot be that of a field.
pub(super) fn check(path: &Field) -> Result<(), &'static str> {
    let is_number = |number: &u32| (1..=MAX_NUMBER).contains(number);
    if path.numbers.is_empty() || !path.numbers.iter().all(is_number) {
        return Err("the field's numbers must be field numbers, at least one");
    }
    if path.numbers.len() > MOST_DEEP {
        return Err("the field is nested too deeply");
    }
    Ok(())
}

struct Scan<'a> {
    path: &'a Field,
    found: Option<Value<'a>>,
}

/// A value, as it is on the wire.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    /// A varint or a fixed number.
    Number(u64),
    Bytes(&'a [u8]),
}

/// What ends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    OfBytes,
    /// The end of the group of this number.
    Group(u32),
}

impl<'a> Scan<'a> {
    /// Reads the fields of a message that is so deep in the path.
    fn message(&mut self, wire: &mut Wire<'a>, depth: usize, end: End) -> Result<(), &'static str> {
        let path = self.path;
        let wanted = path.numbers.get(depth).copied();
        let rivals = path.rivals.get(depth).map(Vec::as_slice).unwrap_or_default();
        let is_last = depth + 1 == path.numbers.len();
        while !wire.0.is_empty() {
            let (number, kind) = wire.tag()?;
            if kind == Kind::EndGroup {
                return if end == End::Group(number) { Ok(()) } else { Err(NOT_PROTOBUF) };
            }
            if Some(number) == wanted {
                match kind {
                    _ if is_last => self.found = Some(wire.value(kind, path.kind)?),
                    Kind::Length => self.message(&mut Wire(wire.bytes()?), depth + 1, End::OfBytes)?,
                    Kind::Group => self.message(wire, depth + 1, End::Group(number))?,
                    _ => return Err(OTHER_TYPE),
                }
                continue;
            }
            if rivals.contains(&number) {
                self.found = None;
            }
            wire.skip(number, kind, 0)?;
        }
        if end == End::OfBytes { Ok(()) } else { Err(NOT_PROTOBUF) }
    }
}

impl Value<'_> {
    fn is_default(self) -> bool {
        match self {
            Self::Number(number) => number == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }

    fn key(self, kind: FieldType) -> Result<Bytes, &'static str> {
        let number = match self {
            Self::Bytes(bytes) if kind == FieldType::String && std::str::from_utf8(bytes).is_err() => {
                return Err("it is not UTF-8");
            }
            Self::Bytes(bytes) => return Ok(Bytes::copy_from_slice(bytes)),
            Self::Number(number) => number,
        };
        Ok(match kind {
            FieldType::Bool => Bytes::from_static(if number == 0 { b"false" } else { b"true" }),
            FieldType::Uint32 | FieldType::Uint64 | FieldType::Fixed32 | FieldType::Fixed64 => {
                number.to_string().into()
            }
            _ => number.cast_signed().to_string().into(),
        })
    }
}

/// What is left to read.
struct Wire<'a>(&'a [u8]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Varint,
    Fixed64,
    Length,
    Group,
    EndGroup,
    Fixed32,
}

impl<'a> Wire<'a> {
    fn tag(&mut self) -> Result<(u32, Kind), &'static str> {
        let tag = u32::try_from(self.varint()?).map_err(|_| NOT_PROTOBUF)?;
        let kind = match tag & 7 {
            0 => Kind::Varint,
            1 => Kind::Fixed64,
            2 => Kind::Length,
            3 => Kind::Group,
            4 => Kind::EndGroup,
            5 => Kind::Fixed32,
            _ => return Err(NOT_PROTOBUF),
        };
        if tag >> 3 == 0 { Err(NOT_PROTOBUF) } else { Ok((tag >> 3, kind)) }
    }

    /// The value of the field that is looked for. Numbers are made as wide as they can be, signs kept.
    fn value(&mut self, kind: Kind, of: FieldType) -> Result<Value<'a>, &'static str> {
        let number = match (of, kind) {
            (FieldType::String | FieldType::Bytes, Kind::Length) => return self.bytes().map(Value::Bytes),
            (FieldType::Bool, Kind::Varint) => u64::from(self.varint()? != 0),
            (FieldType::Int64 | FieldType::Uint64, Kind::Varint) => self.varint()?,
            (FieldType::Int32 | FieldType::Enum, Kind::Varint) => wide(low(self.varint()?)),
            (FieldType::Uint32, Kind::Varint) => low(self.varint()?).into(),
            (FieldType::Sint32, Kind::Varint) => {
                let zigzag = low(self.varint()?);
                wide((zigzag >> 1) ^ (zigzag & 1).wrapping_neg())
            }
            (FieldType::Sint64, Kind::Varint) => {
                let zigzag = self.varint()?;
                (zigzag >> 1) ^ (zigzag & 1).wrapping_neg()
            }
            (FieldType::Fixed32, Kind::Fixed32) => u32::from_le_bytes(self.array()?).into(),
            (FieldType::Sfixed32, Kind::Fixed32) => wide(u32::from_le_bytes(self.array()?)),
            (FieldType::Fixed64 | FieldType::Sfixed64, Kind::Fixed64) => u64::from_le_bytes(self.array()?),
            // Readers differ in what they make of that.
            _ => return Err(OTHER_TYPE),
        };
        Ok(Value::Number(number))
    }

    /// Steps over a field, so deep in groups.
    fn skip(&mut self, number: u32, kind: Kind, depth: usize) -> Result<(), &'static str> {
        match kind {
            Kind::Varint => self.varint().map(drop),
            Kind::Fixed64 => self.array::<8>().map(drop),
            Kind::Fixed32 => self.array::<4>().map(drop),
            Kind::Length => self.bytes().map(drop),
            Kind::EndGroup => Err(NOT_PROTOBUF),
            Kind::Group if depth >= MOST_DEEP => Err(NOT_PROTOBUF),
            Kind::Group => loop {
                let (inner, kind) = self.tag()?;
                if kind == Kind::EndGroup {
                    return if inner == number { Ok(()) } else { Err(NOT_PROTOBUF) };
                }
                self.skip(inner, kind, depth + 1)?;
            },
        }
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for (index, byte) in self.0.iter().take(LONGEST_VARINT).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                if index + 1 == LONGEST_VARINT && *byte > 1 {
                    return Err(NOT_PROTOBUF);
                }
                self.0 = self.0.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(NOT_PROTOBUF)
    }

    fn bytes(&mut self) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(self.varint()?).map_err(|_| NOT_PROTOBUF)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(NOT_PROTOBUF)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(NOT_PROTOBUF)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

/// The low half, which is all that counts of a 32-bit number.
fn low(value: u64) -> u32 {
    (value & u64::from(u32::MAX)) as u32
}

/// A signed 32-bit number, made wide.
fn wide(value: u32) -> u64 {
    i64::from(value.cast_signed()).cast_unsigned()
}

const NOT_PROTOBUF: &str = "the first message is not protobuf";
const OTHER_TYPE: &str = "the field has another type in the first message than in the proto file";

const LONGEST_VARINT: usize = 10;

/// The highest field number there is.
const MAX_NUMBER: u32 = (1 << 29) - 1;

/// Messages and groups in each other: as many as protobuf's readers take.
const MOST_DEEP: usize = 100;

#[cfg(test)]
mod tests;
