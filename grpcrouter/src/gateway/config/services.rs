//! How services are routed, as the file says it: the options of `proto/options.proto`, by their own names.

use std::collections::BTreeMap;

use grpcrouter_runtime::{FieldPath, FieldType, LoadBalancing, MethodRoutes, OnMissingKey, ServiceRoutes, Strategy};
use serde::Deserialize;

/// What is set for a service or a method.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct Routes {
    pub(in crate::gateway) routing_key: Option<String>,
    strategy: Option<ByStrategy>,
    path_prefix: Option<String>,
    load_balancing: Option<Balancing>,
    on_missing_key: Option<Missing>,
    wait_for_instance: Option<bool>,
    field: Option<Field>,
}

/// `[services."package.Service"]`. Serde's `flatten` would lose both the lines and the strictness.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct Service {
    service: Option<String>,
    #[serde(default)]
    routes: Routes,
    #[serde(default)]
    methods: BTreeMap<String, Method>,
    other_methods: Option<bool>,
}

/// `[services."package.Service".methods.Name]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Method {
    kind: MethodKind,
    service: Option<String>,
    #[serde(default)]
    routes: Routes,
}

/// `field = { numbers = [2, 1], type = "string" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    numbers: Vec<u32>,
    r#type: Scalar,
    #[serde(default)]
    presence: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MethodKind {
    Unary,
    ServerStreaming,
    ClientStreaming,
    Bidi,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum ByStrategy {
    #[serde(rename = "METADATA_BASED")]
    Metadata,
    #[serde(rename = "PATH_BASED")]
    Path,
    #[serde(rename = "HEADER_BASED")]
    Header,
    #[serde(rename = "FIELD_BASED")]
    Field,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Balancing {
    RoundRobin,
    WeightedRoundRobin,
    LeastRequest,
    PeakEwma,
    ConsistentHash,
    Random,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Missing {
    Balance,
    Reject,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scalar {
    String,
    Bytes,
    Bool,
    Enum,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
}

impl Routes {
    /// As the library takes them.
    pub(in crate::gateway) fn routes(&self) -> MethodRoutes<'_> {
        let mut routes = MethodRoutes::new();
        if let Some(key) = &self.routing_key {
            routes = routes.routing_key(key);
        }
        if let Some(strategy) = self.strategy {
            routes = routes.strategy(match strategy {
                ByStrategy::Metadata => Strategy::MetadataBased,
                ByStrategy::Path => Strategy::PathBased,
                ByStrategy::Header => Strategy::HeaderBased,
                ByStrategy::Field => Strategy::FieldBased,
            });
        }
        if let Some(prefix) = &self.path_prefix {
            routes = routes.path_prefix(prefix);
        }
        if let Some(balancing) = self.load_balancing {
            routes = routes.load_balancing(match balancing {
                Balancing::RoundRobin => LoadBalancing::RoundRobin,
                Balancing::WeightedRoundRobin => LoadBalancing::WeightedRoundRobin,
                Balancing::LeastRequest => LoadBalancing::LeastRequest,
                Balancing::PeakEwma => LoadBalancing::PeakEwma,
                Balancing::ConsistentHash => LoadBalancing::ConsistentHash,
                Balancing::Random => LoadBalancing::Random,
            });
        }
        if let Some(missing) = self.on_missing_key {
            routes = routes.on_missing_key(match missing {
                Missing::Balance => OnMissingKey::Balance,
                Missing::Reject => OnMissingKey::Reject,
            });
        }
        if let Some(wait) = self.wait_for_instance {
            routes = routes.wait_for_instance(wait);
        }
        if let Some(field) = &self.field {
            let path = FieldPath::new(&field.numbers, field.r#type.kind());
            routes = routes.field(if field.presence { path.presence() } else { path });
        }
        routes
    }
}

impl Service {
    /// As the library takes it.
    pub(in crate::gateway) fn routes(&self, name: &str) -> ServiceRoutes {
        let mut routes = ServiceRoutes::new(name.to_owned()).routes(self.routes.routes());
        if let Some(target) = &self.service {
            routes = routes.target(target.clone());
        }
        if self.other_methods.unwrap_or(true) {
            routes = routes.any_method();
        }
        for (name, method) in &self.methods {
            routes = match method.kind {
                MethodKind::Unary => routes.unary(name.clone()),
                MethodKind::ServerStreaming => routes.server_streaming(name.clone()),
                MethodKind::ClientStreaming => routes.client_streaming(name.clone()),
                MethodKind::Bidi => routes.bidi(name.clone()),
            };
            let own = method.routes.routes();
            let own = method.service.as_deref().map_or(own, |target| own.target(target));
            if own != MethodRoutes::new() {
                routes = routes.method_routes(name.clone(), own);
            }
        }
        routes
    }
}

impl Scalar {
    fn kind(self) -> FieldType {
        match self {
            Self::String => FieldType::String,
            Self::Bytes => FieldType::Bytes,
            Self::Bool => FieldType::Bool,
            Self::Enum => FieldType::Enum,
            Self::Int32 => FieldType::Int32,
            Self::Int64 => FieldType::Int64,
            Self::Uint32 => FieldType::Uint32,
            Self::Uint64 => FieldType::Uint64,
            Self::Sint32 => FieldType::Sint32,
            Self::Sint64 => FieldType::Sint64,
            Self::Fixed32 => FieldType::Fixed32,
            Self::Fixed64 => FieldType::Fixed64,
            Self::Sfixed32 => FieldType::Sfixed32,
            Self::Sfixed64 => FieldType::Sfixed64,
        }
    }
}
