//! The gateway: accepts ordinary gRPC clients and carries their calls through the tunnels of the instances that dialled
//! in. `forward` is the product in five steps; everything else here serves it.

mod admin;
mod admission;
mod arrivals;
mod balancer;
mod bridge;
mod builder;
#[cfg(feature = "callers")]
mod callers;
mod client_call;
mod connection;
mod described;
mod doors;
mod edge;
mod embed;
mod forward;
mod front;
mod grown;
mod health;
mod intake;
mod learn;
mod meters;
mod nobody;
mod own;
mod parking;
mod pass;
mod peer;
mod peers;
mod principal;
mod reflection;
mod register;
mod registration;
mod registry;
mod retries;
mod route;
mod secrets;
mod service_routes;
mod stats;
mod strategy;
mod tls;
mod way;

use std::{collections::HashSet, fmt, future::Future, sync::Arc, time::Duration};

use grpcrouter_protocol::{Config, WindowPool};
use tokio::{net::TcpListener, sync::watch};

#[cfg(feature = "callers")]
pub use self::callers::{
    ApiKey, By, Callers, CallersBody, CallersFuture, CallersLayer, CallersService, JwtIssuer, RateLimit, Who,
};
pub(crate) use self::embed::Pinned;
use self::{
    admission::Admission,
    arrivals::Arrivals,
    connection::Times,
    doors::Doors,
    meters::Meters,
    own::{OwnService, OwnServices},
    pass::Gate,
    peers::Peers,
    reflection::Reflection,
    register::Resumable,
    registry::Registry,
    retries::Retries,
    route::Routes,
    stats::Counts,
    tls::ServerTls,
};
pub use self::{
    builder::GatewayBuilder,
    embed::{Channel, ChannelFuture},
    health::HealthService,
    reflection::{DescriptorConflict, DescriptorVersion, ReflectionService, ReflectionV1, ReflectionV1Alpha},
    register::RegisterService,
    registration::{
        RegistrationFile, RegistrationFileError, RegistrationPolicy, RegistrationRule, RegistrationToken, TokenRecord,
    },
    registry::{InstanceChange, InstanceState, InstanceWatch, RegisteredInstance},
    retries::RetryBudget,
    service_routes::ServiceRoutes,
    stats::GatewayStats,
    tls::GatewayTls,
};
use crate::{
    codegen::LoadBalancing,
    error::{ServeError, SplitError, UnknownService},
    health::Services,
    status::Answer,
    tls::TlsFileError,
};

/// Carries the calls of gRPC clients to the instances of their services.
///
/// Instances dial in and register; clients call as if the services ran here. A clone is the same gateway.
///
/// # Examples
/// ```no_run
/// # async fn example<R: grpcrouter_runtime::codegen::Router>() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = grpcrouter_runtime::Gateway::builder().add_router::<R>().build()?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// gateway.serve(listener, async { tokio::signal::ctrl_c().await.ok(); }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gateway {
    core: Arc<GatewayCore>,
}

