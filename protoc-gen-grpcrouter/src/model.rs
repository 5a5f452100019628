//! The checked model: what is emitted, and nothing that could still be wrong.
//! Both front ends, plugin and builder, pass through [`Model::check`], so both tell the same errors.

mod clash;
mod key;
mod target;

use std::collections::HashSet;

pub(crate) use clash::router_module;
use prost_reflect::{DescriptorPool, FileDescriptor, MethodDescriptor, ServiceDescriptor};

use crate::{
    builder::compile::OPTIONS_IMPORT,
    error::{Error, Fault, Faults, Position, Problem},
    names,
    options::{Extensions, Settings},
    pool,
    resolve::Resolver,
    routes::Routes,
};

/// All files that hold a service with a router, sorted by name: the order of the command line must not show.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) files: Vec<ProtoFile>,
    /// What will most likely not work, though nothing here is wrong.
    pub(crate) warnings: Vec<String>,
}

/// One proto file with routers.
#[derive(Debug)]
pub(crate) struct ProtoFile {
    pub(crate) name: String,
    pub(crate) package: String,
    /// Whether this run writes for this file; others of its package are there for the file of the package.
    pub(crate) wanted: bool,
    pub(crate) services: Vec<Service>,
}

/// One service with the option.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) rust_name: String,
    pub(crate) full_name: String,
    /// The service that backends register, in full.
    pub(crate) target: String,
    pub(crate) docs: Vec<String>,
    pub(crate) deprecated: bool,
    pub(crate) settings: Settings,
    pub(crate) methods: Vec<Method>,
    /// An encoded `FileDescriptorSet`, for reflection.
    pub(crate) descriptors: Vec<u8>,
}

/// One method of it.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    pub(crate) rust_name: String,
    pub(crate) proto_name: String,
    pub(crate) kind: CallKind,
    /// The Rust types, as prost's module names them.
    pub(crate) input: String,
    pub(crate) output: String,
    /// What its own option sets, with `service` in full.
    pub(crate) own: Option<Settings>,
    /// What FIELD_BASED reads.
    pub(crate) field: Option<Field>,
    pub(crate) idempotency: Idempotency,
}

/// Whether a method may be executed twice; protobuf's own option `idempotency_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idempotency {
    Unknown,
    NoSideEffects,
    Idempotent,
}

/// A field of a request that holds its routing key, as the gateway finds it: by numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) numbers: Vec<u32>,
    /// For each number, the other fields of the same oneof.
    pub(crate) rivals: Vec<Vec<u32>>,
    /// As the runtime calls the type.
    pub(crate) kind: &'static str,
    /// Whether it is told apart from a field that is not set when it is zero or empty.
    pub(crate) presence: bool,
}

/// Which side streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    Unary,
    ServerStreaming,
    ClientStreaming,
    Bidi,
}

/// Which files this run writes for.
#[derive(Debug)]
pub(crate) enum Wanted<'a> {
    All,
    Files(HashSet<&'a str>),
}

impl Wanted<'_> {
    fn has(&self, file: &str) -> bool {
        match self {
            Self::All => true,
            Self::Files(files) => files.contains(file),
        }
    }
}

