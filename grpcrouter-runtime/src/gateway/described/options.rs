//! One option of `proto/options.proto` as it stands in descriptors. What this version does not know is refused, never
//! guessed.

use super::invalid;
use crate::{
    codegen::{IdempotencyLevel, LoadBalancing, MethodRoutes, OnMissingKey, Strategy},
    descriptors::{Broken, Fields, Value},
    error::ConfigError,
};

/// `grpcrouter.routes_to` of `ServiceOptions`, and `grpcrouter.method_routes_to` of `MethodOptions`.
pub(super) const ROUTES_TO: u32 = 50311;
pub(super) const METHOD_ROUTES_TO: u32 = 50312;

/// Protobuf's own option of that name among `options` of a method. A level that is not known here allows nothing.
pub(super) fn idempotency_level(options: &[u8]) -> Result<IdempotencyLevel, Broken> {
    let mut level = IdempotencyLevel::Unknown;
    for option in Fields::of(options) {
        let option = option?;
        if let (IDEMPOTENCY_LEVEL, Value::Varint(number)) = (option.number, option.value) {
            level = one_of(number, &LEVELS).unwrap_or_default();
        }
    }
    Ok(level)
}

/// `MethodOptions.idempotency_level`.
const IDEMPOTENCY_LEVEL: u32 = 34;

/// What one option sets.
#[derive(Debug, Default)]
pub(super) struct Settings<'a> {
    pub(super) service: Option<&'a str>,
    pub(super) routing_key: Option<&'a str>,
    pub(super) strategy: Option<Strategy>,
    path_prefix: Option<&'a str>,
    load_balancing: Option<LoadBalancing>,
    on_missing_key: Option<OnMissingKey>,
    wait_for_instance: Option<bool>,
    /// What is not known here: the option's field and its value, if that is what is new.
    newer: Option<(u32, Option<u64>)>,
}

impl<'a> Settings<'a> {
    /// Of the option with this number among `options`, if it is there. Parts of it are merged.
    pub(super) fn read(options: &'a [u8], number: u32) -> Result<Option<Self>, Broken> {
        let mut found = None;
        for option in super::all(options, number) {
            found.get_or_insert_with(Self::default).merge(option?)?;
        }
        Ok(found)
    }

    fn merge(&mut self, option: &'a [u8]) -> Result<(), Broken> {
        for field in Fields::of(option) {
            let field = field?;
            let number = match field.value {
                Value::Varint(number) => Some(number),
                _ => None,
            };
            let text = || Ok(Some(field.value.text()?).filter(|text| !text.is_empty()));
            let known = match field.number {
                1 => take(&mut self.service, text()?),
                2 => take(&mut self.routing_key, text()?),
                3 => set(&mut self.strategy, number.and_then(|number| one_of(number, &STRATEGIES))),
                4 => take(&mut self.path_prefix, text()?),
                5 => set(&mut self.load_balancing, number.and_then(|number| one_of(number, &BALANCINGS))),
                6 => set(&mut self.on_missing_key, number.and_then(|number| one_of(number, &MISSING))),
                7 => set(&mut self.wait_for_instance, number.map(|number| number != 0)),
                _ => false,
            };
            if !known {
                self.newer = Some((field.number, number.filter(|_| field.number <= NEWEST)));
            }
        }
        Ok(())
    }

    /// # Errors
    /// A field or a value that is newer than this version.
    pub(super) fn check(&self, of: &str) -> Result<(), ConfigError> {
        let Some((field, value)) = self.newer else { return Ok(()) };
        let found = match value {
            Some(value) => format!("field {field} = {value}"),
            None => format!("field {field}"),
        };
        let why = "this version of the gateway does not know it: update the gateway";
        Err(invalid(of, "routes_to", &found, why))
    }

    /// All but the service, which is still to be found.
    pub(super) fn routes(&self) -> MethodRoutes<'a> {
        let mut routes = MethodRoutes::new();
        routes.routing_key = self.routing_key;
        routes.strategy = self.strategy;
        routes.path_prefix = self.path_prefix;
        routes.load_balancing = self.load_balancing;
        routes.on_missing_key = self.on_missing_key;
        routes.wait_for_instance = self.wait_for_instance;
        routes
    }
}

/// An empty text sets nothing, as with the generator.
fn take<'a>(field: &mut Option<&'a str>, text: Option<&'a str>) -> bool {
    *field = text;
    true
}

fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    let is_known = value.is_some();
    *field = value;
    is_known
}

fn one_of<T: Copy>(number: u64, all: &[T]) -> Option<T> {
    usize::try_from(number).ok().and_then(|number| all.get(number)).copied()
}

/// By their numbers in the proto file.
const STRATEGIES: [Strategy; 4] =
    [Strategy::MetadataBased, Strategy::PathBased, Strategy::HeaderBased, Strategy::FieldBased];
const BALANCINGS: [LoadBalancing; 6] = [
    LoadBalancing::RoundRobin,
    LoadBalancing::WeightedRoundRobin,
    LoadBalancing::LeastRequest,
    LoadBalancing::PeakEwma,
    LoadBalancing::ConsistentHash,
    LoadBalancing::Random,
];
const LEVELS: [IdempotencyLevel; 3] =
    [IdempotencyLevel::Unknown, IdempotencyLevel::NoSideEffects, IdempotencyLevel::Idempotent];
const MISSING: [OnMissingKey; 2] = [OnMissingKey::Balance, OnMissingKey::Reject];

/// The highest field of the option that is known here.
const NEWEST: u32 = 7;
