//! Reads `(grpcrouter.routes_to)` and `(grpcrouter.method_routes_to)` into checked values.
//! The user's copy of options.proto may be older or newer than the plugin; what does not fit is refused, never guessed.

use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, FileDescriptor, Kind, Value};

use crate::{
    error::{Error, Fault, Faults, Position, Problem},
    pool,
};

/// The two options as the pool defines them.
#[derive(Debug)]
pub(crate) struct Extensions {
    service: Option<ExtensionDescriptor>,
    method: Option<ExtensionDescriptor>,
}

/// What one option sets. `None`: not set, or set to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) service: Option<String>,
    pub(crate) routing_key: Option<String>,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) path_prefix: Option<String>,
    pub(crate) load_balancing: Option<LoadBalancing>,
    pub(crate) on_missing_key: Option<OnMissingKey>,
    pub(crate) wait_for_instance: Option<bool>,
}

/// Where a routing key is read.
#[expect(clippy::enum_variant_names, reason = "the names are those of the proto file")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Strategy {
    MetadataBased = 0,
    PathBased = 1,
    HeaderBased = 2,
    FieldBased = 3,
}

/// How an instance is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum LoadBalancing {
    RoundRobin = 0,
    WeightedRoundRobin = 1,
    LeastRequest = 2,
    PeakEwma = 3,
    ConsistentHash = 4,
    Random = 5,
}

/// What becomes of a call without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum OnMissingKey {
    Balance = 0,
    Reject = 1,
}

impl Extensions {
    /// The options that the pool defines, checked against those that this plugin reads.
    pub(crate) fn find(pool: &DescriptorPool) -> Result<Self, Error> {
        let mut faults = Faults::default();
        let service = faults.take(find(pool, &ROUTES_TO)).flatten();
        let method = faults.take(find(pool, &METHOD_ROUTES_TO)).flatten();
        faults.or(Self { service, method })
    }

    /// What a service's option sets, with its place; `None` for a service without the option.
    pub(crate) fn of_service(
        &self,
        service: &prost_reflect::ServiceDescriptor,
    ) -> Result<Option<(Settings, Position)>, Error> {
        let Some(extension) = &self.service else { return Ok(None) };
        let subject = format!("service {}", service.full_name());
        let place = Place { file: service.parent_file(), path: service.path(), options: SERVICE_OPTIONS, subject };
        read(&service.options(), extension, &ROUTES_TO, &place)
    }

    /// What a method's own option sets, with its place; `None` for a method without the option.
    pub(crate) fn of_method(
        &self,
        method: &prost_reflect::MethodDescriptor,
    ) -> Result<Option<(Settings, Position)>, Error> {
        let Some(extension) = &self.method else { return Ok(None) };
        let subject = format!("method {}", method.full_name());
        let place = Place { file: method.parent_file(), path: method.path(), options: METHOD_OPTIONS, subject };
        read(&method.options(), extension, &METHOD_ROUTES_TO, &place)
    }
}

impl Settings {
    /// These, and where they set nothing, those of `base`.
    pub(crate) fn over(&self, base: &Self) -> Self {
        Self {
            service: self.service.clone().or_else(|| base.service.clone()),
            routing_key: self.routing_key.clone().or_else(|| base.routing_key.clone()),
            strategy: self.strategy.or(base.strategy),
            path_prefix: self.path_prefix.clone().or_else(|| base.path_prefix.clone()),
            load_balancing: self.load_balancing.or(base.load_balancing),
            on_missing_key: self.on_missing_key.or(base.on_missing_key),
            wait_for_instance: self.wait_for_instance.or(base.wait_for_instance),
        }
    }

    /// Where the key is read, the default included.
    pub(crate) fn strategy(&self) -> Strategy {
        self.strategy.unwrap_or(Strategy::MetadataBased)
    }
}

/// One of the two options.
struct Spec {
    name: &'static str,
    number: u32,
    extendee: &'static str,
}

const ROUTES_TO: Spec =
    Spec { name: "grpcrouter.routes_to", number: 50311, extendee: "google.protobuf.ServiceOptions" };
const METHOD_ROUTES_TO: Spec =
    Spec { name: "grpcrouter.method_routes_to", number: 50312, extendee: "google.protobuf.MethodOptions" };

/// `ServiceDescriptorProto.options` and `MethodDescriptorProto.options`.
const SERVICE_OPTIONS: i32 = 3;
const METHOD_OPTIONS: i32 = 4;

/// The message of both options, for its bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct RoutingOptions {
    #[prost(string, optional, tag = "1")]
    service: Option<String>,
    #[prost(string, optional, tag = "2")]
    routing_key: Option<String>,
    #[prost(int32, optional, tag = "3")]
    strategy: Option<i32>,
    #[prost(string, optional, tag = "4")]
    path_prefix: Option<String>,
    #[prost(int32, optional, tag = "5")]
    load_balancing: Option<i32>,
    #[prost(int32, optional, tag = "6")]
    on_missing_key: Option<i32>,
    #[prost(bool, optional, tag = "7")]
    wait_for_instance: Option<bool>,
}