impl Model {
    /// Reads and checks every service with the option. An error in a file that is only imported is left for the run
    /// that writes for it.
    pub(crate) fn check(
        pool: &DescriptorPool,
        wanted: &Wanted<'_>,
        resolver: &Resolver,
        routes: &Routes,
    ) -> Result<Self, Error> {
        let mut faults = Faults::default();
        if let Wanted::Files(names) = wanted {
            let missing = names.iter().filter(|name| pool.get_file_by_name(name).is_none());
            missing.for_each(|name| faults.push(Problem::MissingFile { name: (*name).to_owned() }));
        }
        let extensions = match faults.take(Extensions::find(pool)) {
            Some(extensions) => extensions,
            None => return faults.or(Self { files: Vec::new(), warnings: Vec::new() }),
        };

        check_routes(pool, wanted, routes, &mut faults);

        let mut descriptors: Vec<FileDescriptor> = pool.files().collect();
        descriptors.sort_by(|a, b| a.name().cmp(b.name()));
        let mut files = Vec::new();
        for descriptor in &descriptors {
            let is_wanted = wanted.has(descriptor.name());
            let mut services = Vec::new();
            for service in descriptor.services() {
                match check_service(pool, &service, &extensions, resolver, routes) {
                    Ok(Some(service)) => services.push(service),
                    Ok(None) => {}
                    Err(error) if is_wanted => faults.extend(error),
                    Err(_) => {}
                }
            }
            if !services.is_empty() {
                let (name, package) = (descriptor.name().to_owned(), descriptor.package_name().to_owned());
                files.push(ProtoFile { name, package, wanted: is_wanted, services });
            }
        }
        clash::check(pool, &files, &mut faults);
        let mut warnings = clash::warnings(&files);
        if files.iter().all(|file| !file.wanted) {
            warnings.extend(unrouted(&descriptors, wanted));
        }
        faults.or(Self { files, warnings })
    }
}

/// What to add where this run has services and none of them the option: without a word it would look as if it had worked.
fn unrouted(descriptors: &[FileDescriptor], wanted: &Wanted<'_>) -> Vec<String> {
    let candidates = descriptors.iter().filter(|file| wanted.has(file.name()));
    let warning = |file: &FileDescriptor| {
        let service = file.services().next()?;
        let import = match file.dependencies().any(|import| import.name() == OPTIONS_IMPORT) {
            true => String::new(),
            false => format!("`import \"{OPTIONS_IMPORT}\";` and "),
        };
        Some(format!(
            "{}: no router, because service {} has no option (grpcrouter.routes_to); add {import}`option (grpcrouter.routes_to) = {{}};` in \
             the service",
            file.name(),
            service.full_name()
        ))
    };
    candidates.filter_map(warning).collect()
}

/// Each route that was given must be of a service that this run writes, or whose package's file it writes.
fn check_routes(pool: &DescriptorPool, wanted: &Wanted<'_>, routes: &Routes, faults: &mut Faults) {
    let packages: HashSet<String> =
        pool.files().filter(|file| wanted.has(file.name())).map(|file| file.package_name().to_owned()).collect();
    for name in routes.services() {
        let service = pool.get_service_by_name(name);
        if !service.is_some_and(|service| packages.contains(service.package_name())) {
            faults.push(Problem::RouteUnused { service: name.to_owned() });
        }
    }
}

/// What the option sets, or the route that was given in its stead, and where to point at.
fn route_of(
    service: &ServiceDescriptor,
    extensions: &Extensions,
    routes: &Routes,
) -> Result<Option<(Settings, Place)>, Error> {
    let subject = format!("service {}", service.full_name());
    match (extensions.of_service(service)?, routes.of(service.full_name())) {
        (None, None) => Ok(None),
        (Some((settings, at)), None) => Ok(Some((settings, Place { at, subject }))),
        (None, Some(settings)) => {
            let at = element(&service.parent_file(), service.path());
            Ok(Some((settings.clone(), Place { at, subject: format!("route of {subject}") })))
        }
        (Some((_, at)), Some(_)) => {
            let problem = Problem::RouteTwice { service: service.full_name().to_owned() };
            Err(Fault::new(at, subject, problem).into())
        }
    }
}

