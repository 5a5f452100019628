//! Every single thing that can be wrong, with what to do about it in the same sentence.
//! Texts name things as the proto file spells them.

use std::{io, path::PathBuf};

/// What is wrong. The place and the subject stand in front of it, see [`Fault`](super::Fault).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    // The request.
    #[error(
        "the input is not a CodeGeneratorRequest ({0}); protoc and buf start this program themselves, see protoc-gen-grpcrouter --help"
    )]
    NotARequest(#[source] prost::DecodeError),
    #[error("a file descriptor in the request cannot be decoded: {0}")]
    FileDescriptor(#[source] prost::DecodeError),
    #[error("the request names {name} but does not hold it")]
    MissingFile { name: String },
    #[error(
        "import \"{name}\" is not there; write it with `protoc-gen-grpcrouter --print-options-proto > proto/options.proto`, or add the \
         directory that holds proto/options.proto to the include paths (-I)"
    )]
    OptionsProtoMissing { name: String },
    // Its Debug has file, line and column; its Display has not.
    #[error("{0:?}")]
    Descriptors(#[source] Box<prost_reflect::DescriptorError>),
    #[error("the file descriptors in the request do not fit together")]
    DescriptorsPanicked,
    #[error("{name} imports itself: {circle}")]
    ImportCircle { name: String, circle: String },
    #[error("the request holds {name} twice")]
    FileTwice { name: String },
    #[error(
        "the file name {name:?} is not that of a proto file: a relative path, parts joined by '/', none of them '.' or '..'"
    )]
    FileName { name: String },
    #[error("the {what} {name:?} is not a protobuf name")]
    NotAName { what: &'static str, name: String },

    // Parameters.
    #[error("unknown parameter {name:?}{hint}; known: {known}")]
    UnknownParameter { name: String, hint: String, known: String },
    #[error("parameter {name}: expected {expected}, found {found:?}")]
    Parameter { name: String, expected: &'static str, found: String },
    #[error("parameter {name} is given twice")]
    ParameterTwice { name: String },
    #[error("parameter route={service}: {source}")]
    RouteText { service: String, source: Box<prost_reflect::text_format::ParseError> },
    #[error(
        "parameter route: no service {service:?} in the files to generate; give its full name (buf: set `strategy: all`, so that one run sees all files)"
    )]
    RouteUnused { service: String },
    #[error("the route is set here and with the parameter route={service} too; leave out one of them")]
    RouteTwice { service: String },
    #[error("parameter {name} cannot go with {other}: {why}")]
    ParametersDisagree { name: &'static str, other: &'static str, why: &'static str },

    // The options of a service or method.
    #[error(
        "({option}) is not the option that this plugin reads: {what}; use the file that `protoc-gen-grpcrouter --print-options-proto` prints"
    )]
    ForeignOption { option: &'static str, what: String },
    #[error(
        "({option}) has a field {number} that this plugin does not know; it is newer than the plugin: update protoc-gen-grpcrouter"
    )]
    NewerField { option: &'static str, number: u32 },
    #[error("({option}) cannot be read: {source}")]
    UnreadableOption { option: &'static str, source: prost::DecodeError },
    #[error("`{field}` has the value {number}, which this plugin does not know: update protoc-gen-grpcrouter")]
    NewerValue { field: &'static str, number: i32 },
    #[error("`service` must be a protobuf name such as \"MyService\" or \"my.pkg.MyService\", found {found:?}")]
    ServiceName { found: String },
    #[error(
        "`service` names {name:?}, and there is no such service; looked for {tried}; import the file that defines it"
    )]
    ServiceNotFound { name: String, tried: String },
    #[error("`service` names {target}, which has no method `{method}`; backends of {target} could not answer it")]
    TargetLacksMethod { target: String, method: String },
    #[error("`service` names {target}, whose method `{method}` {what} {found}, not {expected}")]
    TargetMethodDiffers { target: String, method: String, what: &'static str, expected: String, found: String },
    #[error("`routing_key` must be a metadata key (lower-case letters, digits, '-', '_' and '.'), found {found:?}")]
    MetadataKey { found: String },
    #[error(
        "`routing_key` must not be {found:?}, which gRPC or the gateway keeps for itself; name a metadata key of your own"
    )]
    ReservedKey { found: String },
    #[error(
        "`routing_key` must be a header name in lower case, \":authority\" or \"cookie:NAME\" when `strategy` is HEADER_BASED, found {found:?}"
    )]
    HeaderKey { found: String },
    #[error(
        "`routing_key` must be a plain name when `strategy` is PATH_BASED, it only stands in messages; found {found:?}"
    )]
    PathKey { found: String },
    #[error("`routing_key` must be set when `strategy` is {strategy}: {what}")]
    KeyMissing { strategy: &'static str, what: &'static str },
    #[error("`{setting}` needs a `routing_key`: without one no call has a key")]
    SettingNeedsKey { setting: &'static str },
    #[error("`routing_key` must be a field path such as \"customer_id\" or \"order.customer_id\", found {found:?}")]
    FieldPath { found: String },
    #[error(
        "`routing_key` names the field {field:?}, and {message}, the request of `{method}`, has none; give that method its own (grpcrouter.method_routes_to)"
    )]
    FieldNotFound { field: String, message: String, method: String },
    #[error("`routing_key` names the field {field:?} of `{method}`, which is {what}; a key is one scalar value")]
    FieldNotScalar { field: String, method: String, what: &'static str },
    #[error(
        "`path_prefix` must look like \"/api/v1\" (a leading '/', no trailing '/', segments of letters, digits and -._~), found {found:?}"
    )]
    PathPrefix { found: String },
    #[error(
        "(grpcrouter.method_routes_to) has no effect: {service} has no option (grpcrouter.routes_to); set that on the service"
    )]
    MethodOptionAlone { service: String },

    // Names in Rust.
    #[error("the methods `{first}` and `{second}` both become the Rust method `{rust}`; rename one")]
    SameRustMethod { first: String, second: String, rust: String },
    #[error("{first} and {second} both become the Rust module `{module}`; rename one")]
    SameModule { first: String, second: String, module: String },

    #[error("{first} and {second} both become the file {file}; {advice}")]
    SameFile { first: String, second: String, file: String, advice: &'static str },

    // The builder.
    #[error("{0:?}")]
    Compile(#[source] Box<protox::Error>),
    // The same, where we know what to do.
    #[error("{error:?}; {advice}")]
    CompileWith {
        #[source]
        error: Box<protox::Error>,
        advice: String,
    },
    #[error("{setting} must be a Rust path such as {example:?}, found {found:?}")]
    RustPath { setting: &'static str, example: &'static str, found: String },
    #[error("the variable OUT_DIR is not set; call this in a build script, or set out_dir()")]
    OutDir,
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot generate the messages and services: {0}")]
    Prost(#[source] io::Error),

    // Ourselves.
    #[error("internal error: the generated code does not parse: {0}; please report this with the proto file")]
    Internal(#[source] syn::Error),
}
