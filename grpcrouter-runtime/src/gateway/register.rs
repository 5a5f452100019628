//! Where an instance registers: reads its Hello, answers Welcome, and carries its tunnel while the stream lives.

mod registered;
mod resume;

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
    Accepted, Agreement, Config, Epoch, Hello, Rejected, Side, TokenHash, TunnelId, Welcome, decode_hello,
    encode_close, encode_welcome,
};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tonic::server::NamedService;
use tower_service::Service;
use tracing::warn;

pub(super) use self::resume::Resumable;
use self::{
    registered::{OnStream, Registration},
    resume::{NotResumed, fresh_token},
};
use super::{
    GatewayCore,
    admission::{self, Admitted},
    learn::learn,
    peer::Peer,
    registry::Instance,
};
use crate::{
    metadata,
    status::{Answer, shown},
    tunnel::{Messages, TunnelBody, TunnelHandle, attach},
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
    if let Some(resume) = &hello.resume {
        return match self::resume::resume(&core, &hello, resume, entry, from.as_ref()) {
            Ok((resumed, registration)) => {
                let at = resumed.epoch;
                let tunnel = registration.instance.tunnel.clone();
                let body = TunnelBody::new(tunnel, at, encode_welcome(&Welcome::Resumed(resumed)), Side::Gateway);
                let stream = RegisterStream { incoming, stream: OnStream::new(registration, at) };
                (grpc(tonic::body::Body::new(body)), Some(stream))
            }
            Err(NotResumed::Rejected(rejected)) => {
                core.meters.rejected.increment(1);
                (reject(&peer, &hello, rejected), None)
            }
            Err(NotResumed::Closed(close)) => {
                core.meters.rejected.increment(1);
                (say(encode_close(Side::Gateway, &close)), None)
            }
        };
    }
    let (admitted, entitlement) = match admission::admit(&core, &hello, entry) {
        Ok(Admitted { agreement, entitlement }) => (agreement, entitlement),
        Err(rejected) => {
            core.meters.rejected.increment(1);
            return (reject(&peer, &hello, rejected), None);
        }
    };
    let gateways = core.peers.list();
    let (welcome, config, token) = accept(core.process, &core.limits.tunnel, admitted, gateways.clone());
    let tunnel_id = welcome.tunnel_id;
    let hello = Hello { max_calls: u64::from(config.max_open_calls), ..hello };
    learn(&core, &hello);
    let tunnel = TunnelHandle::gateway(config, &core.windows, core.meters.tunnel.clone(), token);
    let welcome = encode_welcome(&Welcome::Accepted(welcome));
    let body = TunnelBody::new(tunnel.clone(), Epoch::FIRST, welcome, Side::Gateway);
    let principal = entitlement.as_ref().map(|entitlement| entitlement.principal().clone());
    let instance = Arc::new(Instance::new(hello, tunnel, peer).registered_as(principal));
    let registration = Registration::new(core, instance, tunnel_id, entitlement);
    registration.catch_up(&gateways);
    let stream = RegisterStream { incoming, stream: OnStream::new(registration, Epoch::FIRST) };
    (grpc(tonic::body::Body::new(body)), Some(stream))
}

/// The instance's side of an accepted stream.
pub(super) struct RegisterStream<B> {
    incoming: Messages<Pin<Box<B>>>,
    stream: OnStream,
}

impl<B> RegisterStream<B>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    /// Carries the tunnel until the stream is over, or another one has the tunnel.
    ///
    /// # Cancel safety
    /// Dropping the future is the loss of the stream: the tunnel is kept for the resume window.
    pub(super) async fn carry(mut self) {
        let Self { incoming, stream } = &mut self;
        let registration = stream.registration();
        let detached = tokio::select! {
            biased;
            detached = attach(&registration.instance.tunnel, stream.at(), incoming, registration) => detached,
            never = registration.replaced() => match never {},
            never = registration.learn() => match never {},
            never = registration.disowned() => match never {},
        };
        self.stream.ended(detached.to_string());
    }
}

/// What the instance is told, what holds for its tunnel, and what resumes that.
fn accept(
    process: [u8; 8],
    limits: &Config,
    agreement: Agreement,
    gateways: Vec<String>,
) -> (Accepted, Config, TokenHash) {
    let config = Config { max_open_calls: agreement.max_open_calls, ..limits.clone() };
    let fresh = fresh_token();
    let accepted = Accepted {
        version: agreement.version,
        features: agreement.features,
        tunnel_id: tunnel_id(process),
        // Where nothing is resumed nobody needs one.
        resume_token: if config.resume_window.is_zero() { Bytes::new() } else { fresh.token },
        heartbeat: config.heartbeat,
        resume_window: config.resume_window,
        limits: config.limits(),
        gateways,
    };
    (accepted, config, fresh.hash)
}

/// By chance, behind what tells this gateway from others.
fn tunnel_id(process: [u8; 8]) -> TunnelId {
    let own: [u8; 8] = rand::random();
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(process.into_iter().chain(own)) {
        *to = from;
    }
    TunnelId(id)
}

fn reject(peer: &str, hello: &Hello, rejected: Rejected) -> Response<tonic::body::Body> {
    warn!(instance = %hello.instance_id, peer, reason = rejected.reason.as_str(), message = shown(&rejected.message), "instance rejected");
    say_rejected(rejected)
}

fn say_rejected(rejected: Rejected) -> Response<tonic::body::Body> {
    say(encode_welcome(&Welcome::Rejected(rejected)))
}

/// The one message of a stream that ends with it.
fn say(message: Bytes) -> Response<tonic::body::Body> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::sync::Mutex;

    use grpcrouter_protocol::{CallId, OpenCall, encode_hello};
    use http_body_util::StreamBody;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::{
        gateway::{
            Gateway,
            registry::hello,
            tests::{OrdersRouter, gateway},
        },
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
    async fn a_stream_that_is_never_carried_ends_the_calls_that_were_sent_there_where_nothing_is_kept() {
        let gateway = Gateway::builder().add_router::<OrdersRouter>().resume_window(Duration::ZERO).build().unwrap();
        let stream = accepted(gateway.core(), &hello("a", "shop.Orders")).await;
        let told = Arc::new(Told::default());
        let tunnel = stream.stream.registration().instance.tunnel.clone();
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
    async fn processes_that_come_again_after_their_connection_fell_silent_are_not_taken_for_two_that_fight() {
        let gateway = gateway();
        for restart in 0..8u8 {
            let mut hello = hello("a", "shop.Orders");
            hello.incarnation.0 = [restart; 16];
            let stream = accepted(gateway.core(), &hello).await;
            tokio::spawn(stream.carry());

            // Not a byte comes from it. It is pinged once, and is not given up yet.
            tokio::time::sleep(Duration::from_secs(11)).await; // waits because silence is under test, in paused time
            assert_eq!(gateway.stats().instances, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_another_took_over_ends_once_its_calls_have_and_nothing_is_left_running() {
        let gateway = gateway();
        let core = gateway.core();
        let first = accepted(core, &hello("a", "shop.Orders")).await;
        let instance = first.stream.registration().instance.clone();
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
        // Lost before it was carried: kept as any other, as long as the window is.
        drop(second);
        assert_eq!((gateway.stats().tunnels, gateway.stats().instances), (1, 0));
        tokio::time::sleep(Duration::from_secs(16)).await; // waits because the window is under test, in paused time
        assert_eq!(gateway.stats().tunnels, 0);
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    }
}
