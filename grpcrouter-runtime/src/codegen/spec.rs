//! What a proto file says of a service and its methods, as constants: generated code writes it, `build()` reads it.
//! Each setter is const and each default is the option's, so a new option breaks no generated code.

use super::FieldPath;

/// A generated router, such as `MyServiceRouter`: what a gateway is told of its service, and what it can be used as.
///
/// * **Added to a gateway** with [`GatewayBuilder::add_router`](crate::GatewayBuilder::add_router), which serves it with
///   the gateway's own front. This is the way to serve: none of the limits below holds.
/// * **The channel of tonic's own client**: `MyServiceRouter::new(&gateway).typed_client()` calls a backend from the
///   gateway's process, and `typed_client_for(key)` the one that has this routing key, whatever key a call brings; that is
///   there where clients can set the key, in metadata, a header or the path, and takes bytes for a `-bin` entry. A dropped
///   call is cancelled; a response that nobody reads waits in one window of the call.
/// * **A service of your own server**, tonic's or axum's, beside
///   [`register_service`](crate::Gateway::register_service), whose docs tell the limits. It forwards bytes as they are.
///   A `path_prefix` is served by [`Prefixed`](super::Prefixed), added as another service. In axum a router is mounted
///   with `.route_service("/package.Service/{*method}", router)`; a key in the path needs axum, with another route
///   `"/prefix/{key}/package.Service/{*method}"`, for tonic's server knows no such paths.
/// * **The service's own tonic trait**, to be wrapped by your code and served with `MyServiceServer::new(..)`, message by
///   message. On top of the limits of a server of your own:
///   * Messages are decoded and encoded again: fields that this proto does not know are dropped, and a compressed message
///     is refused unless the server has `accept_compressed`.
///   * The server has tonic's limit of 4 MiB: set `max_decoding_message_size(usize::MAX)`. The router has none.
///   * The trailers of a unary answer become headers, and those of a stream are lost, but for the status.
///   * tonic does not tell a unary call with a second message from one without.
///   * An upload that is cancelled, breaks or cannot be decoded stays broken: it never ends well at the instance. Who
///     builds a `Request<Streaming<_>>` of their own must poll the call to its end for that.
pub trait Router {
    /// What the proto file says of the service.
    const SPEC: &'static ServiceSpec;
}

/// A service and how its calls are routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceSpec {
    /// The annotated service, in full: `package.Service`. It is what clients call.
    pub name: &'static str,
    /// The service that backends register, in full. Most often the same.
    pub target: &'static str,
    /// What holds the routing key; none: calls are balanced.
    pub routing_key: Option<&'static str>,
    /// Where the routing key is read.
    pub strategy: Strategy,
    /// `{path_prefix}/{package.Service}/{Method}` is served beside the bare path. Begins with `/`, has none at its end.
    pub path_prefix: Option<&'static str>,
    /// Which of several instances answers.
    pub load_balancing: LoadBalancing,
    /// What becomes of a call without a routing key.
    pub on_missing_key: OnMissingKey,
    /// Whether a call that finds no instance waits for one.
    pub wait_for_instance: bool,
    /// The field that `FIELD_BASED` reads, of a request of every method that has no other.
    pub field: Option<FieldPath<'static>>,
    /// The service's methods, in the order of the proto file.
    pub methods: &'static [MethodSpec],
    /// The proto file of the service with all that it imports, an encoded `FileDescriptorSet`, for reflection. Google's
    /// own files may be left out. Empty: it is not known.
    pub descriptors: &'static [u8],
}

impl ServiceSpec {
    /// A service with every option at its default and no methods.
    pub const fn new(name: &'static str, target: &'static str) -> Self {
        Self {
            name,
            target,
            routing_key: None,
            strategy: Strategy::MetadataBased,
            path_prefix: None,
            load_balancing: LoadBalancing::RoundRobin,
            on_missing_key: OnMissingKey::Balance,
            wait_for_instance: false,
            field: None,
            methods: &[],
            descriptors: &[],
        }
    }

