//! From a path to the method that it calls and how that is routed. Made once, at `build()`, but for the services that
//! nobody declared, which come as instances register them.

mod learnt;

use std::{collections::HashMap, sync::Arc};

use grpcrouter_protocol::Text;

use self::learnt::Learnt;
pub(super) use self::learnt::{NotLearnt, Turn};
use super::{
    grown::Grown,
    service_routes::{Options, ServiceRoutes},
    strategy::KeyReader,
};
use crate::{
    codegen::{Kind, LoadBalancing, Strategy},
    error::ConfigError,
    status::{Answer, nearest},
};

/// All methods that are served here.
#[derive(Debug)]
pub(crate) struct Routes {
    by_path: HashMap<String, RouteId>,
    /// Services with methods that are not named.
    any_method: HashMap<String, RouteId>,
    methods: Grown<MethodRoute>,
    services: Vec<ServiceRoutes>,
    targets: Vec<Arc<str>>,
    /// If services that nobody declared are served.
    learnt: Option<Learnt>,
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
    owner: Arc<str>,
    /// The bare path, as instances know it; ends in `/*` where it stands for methods that are not named.
    pub(super) path: Text,
    kind: Kind,
    pub(super) target: TargetId,
    pub(super) key: KeyReader,
    prefix: Option<String>,
    /// What stands before the key in a path that has one.
    before_key: Option<String>,
    pub(super) waits: bool,
    /// Whether a call may be executed twice.
    pub(super) may_repeat: bool,
    /// What the options ask for.
    pub(super) balancing: LoadBalancing,
}

/// Routes while they are put together.
#[derive(Default)]
struct Draft {
    by_path: HashMap<String, RouteId>,
    any_method: HashMap<String, RouteId>,
    methods: Vec<MethodRoute>,
    targets: Vec<Arc<str>>,
}

impl Routes {
    /// Of `services`, and if `any` says how, of those that nobody declares.
    ///
    /// # Errors
    /// An option that is not served or cannot be meant, or two routes of the same path.
    pub(super) fn new(services: &[ServiceRoutes], any: Option<&ServiceRoutes>) -> Result<Self, ConfigError> {
        let mut draft = Draft::default();
        for service in services {
            service.check()?;
            draft.add(service)?;
        }
        let learnt = any.map(Learnt::new).transpose()?;
        let room = if learnt.is_some() { MAX_LEARNT } else { 0 };
        let Draft { by_path, any_method, methods, targets } = draft;
        let methods = Grown::new(methods, room);
        Ok(Self { by_path, any_method, methods, services: services.to_vec(), targets, learnt })
    }

    /// How many services may come that nobody declared.
    pub(super) fn room(&self) -> usize {
        if self.learnt.is_some() { MAX_LEARNT } else { 0 }
    }

    /// The services with a router, by the names that clients call, in the order in which they came.
    pub(super) fn services(&self) -> Vec<Arc<str>> {
        let declared = self.services.iter().map(|service| Arc::from(service.name()));
        declared.chain(self.learnt.iter().flat_map(Learnt::services)).collect()
    }

    /// Whether clients may call a service of this name.
    pub(super) fn knows(&self, service: &str) -> bool {
        self.services.iter().any(|routes| routes.name() == service)
            || self.learnt.as_ref().is_some_and(|learnt| learnt.find(service).is_some())
    }

    /// Those that were declared, each with the service that instances register for it.
    pub(super) fn services_and_targets(&self) -> impl Iterator<Item = (&str, &str)> {
        self.services.iter().map(|service| (service.name(), service.target_name()))
    }

    /// The services that instances register for what was declared, with the balancings that their methods ask for.
    pub(super) fn balancings(&self) -> impl Iterator<Item = (Arc<str>, Vec<LoadBalancing>)> {
        self.targets.iter().enumerate().map(|(id, name)| {
            let mut asked = Vec::new();
            for method in self.methods.iter().filter(|method| method.target == TargetId(id)) {
                if !asked.contains(&method.balancing) {
                    asked.push(method.balancing);
                }
            }
            (name.clone(), asked)
        })
    }

