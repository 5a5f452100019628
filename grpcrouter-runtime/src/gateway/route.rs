//! From a path to the method that it calls and how that is routed. Made once, at `build()`.

use std::collections::HashMap;

use grpcrouter_protocol::Text;

use super::strategy::KeyReader;
use crate::{
    codegen::{Kind, LoadBalancing, ServiceSpec},
    error::ConfigError,
    status::{Answer, nearest},
};

/// All methods that are served here.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    by_path: HashMap<String, RouteId>,
    methods: Vec<MethodRoute>,
    services: Vec<&'static ServiceSpec>,
    targets: Vec<&'static str>,
}

/// One method in [`Routes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteId(usize);

/// One target in [`Routes::targets`]: what instances register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TargetId(pub(super) usize);

/// How the calls of one method are routed.
#[derive(Debug)]
pub(crate) struct MethodRoute {
    /// The service whose router it came with, as clients call it.
    owner: &'static str,
    /// The bare path, as instances know it.
    pub(super) path: Text,
    kind: Kind,
    pub(super) target: TargetId,
    pub(super) key: KeyReader,
}

impl Routes {
    /// # Errors
    /// An option that is not served or cannot be meant, or two routes of the same path.
    pub(super) fn new(specs: &[&'static ServiceSpec]) -> Result<Self, ConfigError> {
        let mut routes = Self::default();
        for spec in specs {
            routes.add(spec)?;
        }
        Ok(routes)
    }

    fn add(&mut self, spec: &'static ServiceSpec) -> Result<(), ConfigError> {
        self.services.push(spec);
        // The target is known even if the service has no method.
        self.target(spec.target);
        for method in spec.methods {
            let resolved = spec.routes(method);
            let own = method.routes != Default::default();
            let of = if own { format!("{}/{}", spec.name, method.name) } else { spec.name.to_owned() };
            let unsupported = |option, value: &str, served| ConfigError::UnsupportedOption {
                service: of.clone(),
                option,
                value: value.to_owned(),
                served,
            };
            if resolved.load_balancing != LoadBalancing::RoundRobin {
                return Err(unsupported("load_balancing", resolved.load_balancing.name(), "ROUND_ROBIN"));
            }
            if resolved.wait_for_instance {
                return Err(unsupported("wait_for_instance", "true", "false"));
            }
            let id = RouteId(self.methods.len());
            let target = self.target(resolved.target);
            self.methods.push(MethodRoute {
                owner: spec.name,
                path: Text::from(format!("/{}/{}", resolved.target, method.name)),
                kind: method.kind,
                target,
                key: KeyReader::new(&of, &resolved)?,
            });
            self.claim(method.path.to_owned(), id, spec)?;
            if let Some(prefix) = resolved.path_prefix {
                self.claim(format!("{}{}", prefix_of(&of, prefix)?, method.path), id, spec)?;
            }
        }
        Ok(())
    }

    fn target(&mut self, name: &'static str) -> TargetId {
        let known = self.targets.iter().position(|target| *target == name);
        TargetId(known.unwrap_or_else(|| {
            self.targets.push(name);
            self.targets.len() - 1
        }))
    }

    fn claim(&mut self, path: String, id: RouteId, spec: &ServiceSpec) -> Result<(), ConfigError> {
        let Some(first) = self.by_path.insert(path.clone(), id) else { return Ok(()) };
        let first = self.method(first).map_or(spec.name, |method| method.owner);
        Err(ConfigError::DuplicateRoute { path, first: first.to_owned(), second: spec.name.to_owned() })
    }

    /// The services with a router, by the names that clients call.
    pub(super) fn services(&self) -> Vec<&'static str> {
        self.services.iter().map(|spec| spec.name).collect()
    }

    /// The services that instances register for these routes.
    pub(super) fn targets(&self) -> &[&'static str] {
        &self.targets
    }

    pub(super) fn find(&self, path: &str) -> Option<RouteId> {
        self.by_path.get(path).copied()
    }

    pub(super) fn method(&self, id: RouteId) -> Option<&MethodRoute> {
        self.methods.get(id.0)
    }

    /// What to answer for a path that is not served.
    pub(super) fn unknown(&self, path: &str) -> Answer {
        let mut segments = path.rsplit('/');
        let method = segments.next().unwrap_or_default();
        let service = segments.next().unwrap_or_default();
        let Some(spec) = self.services.iter().find(|spec| spec.name == service) else {
            let names = self.services.iter().map(|spec| spec.name);
            let asked = if service.is_empty() { path } else { service };
            return Answer::unknown_service(asked, nearest(service, names));
        };
        if spec.methods.iter().any(|known| known.name == method) {
            // The method is right, so what stands before it is not.
            let at = spec.path_prefix.map(|prefix| format!("{prefix}/{service}/{method}"));
            return Answer::unknown_service(path, Some(&at.unwrap_or_else(|| format!("/{service}/{method}"))));
        }
        Answer::unknown_method(service, method, nearest(method, spec.methods.iter().map(|known| known.name)))
    }
}

