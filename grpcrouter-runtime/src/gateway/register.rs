//! Where an instance registers: reads its Hello, answers Welcome, and carries its tunnel while the stream lives.

use std::{
    convert::Infallible,
    fmt::{self, Display},
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, OnceLock},
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

use super::{
    GatewayCore,
    admission::{self, Admitted, Entitlement, Refusal},
    learn::learn,
    peer::Peer,
    registry::Instance,
};
use crate::{
    metadata,
    status::{Answer, shown},
    tunnel::{Messages, Started, TunnelBody, TunnelEvents, TunnelHandle, attach, why},
};

/// The path of the one method.
pub(super) const REGISTER_PATH: &str = "/grpcrouter.Router/Register";

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
    let from = request.extensions().get::<Peer>().cloned();
    let peer = from.as_ref().map_or_else(|| "unknown".to_owned(), |peer| peer.address.to_string());
    // Of who may not register not even a Hello is read.
    let entry = match core.admission.authenticate(request.headers(), from.as_ref()).await {
        Ok(entry) => entry,
        Err(refusal) => {
            core.meters.rejected.increment(1);
            return (say_rejected(refusal.rejected()), None);
        }
    };
    let mut incoming = Messages::new(Box::pin(request.into_body()));

    let hello = match tokio::time::timeout(HELLO_DUE, incoming.next()).await {
        Err(_) => return (bad_hello(&core, &peer, "no Hello within 5 s"), None),
        Ok(Err(error)) => return (bad_hello(&core, &peer, &error.to_string()), None),
        Ok(Ok(None)) => return (bad_hello(&core, &peer, "the stream ended before a Hello"), None),
        Ok(Ok(Some(message))) => match decode_hello(message) {
            Ok(hello) => hello,
            Err(error) => return (bad_hello(&core, &peer, &error.to_string()), None),
        },
    };
    let (admitted, entitlement) = match admission::admit(&core, &hello, entry) {
        Ok(Admitted { agreement, entitlement }) => (agreement, entitlement),
        Err(rejected) => {
            core.meters.rejected.increment(1);
            return (reject(&peer, &hello, rejected), None);
        }
    };
    let (welcome, config) = accept(&core.limits.tunnel, admitted);
    let hello = Hello { max_calls: u64::from(config.max_open_calls), ..hello };
    learn(&core, &hello);
    let tunnel = TunnelHandle::gateway(config, &core.windows, core.meters.tunnel.clone());
    let body = TunnelBody::new(tunnel.clone(), encode_welcome(&welcome), Side::Gateway);
    let principal = entitlement.as_ref().map(|entitlement| entitlement.principal().clone());
    let instance = Arc::new(Instance::new(hello, tunnel, peer).registered_as(principal));
    let stream = RegisterStream { incoming, registration: Registration::new(core, instance, entitlement) };
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
        let Self { incoming, registration } = &mut self;
        let detached = tokio::select! {
            biased;
            detached = attach(&registration.instance.tunnel, incoming, registration) => detached,
            never = registration.replaced() => match never {},
            never = registration.learn() => match never {},
            never = registration.disowned() => match never {},
        };
        registration.why = registration.disowned.get().cloned().unwrap_or_else(|| detached.to_string());
    }
}

/// An instance in the registry, for as long as this lives.
struct Registration {
    core: Arc<GatewayCore>,
    instance: Arc<Instance>,
    why: String,
    /// As whom it is here; none where nobody asks.
    entitlement: Option<Entitlement>,
    /// Why it may not be here any more.
    disowned: OnceLock<String>,
}

impl Registration {
    fn new(core: Arc<GatewayCore>, instance: Arc<Instance>, entitlement: Option<Entitlement>) -> Self {
        if let Some(displaced) = core.registry.insert(&instance) {
            if displaced.incarnation != instance.incarnation {
                warn!(instance = %instance.id, "a second process registered with this instance id and takes its new calls");
            }
            displaced.successor.send_replace(Some(instance.incarnation));
        }
        core.meters.came(&core.registry);
        if let Some(reflection) = &core.reflection {
            reflection.came(&instance);
        }
        let why = "its connection was dropped".to_owned();
        Self { core, instance, why, entitlement, disowned: OnceLock::new() }
    }

    /// Brings what the instance offers to reflection, beside all else.
    async fn learn(&self) -> Infallible {
        if let Some(reflection) = &self.core.reflection {
            reflection.learn(&self.instance).await;
        }
        pending().await
    }

    /// Once it may not be here any more: closes the tunnel, whatever runs in it; `attach` sees that.
    async fn disowned(&self) -> Infallible {
        if let Some(entitlement) = &self.entitlement {
            self.disown(&entitlement.ended(&self.core.admission).await);
        }
        pending().await
    }

    fn disown(&self, refusal: &Refusal) {
        let instance = &self.instance;
        let proof = self.entitlement.as_ref().map(Entitlement::proof);
        warn!(instance = %instance.id, proof, "the instance may not be here any more: {refusal}");
        let _ = self.disowned.set("it may not be registered here any more".to_owned());
        let close = Close {
            code: CloseCode::PermissionDenied,
            reason: refusal.to_string(),
            retry_after: refusal.retry_after(),
        };
        instance.tunnel.close(close);
    }

