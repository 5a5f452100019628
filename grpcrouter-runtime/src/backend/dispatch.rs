//! From a call to the service that answers it: the table of services, and what a tunnel starts.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use grpcrouter_protocol::{Close, ResponsePart, Update};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Service, ServiceExt as _};
use tracing::{Instrument as _, debug, debug_span, info};

use super::answering::{Answering, Handler};
use super::instance_call::{InstanceCall, TunnelOutlet};
use super::meters::Meters;
use super::request_body::RequestBody;
use super::roster::{Listing, Seat};
use crate::clock;
use crate::metadata;
use crate::status::{self, Answer};
use crate::tunnel::{Started, TunnelEvents, TunnelHandle, why};

/// The services of a backend, by full name: one look for each call, whatever the method.
#[derive(Default)]
pub(super) struct Services {
    by_name: HashMap<Arc<str>, Box<dyn AnyService>>,
    /// Of the backend's own: not registered, and behind what its user added.
    beside: Vec<(&'static str, Box<dyn AnyService>)>,
}

impl Services {
    /// # Errors
    /// The name, if a service of that name is there already.
    pub(super) fn add<S, B>(&mut self, service: S) -> Result<(), Arc<str>>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.add_named(S::NAME.into(), service)
    }

    /// The same for a service that is known by name only as the program runs.
    ///
    /// # Errors
    /// The name, if a service of that name is there already.
    pub(super) fn add_named<S, B>(&mut self, name: Arc<str>, service: S) -> Result<(), Arc<str>>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self.by_name.insert(name.clone(), Box::new(Erased(service))) {
            None => Ok(()),
            Some(_) => Err(name),
        }
    }

    /// Serves this one as well, unless there is one of its name.
    pub(super) fn add_beside<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.beside.push((S::NAME, Box::new(Erased(service))));
    }

    /// The names, in order.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        // Through a tree: a table has no order of its own.
        self.by_name.keys().map(|name| (name.clone(), ())).collect::<BTreeMap<_, _>>().into_keys().collect()
    }

    /// Whether a path names one of them.
    pub(super) fn has(&self, path: &str) -> bool {
        self.find(service_of(path)).is_some()
    }

    fn find(&self, service: &str) -> Option<&dyn AnyService> {
        let beside = || self.beside.iter().find(|(name, _)| *name == service).map(|(_, service)| service);
        self.by_name.get(service).or_else(beside).map(AsRef::as_ref)
    }

    /// Hands a call to its service.
    pub(super) fn call(&self, request: Request<Body>) -> Handler {
        let service = service_of(request.uri().path());
        match self.find(service) {
            Some(service) => service.call(request),
            None => {
                let answer =
                    Answer::unknown_service(service, status::nearest(service, self.by_name.keys().map(AsRef::as_ref)));
                Box::pin(std::future::ready(answer.into_http()))
            }
        }
    }
}

fn service_of(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default()
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A service of any type.
trait AnyService: Send + Sync {
    fn call(&self, request: Request<Body>) -> Handler;
}

struct Erased<S>(S);

impl<S, B> AnyService for Erased<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn call(&self, request: Request<Body>) -> Handler {
        let service = self.0.clone();
        Box::pin(async move {
            match service.oneshot(request).await {
                Ok(response) => response.map(Body::new),
                Err(never) => match never {},
            }
        })
    }
}

/// What a tunnel tells its backend.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) services: Arc<Services>,
    pub(super) tasks: TaskTracker,
    pub(super) meters: Arc<Meters>,
    /// Where the tunnel leads.
    pub(super) seat: Arc<Seat>,
}

impl TunnelEvents for Dispatcher {
    fn started(&self, tunnel: &TunnelHandle, started: Started) {
        let Started { call: id, start, deadline, data, half_close } = started;
        let left = deadline.map(|deadline| deadline.since(clock::now()));
        let meter = self.meters.began(start.path.clone());
        let request = match metadata::request_from_start(&start, left) {
            Ok(request) => request,
            Err(answer) => {
                meter.ended(Some(id), Some(answer.trailers().status));
                let part = ResponsePart { trailers: Some(answer.trailers()), ..ResponsePart::default() };
                tunnel.respond(id, part);
                return;
            }
        };
        let call = Arc::new(InstanceCall::new(tunnel.clone(), id));
        call.state().upload.push(data, half_close);
        tunnel.adopt(id, call.clone());
        let services = self.services.clone();
        self.tasks.spawn(async move {
            let body = Body::new(RequestBody::new(call.clone()));
            let outlet = TunnelOutlet::new(call);
            let answering = Answering::new(services.call(request.map(|()| body)), outlet);
            let code = answering.instrument(debug_span!("call", call = %id)).await;
            meter.ended(Some(id), code);
        });
    }

    fn draining(&self, gateways: Vec<String>) {
        info!(gateway = %self.seat.dialler.gateway, "the gateway drains: it sends no new call, what runs finishes");
        self.seat.named(&gateways, Listing::Hint);
        self.seat.draining();
    }

    fn peers_changed(&self, gateways: Vec<String>) {
        self.seat.named(&gateways, Listing::Whole);
    }

    /// An instance's own words; none come back.
    fn updated(&self, _: Update) {}

    fn closed(&self, close: &Close) {
        let (why, reason) = (why(close.code), status::shown(&close.reason));
        debug!(gateway = %self.seat.dialler.gateway, why, reason, "the gateway closed the tunnel");
    }
}
