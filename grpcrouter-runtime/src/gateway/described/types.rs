//! The messages of a descriptor set, and the way to one of their fields: what FIELD_BASED needs to read a key.

use std::collections::HashMap;

use super::{all, full};
use crate::{
    codegen::FieldType,
    descriptors::{Broken, Fields, Value},
};

/// Messages by full name.
#[derive(Default)]
pub(super) struct Types<'a>(HashMap<String, Message<'a>>);

struct Message<'a> {
    fields: Vec<Field<'a>>,
    is_map_entry: bool,
}

#[derive(Clone, Copy)]
struct Field<'a> {
    name: &'a str,
    number: u32,
    is_repeated: bool,
    /// A value of `FieldDescriptorProto.Type`.
    kind: u64,
    type_name: &'a str,
    oneof: Option<u64>,
    presence: bool,
}

/// Whether a field that says nothing of it is told apart from one that is not set when it is zero or empty: what a file
/// and the messages around a field have for all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    explicit: bool,
}

/// A field and how to get there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) numbers: Vec<u32>,
    /// For each number, the other fields of the same oneof.
    pub(super) rivals: Vec<Vec<u32>>,
    pub(super) kind: FieldType,
    pub(super) presence: bool,
}

impl Scope {
    pub(super) fn of_file(file: &[u8]) -> Result<Self, Broken> {
        let mut syntax = "proto2";
        let mut scope = None;
        for field in Fields::of(file) {
            let field = field?;
            match (field.number, field.value) {
                (12, text) => syntax = text.text()?,
                (8, Value::Bytes(options)) => scope = presence(options, FEATURES_OF_FILE)?.or(scope),
                _ => {}
            }
        }
        // Editions call themselves one, and are explicit like proto2 unless they say otherwise.
        Ok(Self { explicit: scope.unwrap_or(syntax != "proto3") })
    }
}

impl<'a> Types<'a> {
    /// Adds a message and those inside of it.
    pub(super) fn message(&mut self, bytes: &'a [u8], scope: &str, outer: Scope, depth: usize) -> Result<(), Broken> {
        if depth > MOST_DEEP {
            return Err(Broken("messages inside of each other, deeper than any compiler allows"));
        }
        let mut name = "";
        let (mut inner, mut is_map_entry) = (outer, false);
        for field in Fields::of(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, text) => name = text.text()?,
                (7, Value::Bytes(options)) => {
                    inner.explicit = presence(options, FEATURES_OF_MESSAGE)?.unwrap_or(inner.explicit);
                    for option in Fields::of(options) {
                        let option = option?;
                        is_map_entry |= (option.number, option.value) == (7, Value::Varint(1));
                    }
                }
                _ => {}
            }
        }
        let name = full(scope, name);
        let fields = all(bytes, 2).map(|field| Field::read(field?, inner)).collect::<Result<_, _>>()?;
        for nested in all(bytes, 3) {
            self.message(nested?, &name, inner, depth + 1)?;
        }
        self.0.insert(name, Message { fields, is_map_entry });
        Ok(())
    }

    /// The field at `path`, such as `order.customer_id`, of the message of this full name.
    ///
    /// # Errors
    /// What keeps it from being a key.
    pub(super) fn find(&self, path: &str, message: &str) -> Result<Found, String> {
        let (mut numbers, mut rivals) = (Vec::new(), Vec::new());
        let mut name = message;
        let mut segments = path.split('.').peekable();
        while let Some(segment) = segments.next() {
            let shown = name.trim_start_matches('.');
            let message =
                self.0.get(shown).ok_or_else(|| format!("the descriptors of the message {shown} are missing"))?;
            let field = message.fields.iter().find(|field| field.name == segment);
            let field = field.ok_or_else(|| {
                format!("the message {shown} has no field {segment:?}; give that method its own method_routes_to")
            })?;
            let is_last = segments.peek().is_none();
            let is_message = matches!(field.kind, GROUP | MESSAGE);
            let below = is_message.then(|| self.0.get(field.type_name.trim_start_matches('.'))).flatten();
            let why = match (field_type(field.kind), is_last) {
                _ if below.is_some_and(|below| below.is_map_entry) => "is a map",
                _ if field.is_repeated => "is repeated",
                (_, true) if is_message => "is a message",
                (None, true) => "is a floating-point number and has no one text",
                (_, false) if !is_message => "is no message, so nothing is below it",
                _ => "",
            };
            if !why.is_empty() {
                return Err(format!("the field {segment:?} of {shown} {why}; a key is one scalar value"));
            }
            numbers.push(field.number);
            rivals.push(message.rivals(field));
            match field_type(field.kind).filter(|_| is_last) {
                Some(kind) => return Ok(Found { numbers, rivals, kind, presence: field.presence }),
                None => name = field.type_name,
            }
        }
        Err("it must be a field path such as customer_id or order.customer_id".to_owned())
    }
}