    /// Sets what holds the routing key.
    pub const fn routing_key(mut self, routing_key: &'static str) -> Self {
        self.routing_key = Some(routing_key);
        self
    }

    /// Sets where the routing key is read.
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets the prefix that is served beside the bare path.
    pub const fn path_prefix(mut self, path_prefix: &'static str) -> Self {
        self.path_prefix = Some(path_prefix);
        self
    }

    /// Sets how an instance is chosen.
    pub const fn load_balancing(mut self, load_balancing: LoadBalancing) -> Self {
        self.load_balancing = load_balancing;
        self
    }

    /// Sets what becomes of a call without a routing key.
    pub const fn on_missing_key(mut self, on_missing_key: OnMissingKey) -> Self {
        self.on_missing_key = on_missing_key;
        self
    }

    /// Sets whether a call waits for an instance.
    pub const fn wait_for_instance(mut self, wait_for_instance: bool) -> Self {
        self.wait_for_instance = wait_for_instance;
        self
    }

    /// Sets the field that `FIELD_BASED` reads.
    pub const fn field(mut self, field: FieldPath<'static>) -> Self {
        self.field = Some(field);
        self
    }

    /// Sets the methods.
    pub const fn methods(mut self, methods: &'static [MethodSpec]) -> Self {
        self.methods = methods;
        self
    }

    /// Sets the descriptors.
    pub const fn descriptors(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// The method that is called by this path, without any prefix.
    pub fn method_by_path(&self, path: &str) -> Option<&'static MethodSpec> {
        self.methods.iter().find(|method| method.path == path)
    }

    /// How the calls of one of its methods are routed: the service's options, overridden field by field by the method's.
    pub fn routes(&self, method: &MethodSpec) -> Routes {
        let own = &method.routes;
        Routes {
            target: own.target.unwrap_or(self.target),
            routing_key: own.routing_key.or(self.routing_key),
            strategy: own.strategy.unwrap_or(self.strategy),
            path_prefix: own.path_prefix.or(self.path_prefix),
            load_balancing: own.load_balancing.unwrap_or(self.load_balancing),
            on_missing_key: own.on_missing_key.unwrap_or(self.on_missing_key),
            wait_for_instance: own.wait_for_instance.unwrap_or(self.wait_for_instance),
            field: own.field.or(self.field),
        }
    }
}

/// How the calls of one method are routed, when the options of service and method are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Routes {
    /// See [`ServiceSpec::target`].
    pub target: &'static str,
    /// See [`ServiceSpec::routing_key`].
    pub routing_key: Option<&'static str>,
    /// See [`ServiceSpec::strategy`].
    pub strategy: Strategy,
    /// See [`ServiceSpec::path_prefix`].
    pub path_prefix: Option<&'static str>,
    /// See [`ServiceSpec::load_balancing`].
    pub load_balancing: LoadBalancing,
    /// See [`ServiceSpec::on_missing_key`].
    pub on_missing_key: OnMissingKey,
    /// See [`ServiceSpec::wait_for_instance`].
    pub wait_for_instance: bool,
    /// See [`ServiceSpec::field`].
    pub field: Option<FieldPath<'static>>,
}

/// One method of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MethodSpec {
    /// The annotated service, in full.
    pub service: &'static str,
    /// The method's name in the proto file.
    pub name: &'static str,
    /// The bare path by which it is called: `/package.Service/Method`.
    pub path: &'static str,
    /// Which side streams.
    pub kind: Kind,
    /// What `method_routes_to` sets.
    pub routes: MethodRoutes<'static>,
    /// What protobuf's own option of that name sets.
    pub idempotency_level: IdempotencyLevel,
}

impl MethodSpec {
    /// A method that is routed as its service is.
    pub const fn new(service: &'static str, name: &'static str, path: &'static str, kind: Kind) -> Self {
        let idempotency_level = IdempotencyLevel::Unknown;
        Self { service, name, path, kind, routes: MethodRoutes::new(), idempotency_level }
    }