impl Gateway {
    /// Starts with nothing: add a router for each service.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::new()
    }

    /// Accepts clients and instances from `listener` until `shutdown` is done, whatever it gives.
    ///
    /// Then its health is NOT_SERVING, instances are told of the [other gateways](GatewayBuilder::peers), and clients, in
    /// the way of HTTP/2 that loses no call, to open none here any more. Running calls finish within the drain timeout of
    /// the builder, also those of an instance that has to dial again meanwhile; who registers anew is sent on. What
    /// still runs then ends with UNAVAILABLE, and every tunnel is closed: also those that came through
    /// [`register_service`], for a gateway ends as a whole. So for several listeners call it once for each, with one and the same shutdown. When it has
    /// returned, the gateway may be served again.
    ///
    /// [`register_service`]: Self::register_service
    ///
    /// # Errors
    /// The listener can be reached from elsewhere, and has no TLS or no [`registration`](GatewayBuilder::registration)
    /// policy: see [`insecure`](GatewayBuilder::insecure). Or it broke: it did nothing but fail for half a minute. A single connection that fails does not end the
    /// gateway.
    ///
    /// # Panics
    /// When it is polled outside of a tokio runtime, or in one without I/O and time: build it with `enable_all()`.
    ///
    /// # Cancel safety
    /// Dropping the future ends everything at once: each call is cancelled, each connection closed.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future) -> Result<(), ServeError> {
        front::serve(&self.core, listener, shutdown).await
    }

    /// The same, at the address of [`listen`](GatewayBuilder::listen).
    ///
    /// # Errors
    /// The address cannot be taken, and as for [`serve`](Self::serve).
    ///
    /// # Panics
    /// As [`serve`](Self::serve).
    ///
    /// # Cancel safety
    /// As for [`serve`](Self::serve).
    pub async fn listen_and_serve(&self, shutdown: impl Future) -> Result<(), ServeError> {
        let address = self.core.doors.address.as_deref().unwrap_or(doors::DEFAULT_ADDRESS);
        let listener = TcpListener::bind(address).await.map_err(|error| ServeError::listen(address, error))?;
        self.serve(listener, shutdown).await
    }

    /// Accepts instances from `listener`, and no client, until `shutdown` is done; for the rest as [`serve`](Self::serve).
    /// For a port of their own, which a firewall and another certificate can guard:
    /// [`register_elsewhere`](GatewayBuilder::register_elsewhere) keeps them from the other listener, and
    /// [`register_tls`](GatewayBuilder::register_tls) has its TLS.
    ///
    /// # Errors
    /// As for [`serve`](Self::serve).
    ///
    /// # Panics
    /// As [`serve`](Self::serve).
    ///
    /// # Cancel safety
    /// As for [`serve`](Self::serve).
    pub async fn serve_register(&self, listener: TcpListener, shutdown: impl Future) -> Result<(), ServeError> {
        front::serve_register(&self.core, listener, shutdown).await
    }

    /// The service where instances register, `grpcrouter.Router`, for a tonic server or an axum app of your own.
    /// [`serve`](Self::serve) has it already.
    ///
    /// Clients call generated routers in the same server: `MyServiceRouter::new(&gateway)` is a service too.
    ///
    /// # Limits
    /// Another server than [`serve`](Self::serve) carries everything, with these differences:
    /// * **Small writes.** A server that leaves Nagle's algorithm on makes each call wait about 40 ms for the peer's
    ///   ack. With tonic hand it `TcpIncoming::bind(address)?.with_nodelay(Some(true))`, with axum
    ///   `listener.tap_io(|stream| { let _ = stream.set_nodelay(true); })`.
    /// * **Deadlines.** tonic's `Server` has a timer of its own, which ends a call with CANCELLED where gRPC says
    ///   DEADLINE_EXCEEDED. The gateway's timer runs too and holds over the whole call. axum has no timer.
    /// * **The end.** An instance keeps its stream open for good, so a graceful shutdown would wait for ever: run
    ///   [`drain`](Self::drain) beside it.
    /// * **Windows.** All answers of an instance come over one stream. hyper gives it 1 MiB; over a long way that is the
    ///   limit of an instance's speed: with tonic set `initial_stream_window_size` and
    ///   `initial_connection_window_size` to 16 MiB. Do not limit the length of its body or the time it takes.
    /// * **Small frames.** A client that leaves a few thousand small DATA frames unread loses its connection, not only
    ///   its call. [`serve`](Self::serve) takes them in and keeps them packed.
    /// * **Cancelled uploads.** A reset with CANCEL, and a connection that is lost, reach the service as such. hyper
    ///   makes an end of a reset with NO_ERROR, which gRPC clients do not send.
    /// * **Credentials.** A [`registration`](GatewayBuilder::registration) policy sees tokens; the certificate of a connection
    ///   is known to the server alone. Whether an address may be open to others is not checked.
    /// * **Certificates.** TLS is the other server's then, and the gateway does not see what an instance showed: who may
    ///   register is told by tokens there, not by certificates.
    /// * **Connections.** [`max_connections`](GatewayBuilder::max_connections) and the keepalive of
    ///   [`serve`](Self::serve) do not hold; set the server's own. [`GatewayStats::connections`] does not count here,
    ///   and logs do not tell an instance's address.
    /// * **Cost.** Each call has a task, and the server's own work comes on top.
    pub fn register_service(&self) -> RegisterService {
        RegisterService::new(self.core.clone())
    }

    /// Ends a gateway that a server of your own serves, as [`serve`](Self::serve) does when it is told to stop.
    ///
    /// No instance is let in any more; running calls finish within the drain timeout of the builder, what still runs
    /// ends with UNAVAILABLE, and every tunnel is closed. Tell your server at the same time to take nothing new: calls
    /// that it still brings are carried for a quarter of a second, and those after it answered UNAVAILABLE, not sent to
    /// anybody. The gateway stays ended until it is [served](Self::serve).
    ///
    /// # Examples
    /// ```no_run
    /// # use tokio_util::sync::CancellationToken;
    /// # async fn example(gateway: grpcrouter_runtime::Gateway, server: impl Future, stop: CancellationToken) {
    /// // Such as Server::builder().add_service(gateway.register_service()).add_service(MyServiceRouter::new(&gateway))
    /// //     .serve_with_shutdown(address, stop.clone().cancelled_owned())
    /// let drain = async {
    ///     stop.cancelled().await;
    ///     gateway.drain().await;
    /// };
    /// tokio::join!(server, drain);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future leaves calls and tunnels as they are; no instance is let in. It can be called again.
    pub async fn drain(&self) {
        front::drain_mounted(&self.core).await;
    }

    /// Reads the certificates of [`GatewayTls`] again, now, whether they changed or not: for tests, and for a process that is
    /// told so by SIGHUP. They are looked at every few seconds anyhow. New connections get them; the others stay as they
    /// are. Without TLS there is nothing to do. Reads files, so it may take a moment.
    ///
    /// # Errors
    /// A file cannot be read or used: all stays as it was.
    pub fn reload_tls(&self) -> Result<(), TlsFileError> {
        self.core.tls.as_ref().map_or(Ok(()), |tls| tls.reload())
    }

    /// What the gateway holds now. All zero but `connections`, `tunnels` and `instances` when nobody calls. Takes the lock
    /// of each tunnel for a moment: for every second, not for every call.
    pub fn stats(&self) -> GatewayStats {
        self.core.stats()
    }

    /// Who is connected now, in the order in which they came. Everybody with a tunnel, also those that take no new calls.
    pub fn instances(&self) -> Vec<RegisteredInstance> {
        self.core.registry.instances()
    }

    /// Tells from now on what changes among the instances. To know all of them at any time, begin to watch and then ask
    /// for [`instances`](Self::instances): a change in between is told twice and none is missed.
    ///
    /// # Examples
    /// ```no_run
    /// # use grpcrouter_runtime::{Gateway, InstanceChange};
    /// # async fn example(gateway: Gateway) {
    /// let mut watch = gateway.watch();
    /// while let Some(change) = watch.next().await {
    ///     match change {
    ///         InstanceChange::Joined(instance) => println!("{} is here", instance.id),
    ///         InstanceChange::Left { instance, why } => println!("{} went: {why}", instance.id),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub fn watch(&self) -> InstanceWatch {
        self.core.registry.watch()
    }

    /// Balances the calls to the instances of `service` like this from now on, whatever the options say, all methods
    /// alike. Calls that run stay where they are. `service` is what instances register, `package.Service`.
    ///
    /// # Errors
    /// No router here leads to this service.
    pub fn balance(&self, service: &str, balancing: LoadBalancing) -> Result<(), UnknownService> {
        if self.core.registry.balance(service, balancing) { Ok(()) } else { Err(self.unknown(service)) }
    }

    fn unknown(&self, service: &str) -> UnknownService {
        UnknownService { service: service.to_owned(), known: self.core.registry.services().join(", ") }
    }

    /// Splits the calls to the instances of `service` between versions of their software from now on, each with its
    /// share, whatever the shares come to in all. Within a version calls are balanced as before. Calls that run stay
    /// where they are. With no shares at all calls are not split, as at first. `service` is what instances register.
    ///
    /// * The share of a version that no instance has goes to the others. Where none of them is there the calls are
    ///   answered UNAVAILABLE: versions that are not named, and those with share 0, get no calls.
    /// * A call with a routing key goes to those that claim it. Where several versions do, a key stays with one of them.
    ///   A key that is claimed by other versions alone still reaches them, unless keys are hashed.
    /// * A call with the metadata entry `x-grpcrouter-version` goes to that version or to nobody, if it is named here, be
    ///   it with share 0; a version that is not named is UNAVAILABLE. Any client may say so, so it is no access control.
    ///   Instances do not see the entry, and where calls are not split it means nothing.
    /// * Any other call that its instance did not take may go to another version.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example(gateway: grpcrouter_runtime::Gateway) -> Result<(), grpcrouter_runtime::SplitError> {
    /// gateway.split("shop.Orders", [("v1", 90), ("v2", 10)])?; // a canary
    /// gateway.split("shop.Orders", [("v2", 1)])?; // promoted
    /// gateway.split("shop.Orders", [("v1", 1)])?; // rolled back
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No router here leads to this service; a version is named twice, or every share is 0.
    pub fn split<V: Into<String>>(
        &self,
        service: &str,
        shares: impl IntoIterator<Item = (V, u32)>,
    ) -> Result<(), SplitError> {
        let shares: Vec<(String, u32)> = shares.into_iter().map(|(version, share)| (version.into(), share)).collect();
        let mut versions = HashSet::new();
        let why = if let Some((twice, _)) = shares.iter().find(|(version, _)| !versions.insert(version)) {
            format!("the version {twice} is named twice; name each once")
        } else if !shares.is_empty() && shares.iter().all(|(_, share)| *share == 0) {
            "every share is 0, so nobody would get a call; give one version 1 or more".to_owned()
        } else if self.core.registry.split(service, &shares) {
            return Ok(());
        } else {
            return Err(self.unknown(service).into());
        };
        Err(SplitError::Shares { service: service.to_owned(), why })
    }

    /// How the calls to `service` are split now, as [`split`](Self::split) was told; with no shares they are not.
    ///
    /// # Errors
    /// No router here leads to this service.
    pub fn shares(&self, service: &str) -> Result<Vec<(String, u32)>, UnknownService> {
        self.core.registry.shares(service).ok_or_else(|| self.unknown(service))
    }

    /// For the doors beside the front, which forward calls too.
    pub(crate) fn core(&self) -> &Arc<GatewayCore> {
        &self.core
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("services", &self.core.routes.services()).finish_non_exhaustive()
    }
}