impl Message<'_> {
    fn rivals(&self, field: &Field<'_>) -> Vec<u32> {
        let same = |other: &&Field<'_>| field.oneof.is_some() && other.oneof == field.oneof;
        let others = self.fields.iter().filter(same).map(|other| other.number);
        let mut others: Vec<u32> = others.filter(|other| *other != field.number).collect();
        others.sort_unstable();
        others
    }
}

impl<'a> Field<'a> {
    fn read(bytes: &'a [u8], scope: Scope) -> Result<Self, Broken> {
        let mut read =
            Self { name: "", number: 0, is_repeated: false, kind: 0, type_name: "", oneof: None, presence: false };
        let (mut own, mut is_optional) = (None, false);
        for field in Fields::of(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, text) => read.name = text.text()?,
                (3, Value::Varint(number)) => read.number = u32::try_from(number).unwrap_or_default(),
                (4, Value::Varint(label)) => read.is_repeated = label == REPEATED,
                (5, Value::Varint(kind)) => read.kind = kind,
                (6, text) => read.type_name = text.text()?,
                (8, Value::Bytes(options)) => own = presence(options, FEATURES_OF_FIELD)?.or(own),
                (9, Value::Varint(oneof)) => read.oneof = Some(oneof),
                (17, Value::Varint(optional)) => is_optional = optional != 0,
                _ => {}
            }
        }
        read.presence = is_optional || read.oneof.is_some() || own.unwrap_or(scope.explicit);
        // The oneof of an optional field is made up.
        read.oneof = read.oneof.filter(|_| !is_optional);
        Ok(read)
    }
}

/// What `options` say of `features.field_presence`; `features` has another number in each kind of options.
fn presence(options: &[u8], features: u32) -> Result<Option<bool>, Broken> {
    let mut found = None;
    for features in all(options, features) {
        for feature in Fields::of(features?) {
            let feature = feature?;
            if let (1, Value::Varint(value)) = (feature.number, feature.value) {
                found = Some(value != IMPLICIT);
            }
        }
    }
    Ok(found)
}

/// As the runtime calls the type of a key; none of the others can be one.
fn field_type(kind: u64) -> Option<FieldType> {
    Some(match kind {
        3 => FieldType::Int64,
        4 => FieldType::Uint64,
        5 => FieldType::Int32,
        6 => FieldType::Fixed64,
        7 => FieldType::Fixed32,
        8 => FieldType::Bool,
        9 => FieldType::String,
        12 => FieldType::Bytes,
        13 => FieldType::Uint32,
        14 => FieldType::Enum,
        15 => FieldType::Sfixed32,
        16 => FieldType::Sfixed64,
        17 => FieldType::Sint32,
        18 => FieldType::Sint64,
        _ => return None,
    })
}

/// Of `FieldDescriptorProto.Type` and `Label`, and of `FeatureSet.FieldPresence`.
const GROUP: u64 = 10;
const MESSAGE: u64 = 11;
const REPEATED: u64 = 3;
const IMPLICIT: u64 = 2;

/// `features` in the options of a file, a message and a field.
const FEATURES_OF_FILE: u32 = 50;
const FEATURES_OF_MESSAGE: u32 = 12;
const FEATURES_OF_FIELD: u32 = 21;

/// Of messages in messages: protoc refuses more than 32.
const MOST_DEEP: usize = 64;
