//! A field of a request message, as FIELD_BASED reads it: by numbers, for the gateway has no descriptors and decodes nothing.

/// A field inside of a message and how its value becomes a routing key.
///
/// Generated code has it from the proto file; a [`ServiceRoutes`](crate::ServiceRoutes) is given it by hand.
///
/// # Examples
/// ```
/// use grpcrouter_runtime::{FieldPath, FieldType};
///
/// // message Buy { Customer customer = 2; }  message Customer { string id = 1; }
/// const CUSTOMER_ID: FieldPath = FieldPath::new(&[2, 1], FieldType::String);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldPath<'a> {
    /// The number of the field in the request, then in the message that it holds, and so on.
    pub numbers: &'a [u32],
    /// The type of the last one.
    pub kind: FieldType,
    /// Whether the last one has a presence of its own: a value that is zero or empty is a key too then.
    pub presence: bool,
    /// For each number, the other fields of the same oneof, of which the last on the wire wins. Empty: there are none.
    pub rivals: &'a [&'a [u32]],
}

impl<'a> FieldPath<'a> {
    /// A field that is in no oneof, whose zero or empty value means that it is not set.
    pub const fn new(numbers: &'a [u32], kind: FieldType) -> Self {
        Self { numbers, kind, presence: false, rivals: &[] }
    }

    /// Says that the field has a presence of its own, as `optional` ones and those of a oneof have.
    pub const fn presence(mut self) -> Self {
        self.presence = true;
        self
    }

    /// Sets, for each number, the other fields of the same oneof.
    pub const fn rivals(mut self, rivals: &'a [&'a [u32]]) -> Self {
        self.rivals = rivals;
        self
    }
}

/// The type of a field that holds a routing key; floating point numbers have no one text and are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldType {
    /// `string`: the key is its text.
    String,
    /// `bytes`: the key is these bytes.
    Bytes,
    /// `bool`: the key is `true` or `false`.
    Bool,
    /// An enum: the key is the number of the value, so that one that is added later is routed by an older gateway too.
    Enum,
    /// `int32`; like all numbers, the key is the decimal text.
    Int32,
    /// `int64`.
    Int64,
    /// `uint32`.
    Uint32,
    /// `uint64`.
    Uint64,
    /// `sint32`.
    Sint32,
    /// `sint64`.
    Sint64,
    /// `fixed32`.
    Fixed32,
    /// `fixed64`.
    Fixed64,
    /// `sfixed32`.
    Sfixed32,
    /// `sfixed64`.
    Sfixed64,
}
