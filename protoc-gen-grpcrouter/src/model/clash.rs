//! Protobuf names that become the same Rust name: told here with both producers, before rustc sees them.
//! Also the names that tonic's own client cannot bear, as warnings.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, MessageDescriptor, ServiceDescriptor};

use super::{ProtoFile, element};
use crate::{
    error::{Fault, Faults, Position, Problem},
    names,
};

/// Two methods of one service with one Rust name.
pub(super) fn methods(service: &ServiceDescriptor, faults: &mut Faults) {
    let mut seen = BTreeMap::new();
    for method in service.methods() {
        let rust = names::snake(method.name());
        if let Some(first) = seen.insert(rust.clone(), method.name().to_owned()) {
            let at = element(&method.parent_file(), method.path());
            let subject = format!("service {}", service.full_name());
            let problem = Problem::SameRustMethod { first, second: method.name().to_owned(), rust };
            faults.push(Fault::new(at, subject, problem));
        }
    }
}

/// Router modules against each other, against the modules of messages and against packages.
pub(super) fn check(pool: &DescriptorPool, files: &[ProtoFile], faults: &mut Faults) {
    let mut modules: BTreeMap<(&str, String), (&str, bool)> = BTreeMap::new();
    for file in files {
        for service in &file.services {
            let module = router_module(&service.rust_name);
            let first = modules.insert((&file.package, module.clone()), (&service.full_name, file.wanted));
            let Some(descriptor) = pool.get_service_by_name(&service.full_name) else { continue };
            // Both stand in the file of the package, whichever this run is for.
            let first = first.filter(|(_, wanted)| *wanted || file.wanted).map(|(first, _)| {
                let at = pool.get_service_by_name(first).map(|first| element(&first.parent_file(), first.path()));
                format!("the router of service {first}{}", in_parentheses(at))
            });
            let others = file.wanted.then(|| {
                message_with_module(pool, &file.package, &module).into_iter().chain(package_with_module(
                    pool,
                    &file.package,
                    &module,
                ))
            });
            for rival in first.into_iter().chain(others.into_iter().flatten()) {
                let at = element(&descriptor.parent_file(), descriptor.path());
                let second = format!("the router of service {}", service.full_name);
                faults.push(Fault::at(at, Problem::SameModule { first: rival, second, module: module.clone() }));
            }
        }
    }
}

fn in_parentheses(at: Option<Position>) -> String {
    at.map(|at| format!(" ({at})")).unwrap_or_default()
}

/// What compiles here but most likely not in the code beside it.
pub(super) fn warnings(files: &[ProtoFile]) -> Vec<String> {
    let mut warnings = Vec::new();
    for file in files.iter().filter(|file| file.wanted) {
        for service in &file.services {
            if service.methods.is_empty() {
                warnings.push(format!(
                    "{}: service {} has no methods; its router answers nothing",
                    file.name, service.full_name
                ));
            }
            for method in &service.methods {
                if TONIC_CLIENT.contains(&method.rust_name.as_str()) {
                    warnings.push(format!(
                        "{}: method {}.{}: tonic's generated client has a function `{}` of its own and will not compile; rename the \
                         method, or generate no client (no_client)",
                        file.name, service.full_name, method.proto_name, method.rust_name
                    ));
                }
            }
        }
    }
    warnings
}

/// The module of a service's router.
pub(crate) fn router_module(rust_name: &str) -> String {
    format!("{}_router", names::module_stem(rust_name))
}

/// A message of the package for which prost makes a module of this name: one with something nested.
fn message_with_module(pool: &DescriptorPool, package: &str, module: &str) -> Option<String> {
    let nests = |message: &MessageDescriptor| {
        message.child_messages().any(|child| !child.is_map_entry())
            || message.child_enums().len() > 0
            || message.oneofs().any(|oneof| !oneof.is_synthetic())
    };
    pool.files()
        .filter(|file| file.package_name() == package)
        .flat_map(|file| file.messages().collect::<Vec<_>>())
        .find(|message| nests(message) && names::snake(message.name()) == module)
        .map(|message| {
            let at = element(&message.parent_file(), message.path());
            format!("the message {}{}", message.full_name(), in_parentheses(Some(at)))
        })
}

/// A package below this one whose module has this name.
fn package_with_module(pool: &DescriptorPool, package: &str, module: &str) -> Option<String> {
    pool.files().find_map(|file| {
        let below = if package.is_empty() {
            file.package_name()
        } else {
            file.package_name().strip_prefix(package)?.strip_prefix('.')?
        };
        let segment = below.split('.').next().filter(|segment| !segment.is_empty())?;
        (names::snake(segment) == module).then(|| format!("the package {} ({})", file.package_name(), file.name()))
    })
}

/// Functions that tonic-build writes into every client.
const TONIC_CLIENT: &[&str] = &[
    "new",
    "connect",
    "with_origin",
    "with_interceptor",
    "send_compressed",
    "accept_compressed",
    "max_decoding_message_size",
    "max_encoding_message_size",
];