/// What all parts of one gateway share.
#[derive(Debug)]
pub(crate) struct GatewayCore {
    /// The ids of all its tunnels begin with this, so that an instance knows it again under another name.
    process: [u8; 8],
    pub(crate) routes: Routes,
    pub(crate) registry: Registry,
    pub(crate) counts: Counts,
    /// What windows may have beyond their first size.
    pub(crate) windows: WindowPool,
    pub(crate) meters: Meters,
    /// How often calls may go to a second instance.
    pub(crate) retries: Retries,
    arrivals: Arrivals,
    /// Of the gateway's own listener; None: it speaks none.
    tls: Option<Arc<ServerTls>>,
    /// Whose health can be asked for; more may come.
    book: watch::Sender<Services>,
    /// Served if it is among `own`.
    health: OwnService,
    own: OwnServices,
    /// None if it is turned off.
    reflection: Option<Arc<Reflection>>,
    /// Asks clients who they are; None lets everybody in.
    gate: Option<Arc<dyn Gate>>,
    /// Who may register.
    admission: Admission,
    /// The other gateways.
    peers: Peers,
    resumable: Resumable,
    /// Its listeners.
    doors: Doors,
    pub(crate) limits: Limits,
}

/// What the builder set.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) drain_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_address: usize,
    pub(crate) times: Times,
    pub(crate) max_calls: usize,
    /// `usize::MAX`: none.
    pub(crate) max_message_size: usize,
    pub(crate) max_parked_calls: usize,
    /// Whether the owner may ask from anywhere.
    pub(crate) admin_beyond_loopback: bool,
    pub(crate) tunnel: Config,
}