    /// Sets whether the method may be executed twice.
    pub const fn idempotency_level(mut self, level: IdempotencyLevel) -> Self {
        self.idempotency_level = level;
        self
    }

    /// Sets what is different for this method.
    pub const fn routes(mut self, routes: MethodRoutes<'static>) -> Self {
        self.routes = routes;
        self
    }
}

/// What a method's own option sets; the rest is its service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MethodRoutes<'a> {
    /// The service that backends register for this method, in full.
    pub target: Option<&'a str>,
    /// See [`ServiceSpec::routing_key`].
    pub routing_key: Option<&'a str>,
    /// See [`ServiceSpec::strategy`].
    pub strategy: Option<Strategy>,
    /// See [`ServiceSpec::path_prefix`].
    pub path_prefix: Option<&'a str>,
    /// See [`ServiceSpec::load_balancing`].
    pub load_balancing: Option<LoadBalancing>,
    /// See [`ServiceSpec::on_missing_key`].
    pub on_missing_key: Option<OnMissingKey>,
    /// See [`ServiceSpec::wait_for_instance`].
    pub wait_for_instance: Option<bool>,
    /// See [`ServiceSpec::field`].
    pub field: Option<FieldPath<'a>>,
}

impl<'a> MethodRoutes<'a> {
    /// Nothing of its own.
    pub const fn new() -> Self {
        Self {
            target: None,
            routing_key: None,
            strategy: None,
            path_prefix: None,
            load_balancing: None,
            on_missing_key: None,
            wait_for_instance: None,
            field: None,
        }
    }

    /// Sets the service that backends register for this method.
    pub const fn target(mut self, target: &'a str) -> Self {
        self.target = Some(target);
        self
    }

    /// Sets what holds the routing key.
    pub const fn routing_key(mut self, routing_key: &'a str) -> Self {
        self.routing_key = Some(routing_key);
        self
    }

    /// Sets where the routing key is read.
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = Some(strategy);
        self
    }

    /// Sets the prefix that is served beside the bare path.
    pub const fn path_prefix(mut self, path_prefix: &'a str) -> Self {
        self.path_prefix = Some(path_prefix);
        self
    }

    /// Sets how an instance is chosen.
    pub const fn load_balancing(mut self, load_balancing: LoadBalancing) -> Self {
        self.load_balancing = Some(load_balancing);
        self
    }

    /// Sets what becomes of a call without a routing key.
    pub const fn on_missing_key(mut self, on_missing_key: OnMissingKey) -> Self {
        self.on_missing_key = Some(on_missing_key);
        self
    }

    /// Sets whether a call waits for an instance.
    pub const fn wait_for_instance(mut self, wait_for_instance: bool) -> Self {
        self.wait_for_instance = Some(wait_for_instance);
        self
    }

    /// Sets the field that `FIELD_BASED` reads.
    pub const fn field(mut self, field: FieldPath<'a>) -> Self {
        self.field = Some(field);
        self
    }
}

/// Which side of a method streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One message each way.
    Unary,
    /// One message, many answers.
    ServerStreaming,
    /// Many messages, one answer.
    ClientStreaming,
    /// Many messages each way.
    Bidi,
}

/// Whether a method may be executed twice; protobuf's own option `idempotency_level` of a method.
///
/// A gateway opens a call of a method that may be at another instance where the first was lost with it, so that its
/// client sees no failure; that of any other method it never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum IdempotencyLevel {
    /// `IDEMPOTENCY_UNKNOWN`: it must not be. The default.
    #[default]
    Unknown,
    /// `NO_SIDE_EFFECTS`: it changes nothing.
    NoSideEffects,
    /// `IDEMPOTENT`: twice is as once.
    Idempotent,
}

impl IdempotencyLevel {
    /// As the proto file spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "IDEMPOTENCY_UNKNOWN",
            Self::NoSideEffects => "NO_SIDE_EFFECTS",
            Self::Idempotent => "IDEMPOTENT",
        }
    }

    /// Whether a call may be executed twice.
    pub const fn may_repeat(self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// Where the routing key is read; the option `strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// `METADATA_BASED`: a gRPC metadata entry.
    MetadataBased,
    /// `PATH_BASED`: a path segment.
    PathBased,
    /// `HEADER_BASED`: an HTTP header, the authority or a cookie.
    HeaderBased,
    /// `FIELD_BASED`: a field of the first request message.
    FieldBased,
}