    /// Once another of the same instance id took over: closes the tunnel when its calls have ended; `attach` sees that.
    async fn replaced(&self) -> Infallible {
        let instance = &self.instance;
        let mut successor = instance.successor.subscribe();
        // The sender is in the instance that is held here.
        let by = successor.wait_for(Option::is_some).await.ok().and_then(|by| *by);
        let drained = async {
            while instance.tunnel.open_calls() > 0 {
                tokio::time::sleep(DRAINED_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(self.core.limits.drain_timeout, drained).await;
        let reason = if by == Some(instance.incarnation) {
            "a later stream of the same instance took over".to_owned()
        } else {
            format!("another process registered as instance {}: give each its own .instance_id(..)", instance.id)
        };
        instance.tunnel.close(Close { code: CloseCode::Replaced, reason, retry_after: Duration::ZERO });
        pending().await
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
        if let Some(reflection) = &self.core.reflection {
            reflection.went(&self.instance);
        }
        self.core.registry.remove(&self.instance, &self.why);
        self.core.meters.went(&self.core.registry);
    }
}

impl TunnelEvents for Registration {
    fn started(&self, _: &TunnelHandle, _: Started) {
        // Only instances are sent calls; the core lets no such frame through to a gateway.
    }

    fn draining(&self, _: Vec<String>) {
        self.core.registry.drain(&self.instance);
        self.core.meters.instances_changed(&self.core.registry);
    }

    fn updated(&self, update: Update) {
        if let Some(Err(refusal)) = self.entitlement.as_ref().map(|it| it.check(&self.core.admission)) {
            return self.disown(&refusal);
        }
        self.core.registry.update(&self.instance, &update);
        self.core.meters.instances_changed(&self.core.registry);
    }

    fn closed(&self, close: &Close) {
        debug!(instance = %self.instance.id, why = why(close.code), reason = shown(&close.reason), "tunnel closed");
    }
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
    warn!(instance = %hello.instance_id, peer, reason = rejected.reason.as_str(), message = shown(&rejected.message), "instance rejected");
    say_rejected(rejected)
}

fn say_rejected(rejected: Rejected) -> Response<tonic::body::Body> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let message = encode_welcome(&Welcome::Rejected(rejected));
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    grpc(tonic::body::Body::new(body))
}

fn bad_hello(core: &GatewayCore, peer: &str, why: &str) -> Response<tonic::body::Body> {
    core.meters.unreadable.increment(1);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::sync::Mutex;

    use grpcrouter_protocol::{CallId, OpenCall, encode_hello};
    use http_body_util::StreamBody;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::{
        gateway::{registry::hello, tests::gateway},
        tunnel::{CallEvent, CallSink},
    };

    /// Writes down what its call is told.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<String>>);

    impl CallSink for Told {
        fn bind(&self, _: CallId) {}

        fn deliver(&self, _: CallId, event: CallEvent) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }

    /// A stream that says this Hello and nothing else, for ever.
    async fn accepted(
        core: &Arc<GatewayCore>,
        hello: &Hello,
    ) -> RegisterStream<impl Body<Data = Bytes, Error = Infallible> + use<>> {
        let first = tokio_stream::once(Ok::<_, Infallible>(http_body::Frame::data(encode_hello(hello))));
        let body = StreamBody::new(first.chain(tokio_stream::pending()));
        let request = Request::post(REGISTER_PATH).header(CONTENT_TYPE, "application/grpc").body(body).unwrap();
        register(core.clone(), request).await.1.unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_is_never_carried_ends_the_calls_that_were_sent_there() {
        let gateway = gateway();
        let stream = accepted(gateway.core(), &hello("a", "shop.Orders")).await;
        let told = Arc::new(Told::default());
        let tunnel = stream.registration.instance.tunnel.clone();
        tunnel.open(OpenCall::default(), told.clone()).unwrap();
        assert_eq!(gateway.stats().instances, 1);

        drop(stream);

        let told = told.0.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert!(told.iter().all(|event| event.starts_with("Ended(Lost(NotSent(")), "{told:?}");
        assert_eq!((gateway.stats().tunnels, tunnel.open_calls()), (0, 0));
        let again = tunnel.open(OpenCall::default(), Arc::new(Told::default()));
        assert!(matches!(again, Err((grpcrouter_protocol::OpenCallError::Closed, _))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_another_took_over_ends_once_its_calls_have_and_nothing_is_left_running() {
        let gateway = gateway();
        let core = gateway.core();
        let first = accepted(core, &hello("a", "shop.Orders")).await;
        let instance = first.registration.instance.clone();
        let told = Arc::new(Told::default());
        instance.tunnel.open(OpenCall::default(), told.clone()).unwrap();

        let second = accepted(core, &hello("a", "shop.Orders")).await;
        let mut carried = Box::pin(first.carry());

        assert!(tokio::time::timeout(Duration::from_secs(1), carried.as_mut()).await.is_err());
        assert!(told.0.lock().unwrap().is_empty());
        // Its call ends; it is then closed by its own stream and no task beside it.
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
        instance.tunnel.cancel(CallId::from_raw(0), grpcrouter_protocol::CancelReason::ClientGone);
        tokio::time::timeout(Duration::from_secs(60), carried).await.unwrap();
        assert_eq!(gateway.stats().tunnels, 1);
        drop(second);
        assert_eq!(gateway.stats().tunnels, 0);
    }
}