/// Its fields by name and number; `true` for those that are enums.
const FIELDS: &[(&str, u32, FieldKind)] = &[
    ("service", 1, FieldKind::Text),
    ("routing_key", 2, FieldKind::Text),
    ("strategy", 3, FieldKind::Enum),
    ("path_prefix", 4, FieldKind::Text),
    ("load_balancing", 5, FieldKind::Enum),
    ("on_missing_key", 6, FieldKind::Enum),
    ("wait_for_instance", 7, FieldKind::Bool),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum FieldKind {
    Text,
    Enum,
    Bool,
}

/// `None`: no file of the request defines it, so nothing uses it.
fn find(pool: &DescriptorPool, spec: &Spec) -> Result<Option<ExtensionDescriptor>, Error> {
    let Some(extension) = pool.get_extension_by_name(spec.name) else { return Ok(None) };
    match difference(&extension, spec) {
        None => Ok(Some(extension)),
        Some(what) => {
            let at = pool::position(&extension.parent_file(), &[extension.path()]);
            Err(Fault::at(at, Problem::ForeignOption { option: spec.name, what }).into())
        }
    }
}

/// What keeps this definition from being the option that is read here. Fewer fields, or more, are fine.
fn difference(extension: &ExtensionDescriptor, spec: &Spec) -> Option<String> {
    let extendee = extension.containing_message();
    if extension.number() != spec.number || extendee.full_name() != spec.extendee {
        return Some(format!(
            "expected extension {} of {}, found {} of {}",
            spec.number,
            spec.extendee,
            extension.number(),
            extendee.full_name()
        ));
    }
    let Kind::Message(message) = extension.kind() else { return Some("it must be a message".to_owned()) };
    FIELDS.iter().find_map(|(name, number, kind)| {
        let by_name = message.get_field_by_name(name);
        let by_number = message.get_field(*number);
        let field = by_name.or(by_number)?;
        let found = match field.kind() {
            Kind::String => Some(FieldKind::Text),
            Kind::Enum(_) => Some(FieldKind::Enum),
            Kind::Bool => Some(FieldKind::Bool),
            _ => None,
        };
        let fits = field.name() == *name && field.number() == *number && found == Some(*kind) && !field.is_list();
        (!fits).then(|| format!("its field {number} is not `{name}` as this plugin knows it"))
    })
}

/// Where an option stands, for messages.
struct Place<'a> {
    file: FileDescriptor,
    path: &'a [i32],
    options: i32,
    subject: String,
}

fn read(
    options: &DynamicMessage,
    extension: &ExtensionDescriptor,
    spec: &Spec,
    place: &Place<'_>,
) -> Result<Option<(Settings, Position)>, Error> {
    if !options.has_extension(extension) {
        return Ok(None);
    }
    let number = i32::try_from(spec.number).unwrap_or_default();
    let option_path: Vec<i32> = place.path.iter().copied().chain([place.options, number]).collect();
    let at = pool::position(&place.file, &[&option_path, place.path]);
    let fault = |problem| Fault::new(at.clone(), place.subject.clone(), problem);
    let mut faults = Faults::default();
    let value = options.get_extension(extension);
    let Value::Message(message) = value.as_ref() else {
        let what = "it must be a message".to_owned();
        return Err(fault(Problem::ForeignOption { option: spec.name, what }).into());
    };
    let (settings, problems) = parts(message, spec.name);
    problems.into_iter().for_each(|problem| faults.push(fault(problem)));
    faults.or(Some((settings, at)))
}

/// What a message of the option sets, wherever it comes from.
pub(crate) fn settings(message: &DynamicMessage) -> Result<Settings, Error> {
    let mut faults = Faults::default();
    let (settings, problems) = parts(message, ROUTES_TO.name);
    problems.into_iter().for_each(|problem| faults.push(problem));
    faults.or(settings)
}

/// What the message sets, and what of it this plugin does not know.
fn parts(message: &DynamicMessage, option: &'static str) -> (Settings, Vec<Problem>) {
    let mut problems = Vec::new();
    let newest = FIELDS.len();
    let unknown = message.unknown_fields().map(|field| field.number());
    let newer = message
        .fields()
        .map(|(field, _)| field.number())
        .filter(|number| usize::try_from(*number).is_ok_and(|n| n > newest));
    for number in unknown.chain(newer) {
        problems.push(Problem::NewerField { option, number });
    }
    let raw = message.transcode_to::<RoutingOptions>().unwrap_or_else(|source| {
        problems.push(Problem::UnreadableOption { option, source });
        RoutingOptions::default()
    });

    let mut newer = |field: &'static str, number: i32| problems.push(Problem::NewerValue { field, number });
    let settings = Settings {
        service: text(raw.service),
        routing_key: text(raw.routing_key),
        strategy: value_of("strategy", raw.strategy, &mut newer),
        path_prefix: text(raw.path_prefix),
        load_balancing: value_of("load_balancing", raw.load_balancing, &mut newer),
        on_missing_key: value_of("on_missing_key", raw.on_missing_key, &mut newer),
        wait_for_instance: raw.wait_for_instance,
    };
    (settings, problems)
}

/// An empty text sets nothing: a key, a prefix or a service of that name cannot be.
fn text(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

/// The value with this number; one that the plugin does not know is told, not replaced.
fn value_of<T: TryFrom<i32>>(
    field: &'static str,
    number: Option<i32>,
    newer: &mut impl FnMut(&'static str, i32),
) -> Option<T> {
    let number = number?;
    T::try_from(number).map_err(|_| newer(field, number)).ok()
}