    /// The method that `path` calls, and the segment before its service where the path may have a key.
    pub(super) fn find<'a>(&self, path: &'a str) -> Option<(RouteId, Option<&'a str>)> {
        if let Some(id) = self.by_path.get(path) {
            return Some((*id, None));
        }
        let (before, method) = path.rsplit_once('/')?;
        let (before, service) = before.rsplit_once('/')?;
        let bare = path.get(before.len()..)?;
        let id = match self.by_path.get(bare) {
            Some(id) => *id,
            None => return self.find_any(before, service, method),
        };
        let (prefix, segment) = before.rsplit_once('/')?;
        (self.method(id)?.before_key.as_deref() == Some(prefix)).then_some((id, Some(segment)))
    }

    /// The same for a method that is not named anywhere.
    fn find_any<'a>(&self, before: &'a str, service: &str, method: &str) -> Option<(RouteId, Option<&'a str>)> {
        let learnt = || self.learnt.as_ref()?.find(service);
        let id = self.any_method.get(service).copied().or_else(learnt).filter(|_| !method.is_empty())?;
        let route = self.method(id)?;
        if before.is_empty() || route.prefix.as_deref() == Some(before) {
            return Some((id, None));
        }
        let (prefix, segment) = before.rsplit_once('/')?;
        (route.before_key.as_deref() == Some(prefix)).then_some((id, Some(segment)))
    }

    pub(super) fn method(&self, id: RouteId) -> Option<&MethodRoute> {
        self.methods.get(id.0)
    }

    /// All methods, in the order of their ids.
    pub(super) fn methods(&self) -> impl Iterator<Item = &MethodRoute> {
        self.methods.iter()
    }

    /// What to answer for a path that is not served.
    pub(super) fn unknown(&self, path: &str) -> Answer {
        let mut segments = path.rsplit('/');
        let method = segments.next().unwrap_or_default();
        let service = segments.next().unwrap_or_default();
        let Some(routes) = self.services.iter().find(|routes| routes.name() == service) else {
            let names = self.services();
            let asked = if service.is_empty() { path } else { service };
            return Answer::unknown_service(asked, nearest(service, names.iter().map(|name| &**name)));
        };
        if routes.has_any_method() || routes.methods().any(|(known, ..)| known == method) {
            // The method is right, so what stands before it is not.
            let prefix = routes.options().path_prefix().unwrap_or_default();
            let key = if routes.options().strategy() == Strategy::PathBased { "/{key}" } else { "" };
            return Answer::unknown_service(path, Some(&format!("{prefix}{key}/{service}/{method}")));
        }
        Answer::unknown_method(service, method, nearest(method, routes.methods().map(|(known, ..)| known)))
    }
}

impl Draft {
    fn add(&mut self, service: &ServiceRoutes) -> Result<(), ConfigError> {
        let owner: Arc<str> = Arc::from(service.name());
        // The target is known even if the service has no method.
        self.target(service.target_name());
        for (name, kind, own) in service.methods() {
            let of = if own.is_some() { format!("{owner}/{name}") } else { owner.to_string() };
            let options = own.cloned().unwrap_or_default().over(service.options());
            let target = self.target(options.target().unwrap_or(&owner));
            let route = MethodRoute::new(&of, &owner, name, kind, target, &options)?;
            let route = MethodRoute { may_repeat: service.may_repeat(name), ..route };
            let id = RouteId(self.methods.len());
            let bare = format!("/{owner}/{name}");
            self.claim(bare.clone(), id, &owner)?;
            if let Some(prefix) = &route.prefix {
                self.claim(format!("{prefix}{bare}"), id, &owner)?;
            }
            self.methods.push(route);
        }
        if service.has_any_method() {
            let target = self.target(service.target_name());
            let route = MethodRoute::new(&owner, &owner, ANY, Kind::Bidi, target, service.options())?;
            let id = RouteId(self.methods.len());
            let claimed = self.any_method.insert(owner.to_string(), id);
            self.methods.push(route);
            if claimed.is_some() {
                return Err(duplicate(format!("/{owner}/{ANY}"), &owner, &owner));
            }
        }
        Ok(())
    }

