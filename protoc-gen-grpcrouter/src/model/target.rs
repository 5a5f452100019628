//! The service that an option names: found by protobuf's scoping rules, and able to answer each method.
//! A backend that registers it is then never called by a method, or with a message, that it does not have.

use prost_reflect::{
    DescriptorPool, MethodDescriptor, ServiceDescriptor,
    prost_types::{MethodOptions, method_options::IdempotencyLevel},
};

use super::{Idempotency, Place};
use crate::{
    error::{Faults, Problem},
    names,
};

/// The service that `name` means at `service`; without a name the service itself.
pub(super) fn find(
    pool: &DescriptorPool,
    service: &ServiceDescriptor,
    name: Option<&str>,
    place: &Place,
    faults: &mut Faults,
) -> Option<ServiceDescriptor> {
    let Some(name) = name else { return Some(service.clone()) };
    let (absolute, bare) = match name.strip_prefix('.') {
        Some(bare) => (true, bare),
        None => (false, name),
    };
    if !names::is_full_ident(bare) {
        faults.push(place.fault(Problem::ServiceName { found: name.to_owned() }));
        return None;
    }
    let candidates = if absolute { vec![bare.to_owned()] } else { scopes(service.package_name(), bare) };
    let found = candidates.iter().find_map(|candidate| pool.get_service_by_name(candidate));
    if found.is_none() {
        let problem = Problem::ServiceNotFound { name: name.to_owned(), tried: candidates.join(", ") };
        faults.push(place.fault(problem));
    }
    found
}

/// The names to look for, from the innermost package out.
fn scopes(package: &str, name: &str) -> Vec<String> {
    let mut scopes = Vec::new();
    let mut package = package;
    while !package.is_empty() {
        scopes.push(format!("{package}.{name}"));
        package = package.rsplit_once('.').map_or("", |(outer, _)| outer);
    }
    scopes.push(name.to_owned());
    scopes
}

/// `method` must be in `target`, with the same messages and the same side streaming.
pub(super) fn check_method(target: &ServiceDescriptor, method: &MethodDescriptor, place: &Place, faults: &mut Faults) {
    let service = method.parent_service();
    if target == service {
        return;
    }
    let (target_name, name) = (target.full_name().to_owned(), method.name().to_owned());
    let Some(other) = target.methods().find(|other| other.name() == method.name()) else {
        faults.push(place.fault(Problem::TargetLacksMethod { target: target_name, method: name }));
        return;
    };
    let streams = |method: &MethodDescriptor| match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => "no stream".to_owned(),
        (false, true) => "a stream of answers".to_owned(),
        (true, false) => "a stream of requests".to_owned(),
        (true, true) => "streams both ways".to_owned(),
    };
    let differences = [
        ("takes", method.input().full_name().to_owned(), other.input().full_name().to_owned()),
        ("returns", method.output().full_name().to_owned(), other.output().full_name().to_owned()),
        ("has", streams(method), streams(&other)),
    ];
    for (what, expected, found) in differences.into_iter().filter(|(_, expected, found)| expected != found) {
        let (target, method) = (target_name.clone(), name.clone());
        faults.push(place.fault(Problem::TargetMethodDiffers { target, method, what, expected, found }));
    }
}

/// What `method` says of itself; else what the method says that backends of `target` have.
pub(super) fn idempotency(method: &MethodDescriptor, target: Option<&ServiceDescriptor>) -> Idempotency {
    match level(method) {
        Idempotency::Unknown => {
            let other = target.and_then(|target| target.methods().find(|other| other.name() == method.name()));
            other.as_ref().map_or(Idempotency::Unknown, level)
        }
        said => said,
    }
}

fn level(method: &MethodDescriptor) -> Idempotency {
    match method.method_descriptor_proto().options.as_ref().map(MethodOptions::idempotency_level) {
        Some(IdempotencyLevel::NoSideEffects) => Idempotency::NoSideEffects,
        Some(IdempotencyLevel::Idempotent) => Idempotency::Idempotent,
        Some(IdempotencyLevel::IdempotencyUnknown) | None => Idempotency::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_from_the_innermost_package_out() {
        assert_eq!(scopes("a.b", "X"), ["a.b.X", "a.X", "X"]);
        assert_eq!(scopes("", "p.X"), ["p.X"]);
    }
}
