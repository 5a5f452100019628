//! Routes out of descriptors: what the option `(grpcrouter.routes_to)` says in an encoded `FileDescriptorSet`, for services
//! without generated code. Checked as the generator checks it; descriptors are read field by field, as they are.

mod options;
mod types;

use std::collections::{HashMap, HashSet};

use bytes::{BufMut as _, Bytes, BytesMut};

use self::{
    options::Settings,
    types::{Scope, Types},
};
use super::service_routes::ServiceRoutes;
use crate::{
    codegen::{FieldPath, IdempotencyLevel, Kind, MethodRoutes, Strategy},
    descriptors::{Broken, Fields, Value},
    error::ConfigError,
};

/// The routes of each service of `set` that has the option, in the order in which they stand there.
///
/// # Errors
/// It is no descriptor set; an option that this version does not know, or that cannot be meant.
pub(super) fn services(set: &Bytes) -> Result<Vec<ServiceRoutes>, ConfigError> {
    let described = Described::read(set).map_err(|broken| {
        let why = format!("{broken}; give it what `protoc --include_imports --descriptor_set_out=FILE` writes");
        ConfigError::setting("add_descriptors", format!("{} bytes", set.len()), why)
    })?;
    let mut found = Vec::new();
    for service in &described.services {
        found.extend(described.routes(service)?);
    }
    // Once, however many services there are: reflection reads all that it is given.
    let routed: HashSet<&str> = found.iter().map(ServiceRoutes::name).collect();
    let files = described.services.iter().filter(|service| routed.contains(&*service.name)).map(|service| service.file);
    let descriptors = described.with_imports(files);
    if let Some(first) = found.first_mut() {
        *first = first.clone().described(descriptors);
    }
    Ok(found)
}

/// What a set says, as far as routes need it.
struct Described<'a> {
    files: Vec<File<'a>>,
    services: Vec<Service<'a>>,
    types: Types<'a>,
}

struct File<'a> {
    name: &'a str,
    package: &'a str,
    imports: Vec<&'a str>,
    bytes: &'a [u8],
}

struct Service<'a> {
    name: String,
    /// Its place in [`Described::files`].
    file: usize,
    methods: Vec<Method<'a>>,
    settings: Option<Settings<'a>>,
}

struct Method<'a> {
    name: &'a str,
    input: &'a str,
    output: &'a str,
    kind: Kind,
    level: IdempotencyLevel,
    settings: Option<Settings<'a>>,
}

impl<'a> Described<'a> {
    fn read(set: &'a [u8]) -> Result<Self, Broken> {
        let mut this = Self { files: Vec::new(), services: Vec::new(), types: Types::default() };
        for file in all(set, FILES) {
            this.file(file?)?;
        }
        if this.files.is_empty() { Err(Broken("no file is in it")) } else { Ok(this) }
    }

