//! Where an instance registers: reads its Hello, answers Welcome, and carries its tunnel while the stream lives.

use std::{
    convert::Infallible,
    fmt::{self, Display},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use grpcrouter_protocol::{
    Accepted, Agreement, Close, CloseCode, Config, Hello, Rejected, Side, TunnelId, Update, Welcome, decode_hello,
    encode_welcome,
};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tonic::server::NamedService;
use tower_service::Service;
use tracing::{debug, warn};

use super::{GatewayCore, admission, registry::Instance};
use crate::{
    metadata,
    status::{Answer, shown},
    tunnel::{Messages, Started, TunnelBody, TunnelEvents, TunnelHandle, attach},
};

/// The path of the one method.
pub(super) const REGISTER_PATH: &str = "/grpcrouter.Router/Register";

/// Where a request came from, if the front knows it: an extension of the request.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) String);

/// The gRPC service `grpcrouter.Router`, where instances register; from [`Gateway::register_service`].
///
/// A tower service over any HTTP/2 server; the limits of one that is not the gateway's own are told there. Its future
/// is done when the instance is let in or rejected; the stream goes on in a task, until it ends or the gateway does.
///
/// [`Gateway::register_service`]: super::Gateway::register_service
#[derive(Clone)]
pub struct RegisterService {
    core: Arc<GatewayCore>,
}

impl RegisterService {
    pub(super) fn new(core: Arc<GatewayCore>) -> Self {
        Self { core }
    }
}

impl fmt::Debug for RegisterService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterService").finish_non_exhaustive()
    }
}

impl NamedService for RegisterService {
    const NAME: &'static str = "grpcrouter.Router";
}

impl<B> Service<Request<B>> for RegisterService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Display,
{
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let core = self.core.clone();
        Box::pin(async move {
            let (response, stream) = register(core, request).await;
            if let Some(stream) = stream {
                tokio::spawn(stream.carry());
            }
            Ok(response)
        })
    }
}

/// Answers one request to register. The stream that comes with an accepted one is to be carried until it ends.
pub(super) async fn register<B>(
    core: Arc<GatewayCore>,
    request: Request<B>,
) -> (Response<tonic::body::Body>, Option<RegisterStream<B>>)
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Display,
{
    let path = request.uri().path();
    if path != REGISTER_PATH {
        let method = path.rsplit('/').next().unwrap_or_default();
        return (Answer::unknown_method("grpcrouter.Router", method, Some("Register")).into_http(), None);
    }
    if !metadata::is_grpc(request.headers()) {
        let mut response = Response::default();
        *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return (response, None);
    }
    let peer = request.extensions().get::<Peer>().map_or_else(|| "unknown".to_owned(), |peer| peer.0.clone());
    let mut incoming = Messages::new(Box::pin(request.into_body()));

    let hello = match tokio::time::timeout(HELLO_DUE, incoming.next()).await {
        Err(_) => return (bad_hello(&peer, "no Hello within 5 s"), None),
        Ok(Err(error)) => return (bad_hello(&peer, &error.to_string()), None),
        Ok(Ok(None)) => return (bad_hello(&peer, "the stream ended before a Hello"), None),
        Ok(Ok(Some(message))) => match decode_hello(message) {
            Ok(hello) => hello,
            Err(error) => return (bad_hello(&peer, &error.to_string()), None),
        },
    };
    let (welcome, config) = match admission::admit(&core, &hello) {
        Ok(agreement) => accept(&core.limits.tunnel, agreement),
        Err(rejected) => return (reject(&peer, &hello, rejected), None),
    };
    let tunnel = TunnelHandle::gateway(config);
    let body = TunnelBody::new(tunnel.clone(), encode_welcome(&welcome), Side::Gateway);
    let instance = Arc::new(Instance::new(hello, tunnel, peer));
    let stream = RegisterStream { incoming, registration: Registration::new(core, instance) };
    (grpc(tonic::body::Body::new(body)), Some(stream))
}

/// The instance's side of an accepted stream.
pub(super) struct RegisterStream<B> {
    incoming: Messages<Pin<Box<B>>>,
    registration: Registration,
}