impl GatewayCore {
    /// Whether one more call may be open.
    pub(crate) fn has_room(&self) -> Result<(), Answer> {
        let most = self.limits.max_calls;
        if self.counts.calls() >= most { Err(Answer::too_many_open(most)) } else { Ok(()) }
    }

    fn stats(&self) -> GatewayStats {
        let tunnels = self.registry.tunnels();
        let in_tunnels: usize = tunnels.iter().map(|instance| instance.tunnel.queued_bytes()).sum();
        GatewayStats {
            connections: self.counts.connections(),
            calls: self.counts.calls(),
            parked_calls: self.registry.parking.len(),
            tunnels: tunnels.len(),
            instances: self.registry.ready_instances(),
            queued_bytes: in_tunnels + self.counts.queued_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::codegen::{Kind, MethodSpec, Router, ServiceSpec};

    /// Stands for a generated router.
    pub(super) struct OrdersRouter;

    impl Router for OrdersRouter {
        const SPEC: &'static ServiceSpec = &ServiceSpec::new("shop.Orders", "shop.Orders")
            .routing_key("instanceid")
            .methods(&[MethodSpec::new("shop.Orders", "Buy", "/shop.Orders/Buy", Kind::Unary)]);
    }

    /// A gateway that serves it.
    pub(super) fn gateway() -> Gateway {
        Gateway::builder().add_router::<OrdersRouter>().build().unwrap()
    }

    #[test]
    fn a_new_gateway_holds_nothing() {
        assert_eq!(gateway().stats(), GatewayStats::default());
    }

    #[test]
    fn a_gateway_shows_what_it_serves() {
        assert_eq!(format!("{:?}", gateway()), r#"Gateway { services: ["shop.Orders"], .. }"#);
    }
}
