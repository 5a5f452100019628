//! Metadata as the block of bytes that crosses the wire: built once at one end, read once at the other.
//! A block is the repeated field 15 of a Start, Headers or Trailers message, tags and lengths included.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::varint::{self, Reader};

/// Metadata entries in order, repeats kept; the values of `-bin` keys are raw bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    block: Bytes,
    entries: u32,
    size: u32,
}

impl Metadata {
    /// Starts a block.
    pub fn builder() -> MetadataBuilder {
        MetadataBuilder::with_capacity(0)
    }

    /// True if there are no entries.
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.entries as usize
    }

    /// Bytes of all keys and values.
    pub const fn size(&self) -> usize {
        self.size as usize
    }

    /// The entries as key and value, in order, as slices of the block.
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        let mut reader = Reader::new(&self.block);
        // Every entry was read once at the door, so none of these can fail now.
        std::iter::from_fn(move || {
            let (_, entry) = reader.next_field().ok()??;
            let (key, value) = read_entry(entry.message().ok()?).ok()?;
            Some((self.block.slice_ref(key), self.block.slice_ref(value)))
        })
    }

    /// The block as it crosses the wire.
    pub(crate) const fn block(&self) -> &Bytes {
        &self.block
    }

    /// Checks a block that came from a peer. It holds nothing but field 15.
    pub(crate) fn from_block(block: Bytes) -> Result<Self, ProtocolError> {
        let (mut entries, mut size) = (0_u32, 0_u32);
        let mut reader = Reader::new(&block);
        while let Some((field, entry)) = reader.next_field()? {
            if field != METADATA_FIELD {
                return Err(ProtocolError::Malformed("metadata"));
            }
            let (key, value) = read_entry(entry.message()?)?;
            entries = entries.saturating_add(1);
            size = size.saturating_add(u32::try_from(key.len() + value.len()).unwrap_or(u32::MAX));
        }
        Ok(Self { block, entries, size })
    }
}

impl fmt::Debug for Metadata {
    /// Keys alone: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

/// Writes entries into a [`Metadata`].
#[derive(Debug, Default)]
pub struct MetadataBuilder {
    block: BytesMut,
    entries: u32,
    size: u32,
}

impl MetadataBuilder {
    /// Starts a block with room for `bytes` bytes: keys and values, and about 8 more for each entry.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { block: BytesMut::with_capacity(bytes), entries: 0, size: 0 }
    }

    /// Adds an entry: the key in lower case, the value of a `-bin` key as raw bytes.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        let entry = part_len(key) + part_len(value);
        self.block.reserve(1 + varint::len(entry as u64) + entry);
        varint::put_pair(&mut self.block, METADATA_TAG, entry as u64);
        put_part(&mut self.block, KEY_TAG, key);
        put_part(&mut self.block, VALUE_TAG, value);
        self.entries = self.entries.saturating_add(1);
        self.size = self.size.saturating_add(u32::try_from(key.len() + value.len()).unwrap_or(u32::MAX));
    }

    /// The finished block.
    pub fn finish(self) -> Metadata {
        Metadata { block: self.block.freeze(), entries: self.entries, size: self.size }
    }
}

/// The number of the metadata field in Start, Headers and Trailers.
pub(crate) const METADATA_FIELD: u32 = 15;
const METADATA_TAG: u8 = 15 << 3 | 2;
const KEY_TAG: u8 = 1 << 3 | 2;
const VALUE_TAG: u8 = 2 << 3 | 2;

fn part_len(part: &[u8]) -> usize {
    if part.is_empty() { 0 } else { 1 + varint::len(part.len() as u64) + part.len() }
}

fn put_part(block: &mut BytesMut, tag: u8, part: &[u8]) {
    if !part.is_empty() {
        varint::put_pair(block, tag, part.len() as u64);
        block.put_slice(part);
    }
}

fn read_entry(entry: &[u8]) -> Result<(&[u8], &[u8]), ProtocolError> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader::new(entry);
    while let Some((field, content)) = reader.next_field()? {
        match field {
            1 => key = content.message()?,
            2 => value = content.message()?,
            _ => {}
        }
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]
    use super::*;

    fn entries(metadata: &Metadata) -> Vec<(Vec<u8>, Vec<u8>)> {
        metadata.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn entries_come_out_in_order_with_repeats() {
        let mut builder = Metadata::builder();
        builder.push(b"x", b"1");
        builder.push(b"data-bin", &[0, 255]);
        builder.push(b"x", b"");
        let metadata = builder.finish();
        let expected = [(b"x".to_vec(), b"1".to_vec()), (b"data-bin".to_vec(), vec![0, 255]), (b"x".to_vec(), vec![])];
        assert_eq!(entries(&metadata), expected);
        assert_eq!((metadata.len(), metadata.size(), metadata.is_empty()), (3, 13, false));
    }

    #[test]
    fn a_block_is_read_as_it_was_built() {
        let mut builder = Metadata::builder();
        builder.push(b"key", b"value");
        let metadata = builder.finish();
        assert_eq!(Metadata::from_block(metadata.block().clone()).unwrap(), metadata);
    }

    #[test]
    fn a_broken_block_is_refused_at_the_door() {
        assert!(Metadata::from_block(Bytes::from_static(&[METADATA_TAG, 9, 1])).is_err());
        assert!(Metadata::from_block(Bytes::from_static(&[1 << 3 | 2, 0])).is_err());
    }

    #[test]
    fn values_do_not_show_in_debug_output() {
        let mut builder = Metadata::builder();
        builder.push(b"authorization", b"secret");
        assert_eq!(format!("{:?}", builder.finish()), "[b\"authorization\"]");
    }
}
