//! Puts the routers behind tonic's code: one generator that asks tonic's own first.
//! Everything that tonic's builder can do works as it does there, because it does it.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use prost::Message;
use prost_build::ServiceGenerator;
use prost_types::FileDescriptorSet;

use crate::{
    emit::{self, ServerTrait, Style},
    error::{Error, Faults, Problem},
    model::{Model, Service},
    names,
};

/// Writes the files of all packages.
pub(super) fn compile(
    tonic: tonic_prost_build::Builder,
    descriptors: &[u8],
    model: Model,
    style: Style,
) -> Result<(), Error> {
    let mut set = FileDescriptorSet::decode(descriptors).map_err(Problem::FileDescriptor)?;
    // The options are for this generator; as Rust they would be one more module that nobody asked for.
    set.file.retain(|file| file.package() != OPTIONS_PACKAGE);

    let faults = Rc::new(RefCell::new(Faults::default()));
    let chain = Chain::new(tonic.clone().service_generator(), model, style, Rc::clone(&faults));
    let mut config = prost_build::Config::new();
    config.service_generator(Box::new(chain));
    // With neither client nor server, tonic's builder leaves this generator in place and sets all the rest.
    let tonic = tonic.build_client(false).build_server(false);
    let result = WrapperTypes::known(|| tonic.compile_fds_with_config(set, config));
    faults.take().or(())?;
    result.map_err(|error| Problem::Prost(error).into())
}

struct Chain {
    inner: Box<dyn ServiceGenerator>,
    /// By full name.
    services: HashMap<String, Service>,
    /// The full names of each package's services, in the order in which the gateway holds them.
    packages: HashMap<String, Vec<String>>,
    style: Style,
    /// prost's trait has no way to fail.
    faults: Rc<RefCell<Faults>>,
}

impl Chain {
    fn new(inner: Box<dyn ServiceGenerator>, model: Model, style: Style, faults: Rc<RefCell<Faults>>) -> Self {
        let mut services = HashMap::new();
        let mut packages: HashMap<String, Vec<String>> = HashMap::new();
        for file in model.files {
            let package = packages.entry(file.package).or_default();
            for service in file.services {
                package.push(service.full_name.clone());
                services.insert(service.full_name.clone(), service);
            }
        }
        Self { inner, services, packages, style, faults }
    }

    fn push(&self, text: Result<String, Error>, buf: &mut String) {
        if let Some(text) = self.faults.borrow_mut().take(text) {
            buf.push_str(&text);
        }
    }
}

impl ServiceGenerator for Chain {
    fn generate(&mut self, service: prost_build::Service, buf: &mut String) {
        let full_name = match service.package.as_str() {
            "" => service.proto_name.clone(),
            package => format!("{package}.{}", service.proto_name),
        };
        let routed = self.services.get(&full_name).cloned().map(|routed| with_prosts_types(routed, &service));
        let before = buf.len();
        self.inner.generate(service, buf);
        if let Some(routed) = routed {
            // What tonic(…) was told cannot be asked for, so what counts is what was written.
            let stem = names::module_stem(&routed.rust_name);
            let written = buf.get(before..).unwrap_or_default();
            let has = |module: String| written.contains(&format!("pub mod {module} {{"));
            let style = Style {
                client: has(format!("{stem}_client")),
                server: has(format!("{stem}_server")),
                server_trait: ServerTrait {
                    arc_self: written.contains("self: std::sync::Arc<Self>"),
                    boxed_streams: written.contains("tonic::Response<BoxStream<"),
                },
                ..self.style.clone()
            };
            self.push(emit::router(&routed, &style), buf);
        }
        if buf.is_empty() {
            // prost-build 0.14.4 panics on a package of which nothing is written.
            buf.push('\n');
        }
    }

    fn finalize(&mut self, buf: &mut String) {
        self.inner.finalize(buf);
    }

    fn finalize_package(&mut self, package: &str, buf: &mut String) {
        self.inner.finalize_package(package, buf);
        let Some(names) = self.packages.get(package).filter(|_| self.style.gateway) else { return };
        let services = names.iter().filter_map(|name| self.services.get(name));
        self.push(emit::gateway(services, &self.style), buf);
    }
}

/// prost knows of extern paths and of all else that was set with `tonic(…)`.
fn with_prosts_types(mut routed: Service, service: &prost_build::Service) -> Service {
    for method in &mut routed.methods {
        if let Some(prosts) = service.methods.iter().find(|prosts| prosts.proto_name == method.proto_name) {
            method.input.clone_from(&prosts.input_type);
            method.output.clone_from(&prosts.output_type);
        }
    }
    routed
}

/// Has tonic take `bool` and its like, which stand for well-known wrappers, for what they are. Its own switch,
/// `with_extended_rust_types`, is not looked at by `compile_fds` in 0.14.9.
struct WrapperTypes {
    before: &'static [&'static str],
}

impl WrapperTypes {
    fn known<T>(work: impl FnOnce() -> T) -> T {
        let before = tonic_prost_build::NON_PATH_TYPE_ALLOWLIST
            .replace(&["()", "bool", "i32", "i64", "u32", "u64", "f32", "f64"]);
        let _restore = Self { before };
        work()
    }
}

impl Drop for WrapperTypes {
    fn drop(&mut self) {
        tonic_prost_build::NON_PATH_TYPE_ALLOWLIST.set(self.before);
    }
}

const OPTIONS_PACKAGE: &str = "grpcrouter";