impl<B> RegisterStream<B>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    /// Carries the tunnel until the stream is over.
    ///
    /// # Cancel safety
    /// Dropping the future ends the tunnel and every call in it.
    pub(super) async fn carry(mut self) {
        let detached = attach(&self.registration.instance.tunnel, &mut self.incoming, &self.registration).await;
        self.registration.why = detached.to_string();
    }
}

/// An instance in the registry, for as long as this lives.
struct Registration {
    core: Arc<GatewayCore>,
    instance: Arc<Instance>,
    why: String,
}

impl Registration {
    fn new(core: Arc<GatewayCore>, instance: Arc<Instance>) -> Self {
        if let Some(displaced) = core.registry.insert(&instance) {
            tokio::spawn(replace(displaced, instance.clone(), core.limits.drain_timeout));
        }
        Self { core, instance, why: "its connection was dropped".to_owned() }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Also if the stream was never carried: no call may wait in a tunnel that nobody reads.
        self.instance.tunnel.close(Close {
            code: CloseCode::Shutdown,
            reason: String::new(),
            retry_after: Duration::ZERO,
        });
        self.core.registry.remove(&self.instance, &self.why);
    }
}

impl TunnelEvents for Registration {
    fn started(&self, _: &TunnelHandle, _: Started) {
        // Only instances are sent calls; the core lets no such frame through to a gateway.
    }

    fn draining(&self, _: Vec<String>) {
        self.core.registry.drain(&self.instance);
    }

    fn updated(&self, update: Update) {
        self.core.registry.update(&self.instance, &update);
    }

    fn closed(&self, close: &Close) {
        debug!(instance = %self.instance.id, code = ?close.code, reason = shown(&close.reason), "tunnel closed");
    }
}

/// Ends the tunnel that another of the same instance id took over from, once its calls have ended.
async fn replace(displaced: Arc<Instance>, by: Arc<Instance>, patience: Duration) {
    let same_process = displaced.incarnation == by.incarnation;
    if !same_process {
        warn!(instance = %by.id, "a second process registered with this instance id and takes its new calls");
    }
    let drained = async {
        while displaced.tunnel.open_calls() > 0 {
            tokio::time::sleep(DRAINED_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(patience, drained).await;
    let reason = if same_process {
        "a later stream of the same instance took over".to_owned()
    } else {
        format!("another process registered as instance {}: give each its own .instance_id(..)", by.id)
    };
    let retry_after = if same_process { Duration::ZERO } else { RETRY_AFTER_REPLACED };
    displaced.tunnel.close(Close { code: CloseCode::Replaced, reason, retry_after });
}

fn accept(limits: &Config, agreement: Agreement) -> (Welcome, Config) {
    let config = Config { max_open_calls: agreement.max_open_calls, ..limits.clone() };
    let welcome = Welcome::Accepted(Accepted {
        version: agreement.version,
        features: agreement.features,
        tunnel_id: TunnelId(rand::random()),
        resume_token: Bytes::new(),
        heartbeat: config.heartbeat,
        resume_window: Duration::ZERO,
        limits: config.limits(),
        gateways: Vec::new(),
    });
    (welcome, config)
}

fn reject(peer: &str, hello: &Hello, rejected: Rejected) -> Response<tonic::body::Body> {
    warn!(instance = %hello.instance_id, peer, reason = ?rejected.reason, message = shown(&rejected.message), "instance rejected");
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let message = encode_welcome(&Welcome::Rejected(rejected));
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    grpc(tonic::body::Body::new(body))
}

fn bad_hello(peer: &str, why: &str) -> Response<tonic::body::Body> {
    warn!(peer, why = shown(why), "a stream that registers nobody");
    Answer::malformed_request(format!("no Hello could be read: {why}")).into_http()
}

fn grpc(body: tonic::body::Body) -> Response<tonic::body::Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A Hello is the first thing that an instance sends; who sends none holds a connection for nothing.
const HELLO_DUE: Duration = Duration::from_secs(5);

/// How often a displaced tunnel is looked at: its calls have their own ends, nothing waits for this.
const DRAINED_LOOK: Duration = Duration::from_millis(100);

/// Two processes with one instance id would push each other out for ever; so they do it once a minute.
const RETRY_AFTER_REPLACED: Duration = Duration::from_secs(60);