impl MethodRoute {
    /// Whether the client of a call sends exactly one message.
    pub(super) fn takes_one_message(&self) -> bool {
        matches!(self.kind, Kind::Unary | Kind::ServerStreaming)
    }

    /// The service that instances register.
    pub(super) fn service(&self) -> &str {
        self.path.as_str().trim_start_matches('/').split('/').next().unwrap_or_default()
    }
}

fn prefix_of<'a>(of: &str, prefix: &'a str) -> Result<&'a str, ConfigError> {
    let why = if !prefix.starts_with('/') {
        "it must begin with /"
    } else if prefix.ends_with('/') {
        "it must not end with /"
    } else if prefix.bytes().any(|byte| !byte.is_ascii_graphic() || b"?#%".contains(&byte)) {
        "it must be a plain path: letters, digits, and no ?, # or %"
    } else {
        return Ok(prefix);
    };
    Err(ConfigError::InvalidOption {
        service: of.to_owned(),
        option: "path_prefix",
        value: prefix.to_owned(),
        why: why.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::codegen::{MethodRoutes, MethodSpec};

    static METHODS: &[MethodSpec] = &[
        MethodSpec::new("shop.Orders", "Buy", "/shop.Orders/Buy", Kind::Unary),
        MethodSpec::new("shop.Orders", "Watch", "/shop.Orders/Watch", Kind::ServerStreaming),
    ];
    static ORDERS: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.Orders").path_prefix("/api/v1").methods(METHODS);

    #[test]
    fn a_method_is_served_under_its_bare_path_and_under_the_prefix() {
        let routes = Routes::new(&[&ORDERS]).unwrap();

        let bare = routes.find("/shop.Orders/Buy").unwrap();
        let prefixed = routes.find("/api/v1/shop.Orders/Buy").unwrap();

        assert_eq!(bare, prefixed);
        assert_eq!(routes.method(bare).unwrap().path.as_str(), "/shop.Orders/Buy");
        assert_eq!(routes.find("/api/v2/shop.Orders/Buy"), None);
    }

    #[test]
    fn instances_see_the_path_of_the_service_that_they_register() {
        static OLD: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.v2.Orders").methods(METHODS);
        let routes = Routes::new(&[&OLD]).unwrap();

        let method = routes.method(routes.find("/shop.Orders/Buy").unwrap()).unwrap();

        assert_eq!(method.path.as_str(), "/shop.v2.Orders/Buy");
        assert_eq!(method.service(), "shop.v2.Orders");
        assert_eq!(routes.targets(), ["shop.v2.Orders"]);
    }

    #[test]
    fn unknown_names_are_answered_with_the_nearest_known_one() {
        let routes = Routes::new(&[&ORDERS]).unwrap();

        let message = |path| routes.unknown(path).message;

        assert_eq!(message("/shop.Order/Buy"), "unknown service shop.Order; did you mean shop.Orders?");
        assert_eq!(message("/shop.Orders/Wach"), "service shop.Orders has no method Wach; did you mean Watch?");
        assert_eq!(
            message("/api/shop.Orders/Buy"),
            "unknown service /api/shop.Orders/Buy; did you mean /api/v1/shop.Orders/Buy?"
        );
    }

    #[test]
    fn the_same_router_twice_is_a_duplicate_route() {
        let error = Routes::new(&[&ORDERS, &ORDERS]).unwrap_err().to_string();

        assert!(error.starts_with("the path /shop.Orders/Buy is claimed by shop.Orders and by shop.Orders"), "{error}");
    }

    #[test]
    fn an_option_of_a_method_that_is_not_served_is_refused_with_the_methods_name() {
        static WAITS: &[MethodSpec] = &[MethodSpec::new("shop.Orders", "Buy", "/shop.Orders/Buy", Kind::Unary)
            .routes(MethodRoutes::new().wait_for_instance(true))];
        static SPEC: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.Orders").methods(WAITS);

        let error = Routes::new(&[&SPEC]).unwrap_err().to_string();

        assert!(error.starts_with("service shop.Orders/Buy: the option wait_for_instance = true"), "{error}");
    }

    #[test]
    fn a_prefix_that_is_no_path_is_refused() {
        for prefix in ["api", "/api/", "/a b", "/a?"] {
            assert!(prefix_of("s", prefix).is_err(), "{prefix}");
        }
        assert_eq!(prefix_of("s", "/api/v1").unwrap(), "/api/v1");
    }
}