    fn target(&mut self, name: &str) -> TargetId {
        let known = self.targets.iter().position(|target| **target == *name);
        TargetId(known.unwrap_or_else(|| {
            self.targets.push(Arc::from(name));
            self.targets.len() - 1
        }))
    }

    fn claim(&mut self, path: String, id: RouteId, owner: &str) -> Result<(), ConfigError> {
        let Some(first) = self.by_path.insert(path.clone(), id) else { return Ok(()) };
        let first = self.methods.get(first.0).map_or(owner, |method| &*method.owner);
        Err(duplicate(path, first, owner))
    }
}

fn duplicate(path: String, first: &str, second: &str) -> ConfigError {
    ConfigError::DuplicateRoute { path, first: first.to_owned(), second: second.to_owned() }
}

impl RouteId {
    /// Its place among [`Routes::methods`].
    pub(super) fn index(self) -> usize {
        self.0
    }
}

impl MethodRoute {
    /// `of` is who carries the options.
    fn new(
        of: &str,
        owner: &Arc<str>,
        name: &str,
        kind: Kind,
        target: TargetId,
        options: &Options,
    ) -> Result<Self, ConfigError> {
        let key = KeyReader::new(of, &options.key())?;
        let prefix = options.path_prefix().map(|prefix| prefix_of(of, prefix)).transpose()?;
        Ok(Self {
            owner: owner.clone(),
            path: Text::from(format!("/{}/{name}", options.target().unwrap_or(owner))),
            kind,
            target,
            before_key: key.is_in_path().then(|| prefix.unwrap_or_default().to_owned()),
            prefix: prefix.map(str::to_owned),
            key,
            waits: options.waits(),
            may_repeat: false,
            balancing: options.load_balancing(),
        })
    }

    /// The service and the method, as clients call them.
    pub(super) fn names(&self) -> (&str, &str) {
        (&self.owner, self.path.as_str().rsplit('/').next().unwrap_or_default())
    }

    /// What an instance is told that a call of `path` calls.
    pub(super) fn path_for(&self, path: &str) -> Text {
        match self.path.as_str().strip_suffix(ANY) {
            None => self.path.clone(),
            Some(service) => {
                let method = path.rsplit('/').next().unwrap_or_default();
                Text::from([service, method].concat())
            }
        }
    }