fn check_service(
    pool: &DescriptorPool,
    service: &ServiceDescriptor,
    extensions: &Extensions,
    resolver: &Resolver,
    routes: &Routes,
) -> Result<Option<Service>, Error> {
    let mut faults = Faults::default();
    let Some((settings, place)) = route_of(service, extensions, routes)? else {
        for method in service.methods() {
            if let Some((_, at)) = faults.take(extensions.of_method(&method)).flatten() {
                let problem = Problem::MethodOptionAlone { service: service.full_name().to_owned() };
                faults.push(Fault::new(at, format!("method {}", method.full_name()), problem));
            }
        }
        return faults.or(None);
    };
    key::check(&settings, &place, &mut faults);
    let target = target::find(pool, service, settings.service.as_deref(), &place, &mut faults);
    clash::methods(service, &mut faults);

    let mut methods = Vec::new();
    for method in service.methods() {
        let own = faults.take(extensions.of_method(&method)).flatten();
        methods.push(check_method(
            pool,
            service,
            &method,
            own,
            &Base { settings: &settings, target: target.as_ref(), place: &place },
            resolver,
            &mut faults,
        ));
    }
    faults.or(Some(Service {
        rust_name: names::upper_camel(service.name()),
        full_name: service.full_name().to_owned(),
        target: target.map(|target| target.full_name().to_owned()).unwrap_or_default(),
        docs: docs(&service.parent_file(), service.path()),
        deprecated: service.service_descriptor_proto().options.as_ref().is_some_and(|options| options.deprecated()),
        settings,
        methods,
        descriptors: Vec::new(),
    }))
}

/// What a method inherits.
struct Base<'a> {
    settings: &'a Settings,
    target: Option<&'a ServiceDescriptor>,
    place: &'a Place,
}

fn check_method(
    pool: &DescriptorPool,
    service: &ServiceDescriptor,
    method: &MethodDescriptor,
    own: Option<(Settings, Position)>,
    base: &Base<'_>,
    resolver: &Resolver,
    faults: &mut Faults,
) -> Method {
    // Faults of what is inherited stand at the service's option, those of its own at the method's.
    let own_place =
        own.as_ref().map(|(_, at)| Place { at: at.clone(), subject: format!("method {}", method.full_name()) });
    let place = own_place.as_ref().unwrap_or(base.place);
    let mut own = own.map(|(settings, _)| settings);
    let effective = own.as_ref().map_or_else(|| base.settings.clone(), |own| own.over(base.settings));

    if own.is_some() {
        key::check(&effective, place, faults);
    }
    let field = key::find_field(&effective, method, place, faults);
    let mut answers = None;
    match own.as_mut().and_then(|own| own.service.as_mut()) {
        Some(name) => {
            if let Some(target) = target::find(pool, service, Some(name), place, faults) {
                target::check_method(&target, method, place, faults);
                *name = target.full_name().to_owned();
                answers = Some(target);
            }
        }
        None => {
            if let Some(target) = base.target {
                target::check_method(target, method, place, faults);
            }
        }
    }
    let answers = answers.as_ref().or(base.target);

    let package = service.package_name();
    Method {
        rust_name: names::snake(method.name()),
        proto_name: method.name().to_owned(),
        kind: match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => CallKind::Unary,
            (false, true) => CallKind::ServerStreaming,
            (true, false) => CallKind::ClientStreaming,
            (true, true) => CallKind::Bidi,
        },
        input: resolver.rust_type(package, method.input().full_name()),
        output: resolver.rust_type(package, method.output().full_name()),
        own,
        field,
        idempotency: target::idempotency(method, answers),
    }
}

/// Where a fault stands and whom it is about.
struct Place {
    at: Position,
    subject: String,
}

impl Place {
    fn fault(&self, problem: Problem) -> Fault {
        Fault::new(self.at.clone(), self.subject.clone(), problem)
    }
}

/// The comment above an element, line by line.
fn docs(file: &FileDescriptor, path: &[i32]) -> Vec<String> {
    let locations = file.file_descriptor_proto().source_code_info.iter().flat_map(|info| &info.location);
    let comment =
        locations.filter(|location| location.path == path).find_map(|location| location.leading_comments.as_deref());
    comment.map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
}

/// Where an element of a file stands.
fn element(file: &FileDescriptor, path: &[i32]) -> Position {
    pool::position(file, &[path])
}