impl Strategy {
    /// As the proto file spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MetadataBased => "METADATA_BASED",
            Self::PathBased => "PATH_BASED",
            Self::HeaderBased => "HEADER_BASED",
            Self::FieldBased => "FIELD_BASED",
        }
    }
}

/// Which of several instances answers a call; the option `load_balancing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadBalancing {
    /// `ROUND_ROBIN`: in turn.
    RoundRobin,
    /// `WEIGHTED_ROUND_ROBIN`: in turn, by weight.
    WeightedRoundRobin,
    /// `LEAST_REQUEST`: the less busy of two drawn by chance.
    LeastRequest,
    /// `PEAK_EWMA`: the quicker of two drawn by chance.
    PeakEwma,
    /// `CONSISTENT_HASH`: the key is hashed over all instances.
    ConsistentHash,
    /// `RANDOM`: by chance.
    Random,
}

impl LoadBalancing {
    /// As the proto file spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "ROUND_ROBIN",
            Self::WeightedRoundRobin => "WEIGHTED_ROUND_ROBIN",
            Self::LeastRequest => "LEAST_REQUEST",
            Self::PeakEwma => "PEAK_EWMA",
            Self::ConsistentHash => "CONSISTENT_HASH",
            Self::Random => "RANDOM",
        }
    }
}

/// What becomes of a call without a routing key; the option `on_missing_key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnMissingKey {
    /// `BALANCE`: it is balanced over all instances.
    Balance,
    /// `REJECT`: it is refused with INVALID_ARGUMENT.
    Reject,
}

impl OnMissingKey {
    /// As the proto file spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balance => "BALANCE",
            Self::Reject => "REJECT",
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a failing test may panic")]
mod tests {
    use super::*;

    static METHODS: &[MethodSpec] = &[
        MethodSpec::new("demo.Shop", "Buy", "/demo.Shop/Buy", Kind::Unary),
        MethodSpec::new("demo.Shop", "Watch", "/demo.Shop/Watch", Kind::ServerStreaming)
            .routes(MethodRoutes::new().on_missing_key(OnMissingKey::Reject).routing_key("shelf")),
    ];
    static SPEC: ServiceSpec = ServiceSpec::new("demo.Shop", "demo.Shop")
        .routing_key("instanceid")
        .path_prefix("/api/v1")
        .load_balancing(LoadBalancing::LeastRequest)
        .methods(METHODS);

    #[test]
    fn a_method_is_found_by_its_bare_path_only() {
        assert_eq!(SPEC.method_by_path("/demo.Shop/Buy").map(|method| method.name), Some("Buy"));
        assert_eq!(SPEC.method_by_path("/api/v1/demo.Shop/Buy"), None);
        assert_eq!(SPEC.method_by_path("/demo.Shop/Sell"), None);
    }

    #[test]
    fn a_method_without_routes_is_routed_as_its_service() {
        let routes = Routes {
            target: "demo.Shop",
            routing_key: Some("instanceid"),
            strategy: Strategy::MetadataBased,
            path_prefix: Some("/api/v1"),
            load_balancing: LoadBalancing::LeastRequest,
            on_missing_key: OnMissingKey::Balance,
            wait_for_instance: false,
            field: None,
        };
        assert_eq!(SPEC.routes(&METHODS[0]), routes);
    }

    #[test]
    fn a_methods_routes_override_field_by_field() {
        let routes = SPEC.routes(&METHODS[1]);
        assert_eq!(routes.routing_key, Some("shelf"));
        assert_eq!(routes.on_missing_key, OnMissingKey::Reject);
        assert_eq!(routes.path_prefix, Some("/api/v1"));
        assert_eq!(routes.load_balancing, LoadBalancing::LeastRequest);
    }
}
