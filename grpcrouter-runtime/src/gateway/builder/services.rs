//! What is served that no generated router declares: by descriptors, or by whoever registers it.

use bytes::Bytes;

use super::GatewayBuilder;
use crate::{
    codegen::MethodRoutes,
    error::ConfigError,
    gateway::{described, service_routes::ServiceRoutes},
};

impl GatewayBuilder {
    /// Serves each service of an encoded `FileDescriptorSet` that has the option `(grpcrouter.routes_to)`, as its proto file
    /// says: what a generated router does, without one. May be called several times, once for each service.
    ///
    /// `protoc --include_imports --descriptor_set_out=shop.binpb shop.proto` and `buf build -o shop.binpb` write such a
    /// set; Google's own files may be left out. The options are checked by [`build`](Self::build), as the generator checks
    /// them. Reflection shows the descriptors to clients.
    pub fn add_descriptors(mut self, set: impl Into<Bytes>) -> Self {
        self.descriptors.push(set.into());
        self
    }

    /// Serves every service that an instance registers, also those that no router, proto file or
    /// [`add_service`](Self::add_service) declares. Default: only what is declared.
    ///
    /// `routes` is how all of them are routed; `MethodRoutes::new()` balances their calls in turn, and
    /// `MethodRoutes::new().routing_key("x-instance")` lets a client name the instance. Clients may call a service from
    /// the moment at which its first instance registers; before that it is UNIMPLEMENTED, and after its last instance
    /// left UNAVAILABLE. The methods are not known: all that
    /// [`any_method`](ServiceRoutes::any_method) says holds. At most 1,024 services are learnt, for each costs memory and
    /// series of metrics; names in `grpcrouter.` and those of the gateway's own services are not.
    ///
    /// Whoever may register may so name a service that clients call: say with a registration policy who may register
    /// what.
    pub fn any_service(mut self, routes: MethodRoutes<'_>) -> Self {
        self.any_service = Some(ServiceRoutes::new(ANY_SERVICE).routes(routes).any_method());
        self
    }

    /// All that is declared.
    pub(super) fn all_services(&self) -> Result<Vec<ServiceRoutes>, ConfigError> {
        let mut services = self.services.clone();
        for set in &self.descriptors {
            let described = described::services(set)?;
            if described.is_empty() && self.any_service.is_none() {
                let why = "none of its services has the option (grpcrouter.routes_to): set it, or serve them with any_service(..)";
                return Err(ConfigError::setting("add_descriptors", format!("{} bytes", set.len()), why));
            }
            services.extend(described);
        }
        if services.is_empty() && self.any_service.is_none() {
            return Err(ConfigError::NothingToServe {
                who: "the gateway",
                hint: "add the generated router of a service with .add_router::<MyServiceRouter>(), descriptors with \
                       .add_descriptors(..), or serve whatever registers with .any_service(..)",
            });
        }
        Ok(services)
    }
}

/// What errors call the options of services that are learnt.
const ANY_SERVICE: &str = "any_service";
