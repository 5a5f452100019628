//! One `FileDescriptorProto`: its name, its imports and the full names of what it defines.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{BadSet, Fields, File, Hash, wire::Broken};

/// How many names may still be found.
pub(super) struct Budget {
    pub(super) symbols: usize,
    /// Of all names together.
    pub(super) bytes: usize,
}

pub(super) fn file(whole: Bytes, left: &mut Budget) -> Result<File, BadSet> {
    let (mut name, mut package) = ("", "");
    let (mut imports, mut told) = (Vec::new(), false);
    for field in Fields::of(&whole) {
        let field = field?;
        match field.number {
            file::NAME => name = field.value.text()?,
            file::PACKAGE => package = field.value.text()?,
            file::DEPENDENCY => imports.push(field.value.text()?.to_owned()),
            file::SOURCE_CODE_INFO => told = true,
            _ => {}
        }
    }
    let length = name.len() + package.len() + imports.iter().map(String::len).sum::<usize>();
    left.bytes = left.bytes.checked_sub(length).ok_or(BadSet::TooManySymbols)?;
    if name.is_empty() || name.len() > MAX_FILE_NAME || name.chars().any(char::is_control) {
        return Err(BadSet::FileName);
    }
    let mut found = Found { symbols: Vec::new(), services: Vec::new(), extensions: Vec::new(), left };
    found.all(&whole, package, &FILE, 0)?;
    let Found { symbols, services, extensions, .. } = found;
    let (name, package) = (Arc::from(name), package.to_owned());
    let bytes = if told { without_source_info(&whole)? } else { whole };
    Ok(File { name, package, hash: Hash::of(&bytes), bytes, imports, symbols, services, extensions })
}

/// Where things stand in the text is of no use for calls, and more than half of what a compiler writes.
fn without_source_info(file: &[u8]) -> Result<Bytes, Broken> {
    let mut kept = BytesMut::with_capacity(file.len());
    for field in Fields::of(file) {
        let field = field?;
        if field.number != file::SOURCE_CODE_INFO {
            kept.extend_from_slice(field.raw);
        }
    }
    Ok(kept.freeze())
}

/// Which fields of a descriptor hold others.
struct Shape {
    messages: u32,
    enums: u32,
    services: u32,
    extensions: u32,
    /// Named things that define no more, such as fields.
    leaves: &'static [u32],
}

const FILE: Shape = Shape { messages: 4, enums: 5, services: 6, extensions: 7, leaves: &[] };
const MESSAGE: Shape = Shape { messages: 3, enums: 4, services: 0, extensions: 6, leaves: &[2, 8] };
/// Its values are named beside it, not below.
const ENUM: Shape = Shape { messages: 0, enums: 0, services: 0, extensions: 0, leaves: &[2] };
const SERVICE: Shape = ENUM;

struct Found<'a> {
    symbols: Vec<Arc<str>>,
    services: Vec<Arc<str>>,
    extensions: Vec<(String, i32)>,
    left: &'a mut Budget,
}

impl Found<'_> {
    /// All that a descriptor of this shape defines, in `scope`.
    fn all(&mut self, descriptor: &[u8], scope: &str, shape: &Shape, depth: usize) -> Result<(), BadSet> {
        if depth > MAX_DEPTH {
            return Err(Broken("messages inside of each other, deeper than any compiler allows").into());
        }
        for field in Fields::of(descriptor) {
            let field = field?;
            let Some(inner) = field.value.bytes() else { continue };
            let number = field.number;
            if number == shape.messages {
                let name = self.name(inner, scope)?;
                self.all(inner, &name, &MESSAGE, depth + 1)?;
            } else if number == shape.enums {
                self.name(inner, scope)?;
                self.all(inner, scope, &ENUM, depth + 1)?;
            } else if number == shape.services {
                let name = self.name(inner, scope)?;
                self.services.push(name.clone());
                self.all(inner, &name, &SERVICE, depth + 1)?;
            } else if number == shape.extensions {
                self.name(inner, scope)?;
                self.extension(inner)?;
            } else if shape.leaves.contains(&number) {
                self.name(inner, scope)?;
            }
        }
        Ok(())
    }

    /// The full name of what `descriptor` defines: the name is field 1 of every one.
    fn name(&mut self, descriptor: &[u8], scope: &str) -> Result<Arc<str>, BadSet> {
        let mut name = "";
        for field in Fields::of(descriptor) {
            let field = field?;
            if field.number == NAME {
                name = field.value.text()?;
            }
        }
        if name.is_empty() {
            return Err(Broken("something has no name").into());
        }
        self.spend(scope.len() + 1 + name.len())?;
        let full = if scope.is_empty() { Arc::from(name) } else { Arc::from(format!("{scope}.{name}")) };
        self.symbols.push(Arc::clone(&full));
        Ok(full)
    }

    fn extension(&mut self, descriptor: &[u8]) -> Result<(), BadSet> {
        let (mut extendee, mut number) = ("", 0);
        for field in Fields::of(descriptor) {
            let field = field?;
            match (field.number, field.value) {
                (field::EXTENDEE, value) => extendee = value.text()?,
                (field::NUMBER, super::Value::Varint(value)) => number = i32::try_from(value).unwrap_or_default(),
                _ => {}
            }
        }
        self.spend(extendee.len())?;
        self.extensions.push((extendee.strip_prefix('.').unwrap_or(extendee).to_owned(), number));
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), BadSet> {
        let symbols = self.left.symbols.checked_sub(1);
        let bytes = self.left.bytes.checked_sub(bytes);
        let (Some(symbols), Some(bytes)) = (symbols, bytes) else { return Err(BadSet::TooManySymbols) };
        *self.left = Budget { symbols, bytes };
        Ok(())
    }
}

/// Fields of `FileDescriptorProto`.
mod file {
    pub(super) const NAME: u32 = 1;
    pub(super) const PACKAGE: u32 = 2;
    pub(super) const DEPENDENCY: u32 = 3;
    pub(super) const SOURCE_CODE_INFO: u32 = 9;
}

/// Fields of `FieldDescriptorProto`.
mod field {
    pub(super) const EXTENDEE: u32 = 2;
    pub(super) const NUMBER: u32 = 3;
}

/// The name of every descriptor.
const NAME: u32 = 1;

/// Of messages in messages: protoc refuses more than 32.
const MAX_DEPTH: usize = 64;

/// Bytes: as long as a path may be in most systems' archives.
const MAX_FILE_NAME: usize = 512;