    fn file(&mut self, bytes: &'a [u8]) -> Result<(), Broken> {
        let mut file = File { name: "", package: "", imports: Vec::new(), bytes };
        let mut services = Vec::new();
        let scope = Scope::of_file(bytes)?;
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => file.name = field.value.text()?,
                2 => file.package = field.value.text()?,
                3 => file.imports.push(field.value.text()?),
                6 => services.extend(field.value.bytes()),
                _ => {}
            }
        }
        for message in all(bytes, MESSAGES_OF_FILE) {
            self.types.message(message?, file.package, scope, 0)?;
        }
        for service in services {
            self.services.push(Service::read(service, file.package, self.files.len())?);
        }
        self.files.push(file);
        Ok(())
    }

    fn routes(&self, service: &Service<'a>) -> Result<Option<ServiceRoutes>, ConfigError> {
        let name = &service.name;
        let Some(settings) = &service.settings else {
            return match service.methods.iter().find(|method| method.settings.is_some()) {
                None => Ok(None),
                Some(method) => Err(invalid(
                    &format!("{name}/{}", method.name),
                    "method_routes_to",
                    "",
                    "its service has no option (grpcrouter.routes_to), so it has no effect: set that on the service",
                )),
            };
        };
        settings.check(name)?;
        let target = self.target(service, settings, name)?;
        let mut routes = ServiceRoutes::new(name.clone()).target(target.name.clone()).routes(settings.routes());
        for method in &service.methods {
            let of = format!("{name}/{}", method.name);
            routes = routes.method(method.name.to_owned(), method.kind);
            let own = method.settings.as_ref();
            if let Some(own) = own {
                own.check(&of)?;
            }
            let own_target = own.filter(|own| own.service.is_some());
            let target = own_target.map_or(Ok(target), |own| self.target(service, own, &of))?;
            check_target(service, method, target, &of)?;
            let level = method.level_at(target);
            if level.may_repeat() {
                routes = routes.idempotency_level(method.name.to_owned(), level);
            }
            let mut set = own.map(Settings::routes).unwrap_or_default();
            if own_target.is_some() {
                set = set.target(&target.name);
            }
            let strategy = own.and_then(|own| own.strategy).or(settings.strategy);
            let key = own.and_then(|own| own.routing_key).or(settings.routing_key);
            if let (Some(Strategy::FieldBased), Some(key)) = (strategy, key) {
                let found = self.types.find(key, method.input).map_err(|why| invalid(&of, "routing_key", key, &why))?;
                let rivals: Vec<&[u32]> = found.rivals.iter().map(Vec::as_slice).collect();
                let field = FieldPath::new(&found.numbers, found.kind).rivals(&rivals);
                let field = if found.presence { field.presence() } else { field };
                routes = routes.method_routes(method.name.to_owned(), set.field(field));
            } else if set != MethodRoutes::new() {
                routes = routes.method_routes(method.name.to_owned(), set);
            }
        }
        Ok(Some(routes))
    }

    /// The service that the option names, by protobuf's rules of scope; without a name the service itself.
    fn target<'b>(
        &'b self,
        service: &'b Service<'a>,
        settings: &Settings<'_>,
        of: &str,
    ) -> Result<&'b Service<'a>, ConfigError> {
        let Some(name) = settings.service else { return Ok(service) };
        let package = self.files.get(service.file).map_or("", |file| file.package);
        let candidates = match name.strip_prefix('.') {
            Some(full) => vec![full.to_owned()],
            None => scopes(package, name),
        };
        let find = |candidate: &String| self.services.iter().find(|service| service.name == *candidate);
        candidates.iter().find_map(find).ok_or_else(|| {
            let why = format!("there is no such service among the descriptors; looked for {}", candidates.join(", "));
            invalid(of, "service", name, &why)
        })
    }

    /// These files and all that they import, as far as it is there: a set of its own, without what only people read.
    fn with_imports(&self, files: impl Iterator<Item = usize>) -> Bytes {
        let by_name: HashMap<&str, usize> = self.files.iter().enumerate().map(|(at, file)| (file.name, at)).collect();
        let mut wanted: Vec<usize> = Vec::new();
        let mut seen = HashSet::new();
        wanted.extend(files.filter(|file| seen.insert(*file)));
        let mut next = 0;
        while let Some(file) = wanted.get(next).and_then(|at| self.files.get(*at)) {
            next += 1;
            let imports = file.imports.iter().filter_map(|import| by_name.get(import).copied());
            wanted.extend(imports.filter(|import| seen.insert(*import)));
        }
        let mut set = BytesMut::new();
        for file in wanted.iter().filter_map(|at| self.files.get(*at)) {
            let kept: Vec<&[u8]> = Fields::of(file.bytes)
                .filter_map(Result::ok)
                .filter(|field| field.number != SOURCE_CODE_INFO)
                .map(|field| field.raw)
                .collect();
            set.put_u8(FILES_TAG);
            put_varint(&mut set, kept.iter().map(|part| part.len()).sum());
            kept.iter().for_each(|part| set.extend_from_slice(part));
        }
        set.freeze()
    }
}