    /// Whether it stands for methods that are not named.
    pub(super) fn is_any(&self) -> bool {
        self.path.as_str().ends_with(ANY)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the end of a call is its answer.
    pub(super) fn answers_once(&self) -> bool {
        matches!(self.kind, Kind::Unary | Kind::ClientStreaming)
    }

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

/// The name that stands for methods which are not named: no method can have it.
const ANY: &str = "*";

/// Services that may be learnt: more than any fleet has names for, and few enough that an instance which makes names up
/// costs some MiB and some ten thousand series of metrics, not all that there is.
const MAX_LEARNT: usize = 1_024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::codegen::{MethodRoutes, MethodSpec, OnMissingKey, ServiceSpec};

    static METHODS: &[MethodSpec] = &[
        MethodSpec::new("shop.Orders", "Buy", "/shop.Orders/Buy", Kind::Unary),
        MethodSpec::new("shop.Orders", "Watch", "/shop.Orders/Watch", Kind::ServerStreaming),
    ];
    static ORDERS: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.Orders").path_prefix("/api/v1").methods(METHODS);

    fn routes(specs: &[&ServiceSpec]) -> Result<Routes, ConfigError> {
        Routes::new(&specs.iter().map(|spec| ServiceRoutes::generated(spec)).collect::<Vec<_>>(), None)
    }

    #[test]
    fn a_method_is_served_under_its_bare_path_and_under_the_prefix() {
        let routes = routes(&[&ORDERS]).unwrap();

        let bare = routes.find("/shop.Orders/Buy").unwrap();
        let prefixed = routes.find("/api/v1/shop.Orders/Buy").unwrap();

        assert_eq!(bare, prefixed);
        assert_eq!(routes.method(bare.0).unwrap().path.as_str(), "/shop.Orders/Buy");
        assert_eq!(routes.find("/api/v2/shop.Orders/Buy"), None);
    }

    #[test]
    fn instances_see_the_path_of_the_service_that_they_register() {
        static OLD: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.v2.Orders").methods(METHODS);
        let routes = routes(&[&OLD]).unwrap();

        let method = routes.method(routes.find("/shop.Orders/Buy").unwrap().0).unwrap();

        assert_eq!(method.path.as_str(), "/shop.v2.Orders/Buy");
        assert_eq!(method.service(), "shop.v2.Orders");
        assert_eq!(routes.balancings().map(|(target, _)| target).collect::<Vec<_>>(), ["shop.v2.Orders".into()]);
    }

    #[test]
    fn unknown_names_are_answered_with_the_nearest_known_one() {
        let routes = routes(&[&ORDERS]).unwrap();

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
        let error = routes(&[&ORDERS, &ORDERS]).unwrap_err().to_string();

        assert!(error.starts_with("the path /shop.Orders/Buy is claimed by shop.Orders and by shop.Orders"), "{error}");
    }

    #[test]
    fn an_option_of_a_method_that_cannot_be_meant_is_refused_with_the_methods_name() {
        static REJECTS: &[MethodSpec] = &[MethodSpec::new("shop.Orders", "Buy", "/shop.Orders/Buy", Kind::Unary)
            .routes(MethodRoutes::new().on_missing_key(OnMissingKey::Reject))];
        static SPEC: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.Orders").methods(REJECTS);

        let error = routes(&[&SPEC]).unwrap_err().to_string();

        assert!(error.starts_with("service shop.Orders/Buy: the option on_missing_key = \"REJECT\""), "{error}");
    }

    #[test]
    fn a_key_in_the_path_stands_between_the_prefix_and_the_service() {
        static BY_PATH: ServiceSpec = ServiceSpec::new("shop.Orders", "shop.Orders")
            .strategy(Strategy::PathBased)
            .path_prefix("/api/v1")
            .methods(METHODS);
        let routes = routes(&[&BY_PATH]).unwrap();
        let segment = |path| routes.find(path).map(|(_, segment)| segment);

        assert_eq!(segment("/shop.Orders/Buy"), Some(None));
        assert_eq!(segment("/api/v1/shop.Orders/Buy"), Some(None));
        assert_eq!(segment("/api/v1/eu%2Fwest/shop.Orders/Buy"), Some(Some("eu%2Fwest")));
        assert_eq!(segment("/api/v1//shop.Orders/Buy"), Some(Some("")));
        for path in ["/eu/shop.Orders/Buy", "/api/v1/eu/west/shop.Orders/Buy", "/api/v1/eu/shop.Orders/Sell", "eu", "/"]
        {
            assert_eq!(segment(path), None, "{path}");
        }
        assert_eq!(
            routes.unknown("/eu/shop.Orders/Buy").message,
            "unknown service /eu/shop.Orders/Buy; did you mean /api/v1/{key}/shop.Orders/Buy?"
        );
    }

    #[test]
    fn a_key_in_the_path_needs_no_prefix() {
        static BY_PATH: ServiceSpec =
            ServiceSpec::new("shop.Orders", "shop.Orders").strategy(Strategy::PathBased).methods(METHODS);
        let routes = routes(&[&BY_PATH]).unwrap();

        assert_eq!(routes.find("/eu/shop.Orders/Buy").unwrap().1, Some("eu"));
        assert_eq!(routes.find("/shop.Orders/Buy").unwrap().1, None);
        assert_eq!(routes.find("/a/eu/shop.Orders/Buy"), None);
    }

    #[test]
    fn a_prefix_that_is_no_path_is_refused() {
        for prefix in ["api", "/api/", "/a b", "/a?"] {
            assert!(prefix_of("s", prefix).is_err(), "{prefix}");
        }
        assert_eq!(prefix_of("s", "/api/v1").unwrap(), "/api/v1");
    }
}
