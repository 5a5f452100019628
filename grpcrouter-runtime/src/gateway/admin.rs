//! What the owner of a gateway may ask it: the gRPC service `grpcrouter.Admin`, on a listener of its own. It answers from
//! what the gateway's Rust interface tells, and knows nothing else.

mod listener;
#[rustfmt::skip]
#[allow(
    missing_docs, missing_debug_implementations, unreachable_pub, dead_code, clippy::all,
    reason = "generated from proto/admin.proto"
)]
#[path = "../generated/admin.rs"]
mod proto;

use std::{collections::VecDeque, future::Future, pin::Pin, vec};

use futures_util::stream::unfold;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, async_trait, codegen::tokio_stream::Stream};
use tracing::info;

use self::proto::{
    GetSplitRequest, Instance, InstanceEvent, Left, ListInstancesRequest, ListInstancesResponse, Listed, Reset,
    SetSplitRequest, Share, Split, WatchInstancesRequest,
    admin_server::{Admin, AdminServer},
    instance_event::Kind,
};
use super::{
    Gateway,
    own::OwnService,
    registry::{InstanceChange, InstanceState, InstanceWatch, RegisteredInstance},
};
use crate::error::{ServeError, SplitError, UnknownService};

impl Gateway {
    /// Answers `grpcrouter.Admin` of proto/admin.proto at `listener`, and nothing else there, until `shutdown` is done.
    /// At the listener of [`serve`](Self::serve) it is not to be had.
    ///
    /// Who reaches the listener may ask: there are no credentials. So it must be a loopback address, unless
    /// [`admin_beyond_loopback`](super::GatewayBuilder::admin_beyond_loopback) says otherwise.
    ///
    /// # Errors
    /// The address is not a loopback one; the listener broke, as for [`serve`](Self::serve).
    ///
    /// # Cancel safety
    /// Dropping the future ends everything at once: each call is cancelled, each connection closed.
    pub async fn serve_admin(&self, listener: TcpListener, shutdown: impl Future) -> Result<(), ServeError> {
        if let Ok(address) = listener.local_addr()
            && !address.ip().to_canonical().is_loopback()
            && !self.core().limits.admin_beyond_loopback
        {
            return Err(ServeError::AdminExposed { address: address.to_string() });
        }
        let service = OwnService::new(AdminServer::new(Desk(self.clone())));
        listener::serve(self.core(), service, listener, shutdown).await
    }
}

/// Answers each question from the gateway's Rust interface.
#[derive(Debug)]
struct Desk(Gateway);

#[async_trait]
impl Admin for Desk {
    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let asked = Asked(request.into_inner().service);
        let instances = self.0.instances().into_iter().filter(|one| asked.is_about(one)).map(Instance::from);
        Ok(Response::new(ListInstancesResponse { instances: instances.collect() }))
    }

    async fn set_split(&self, request: Request<SetSplitRequest>) -> Result<Response<Split>, Status> {
        let SetSplitRequest { service, shares } = request.into_inner();
        let told = shares.iter().map(|Share { software_version, share }| (software_version.as_str(), *share));
        self.0.split(&service, told).map_err(|error| match error {
            SplitError::UnknownService(error) => not_found(&error),
            error => Status::invalid_argument(error.to_string()),
        })?;
        info!(service, shares = ?shares, "calls are split");
        Ok(Response::new(Split { shares }))
    }

    async fn get_split(&self, request: Request<GetSplitRequest>) -> Result<Response<Split>, Status> {
        let shares = self.0.shares(&request.into_inner().service).map_err(|error| not_found(&error))?;
        let share = |(software_version, share)| Share { software_version, share };
        Ok(Response::new(Split { shares: shares.into_iter().map(share).collect() }))
    }

    type WatchInstancesStream = Pin<Box<dyn Stream<Item = Result<InstanceEvent, Status>> + Send>>;

    async fn watch_instances(
        &self,
        request: Request<WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        let asked = Asked(request.into_inner().service);
        // Before the list is made: so no change is missed.
        let changes = self.0.watch();
        let mut watcher = Watcher { gateway: self.0.clone(), asked, changes, reset: VecDeque::new(), listed: None };
        watcher.begin(0);
        let events = unfold(watcher, async |mut watcher| Some((Ok(event(watcher.next().await?)), watcher)));
        Ok(Response::new(Box::pin(events)))
    }
}

/// The service that somebody asks about; "": all.
#[derive(Debug)]
struct Asked(String);

impl Asked {
    fn is_about(&self, instance: &RegisteredInstance) -> bool {
        self.0.is_empty() || instance.services.contains(&self.0)
    }
}

/// One call of WatchInstances.
struct Watcher {
    gateway: Gateway,
    asked: Asked,
    changes: InstanceWatch,
    reset: VecDeque<Kind>,
    /// Who is still to be told, at the beginning or after a reset.
    listed: Option<vec::IntoIter<RegisteredInstance>>,
}

impl Watcher {
    /// Tells everything from the start.
    fn begin(&mut self, missed: u64) {
        self.reset.push_back(Kind::Reset(Reset { missed }));
        self.listed = Some(self.gateway.instances().into_iter());
    }

    /// What to tell next; `None` once the gateway is no more.
    async fn next(&mut self) -> Option<Kind> {
        loop {
            if let Some(reset) = self.reset.pop_front() {
                return Some(reset);
            }
            if let Some(listed) = &mut self.listed {
                let Some(instance) = listed.next() else {
                    self.listed = None;
                    return Some(Kind::Listed(Listed {}));
                };
                if self.asked.is_about(&instance) {
                    return Some(Kind::Joined(instance.into()));
                }
                continue;
            }
            match self.changes.next().await? {
                InstanceChange::Lagged { missed } => self.begin(missed),
                InstanceChange::Joined(one) if self.asked.is_about(&one) => return Some(Kind::Joined(one.into())),
                InstanceChange::Changed(one) if self.asked.is_about(&one) => return Some(Kind::Changed(one.into())),
                InstanceChange::Left { instance, why } if self.asked.is_about(&instance) => {
                    return Some(Kind::Left(Left { instance: Some(instance.into()), why }));
                }
                _ => {}
            }
        }
    }
}

fn not_found(error: &UnknownService) -> Status {
    Status::not_found(error.to_string())
}

fn event(kind: Kind) -> InstanceEvent {
    InstanceEvent { kind: Some(kind) }
}

impl From<RegisteredInstance> for Instance {
    fn from(one: RegisteredInstance) -> Self {
        Self {
            instance_id: one.id,
            incarnation: one.incarnation.to_vec(),
            services: one.services,
            software_version: one.version,
            peer: one.peer,
            weight: one.weight,
            labels: one.labels,
            routing_keys: one.routing_keys,
            state: proto::InstanceState::from(one.state).into(),
            load_permille: one.load_permille,
            open_calls: one.open_calls as u64,
            calls: one.calls,
            connected_for_ms: u64::try_from(one.connected_for.as_millis()).unwrap_or(u64::MAX),
            principal: one.principal.unwrap_or_default(),
            services_not_serving: one.not_serving,
        }
    }
}

impl From<InstanceState> for proto::InstanceState {
    fn from(state: InstanceState) -> Self {
        match state {
            InstanceState::Ready => Self::Ready,
            InstanceState::NotServing => Self::NotServing,
            InstanceState::Draining => Self::Draining,
            InstanceState::Replaced => Self::Replaced,
            InstanceState::Ejected => Self::Ejected,
            InstanceState::Away => Self::Away,
        }
    }
}