impl<'a> Service<'a> {
    fn read(bytes: &'a [u8], package: &str, file: usize) -> Result<Self, Broken> {
        let mut service = Self { name: String::new(), file, methods: Vec::new(), settings: None };
        for field in Fields::of(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, name) => service.name = full(package, name.text()?),
                (2, Value::Bytes(method)) => service.methods.push(Method::read(method)?),
                (3, Value::Bytes(options)) => service.settings = Settings::read(options, options::ROUTES_TO)?,
                _ => {}
            }
        }
        Ok(service)
    }
}

impl<'a> Method<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Broken> {
        let (kind, level) = (Kind::Unary, IdempotencyLevel::Unknown);
        let mut method = Self { name: "", input: "", output: "", kind, level, settings: None };
        let (mut client, mut server) = (false, false);
        for field in Fields::of(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, name) => method.name = name.text()?,
                (2, input) => method.input = input.text()?,
                (3, output) => method.output = output.text()?,
                (4, Value::Bytes(options)) => {
                    method.settings = Settings::read(options, options::METHOD_ROUTES_TO)?;
                    method.level = options::idempotency_level(options)?;
                }
                (5, Value::Varint(value)) => client = value != 0,
                (6, Value::Varint(value)) => server = value != 0,
                _ => {}
            }
        }
        method.kind = match (client, server) {
            (false, false) => Kind::Unary,
            (false, true) => Kind::ServerStreaming,
            (true, false) => Kind::ClientStreaming,
            (true, true) => Kind::Bidi,
        };
        Ok(method)
    }

    /// What it says of itself; else what the method says that backends of `target` have.
    fn level_at(&self, target: &Service<'_>) -> IdempotencyLevel {
        let others = || target.methods.iter().find(|other| other.name == self.name).map(|other| other.level);
        if self.level.may_repeat() { self.level } else { others().unwrap_or_default() }
    }
}

/// A backend of `target` must be able to answer `method`.
fn check_target(service: &Service<'_>, method: &Method<'_>, target: &Service<'_>, of: &str) -> Result<(), ConfigError> {
    if target.name == service.name {
        return Ok(());
    }
    let Some(other) = target.methods.iter().find(|other| other.name == method.name) else {
        return Err(invalid(of, "service", &target.name, &format!("it has no method {}", method.name)));
    };
    let same = (other.input, other.output, other.kind) == (method.input, method.output, method.kind);
    let why = || format!("its method {} has other messages, or streams another way", method.name);
    if same { Ok(()) } else { Err(invalid(of, "service", &target.name, &why())) }
}

/// The names to look for, from the innermost package out.
fn scopes(package: &str, name: &str) -> Vec<String> {
    let mut scopes = Vec::new();
    let mut package = package;
    while !package.is_empty() {
        scopes.push(full(package, name));
        package = package.rsplit_once('.').map_or("", |(outer, _)| outer);
    }
    scopes.push(name.to_owned());
    scopes
}

fn full(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

/// All messages in the field of this number.
fn all(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], Broken>> {
    Fields::of(message).filter_map(move |field| match field {
        Ok(field) if field.number == number => field.value.bytes().map(Ok),
        Ok(_) => None,
        Err(broken) => Some(Err(broken)),
    })
}

fn put_varint(bytes: &mut BytesMut, value: usize) {
    let mut left = value;
    while left > 0x7f {
        bytes.put_u8((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.put_u8(left as u8);
}

fn invalid(of: &str, option: &'static str, value: &str, why: &str) -> ConfigError {
    ConfigError::InvalidOption { service: of.to_owned(), option, value: value.to_owned(), why: why.to_owned() }
}

/// `FileDescriptorSet.file`, and its tag on the wire.
const FILES: u32 = 1;
const FILES_TAG: u8 = 0x0a;

/// `FileDescriptorProto.message_type` and `source_code_info`.
const MESSAGES_OF_FILE: u32 = 4;
const SOURCE_CODE_INFO: u32 = 9;

#[cfg(test)]
mod tests;
