//! The router of a gateway in the same process: its typed client reaches backends that dialled out, over real sockets.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use grpcrouter_runtime::{Backend, Gateway};
use myservice::MyServiceImpl;
use myservice::proto::my_service_client::MyServiceClient;
use myservice::proto::my_service_router::MyServiceRouter;
use myservice::proto::my_service_server::{MyService, MyServiceServer};
use myservice::proto::{
    Method1Request, Method1Response, Method2Request, Method2Response, Method3Request, Method3Response, StreamRequest,
    StreamResponse,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

/// A gateway and its backends, in this process.
struct World {
    gateway: Gateway,
    address: SocketAddr,
    stops: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl World {
    async fn new() -> Self {
        let gateway = Gateway::builder().add_router::<MyServiceRouter>().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = gateway.clone();
        let task = tokio::spawn(async move { serving.serve(listener, stopped).await.unwrap() });
        Self { gateway, address, stops: vec![(stop, task)] }
    }

    async fn backend(&mut self, id: &str, service: impl MyService) -> Backend {
        let backend = Backend::builder()
            .gateway(format!("http://{}", self.address))
            .instance_id(id)
            .add_service(MyServiceServer::new(service).max_decoding_message_size(usize::MAX))
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = backend.serve(stopped);
        self.stops.push((stop, tokio::spawn(async move { serving.await.unwrap() })));
        timeout(PATIENCE, backend.ready()).await.unwrap();
        backend
    }

    fn client(&self) -> MyServiceClient<MyServiceRouter> {
        MyServiceRouter::new(&self.gateway).typed_client()
    }

    /// Waits until no call is left anywhere, and no byte of one.
    async fn idle(&self) {
        let is_idle = || {
            let stats = self.gateway.stats();
            stats.calls == 0 && stats.queued_bytes == 0
        };
        eventually("the gateway is idle", is_idle).await;
    }

    /// Ends it all, backends first.
    async fn end(mut self) {
        self.idle().await;
        while let Some((stop, task)) = self.stops.pop() {
            let _ = stop.send(());
            timeout(PATIENCE, task).await.unwrap().unwrap();
        }
        assert_eq!(self.gateway.stats().tunnels, 0);
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        eventually("no task left", || tasks() == 0).await;
    }
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await; // waits because nothing announces a counter's change
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn all_four_kinds_reach_a_backend() {
    let mut world = World::new().await;
    world.backend("a", MyServiceImpl::new("a")).await;
    let mut client = world.client();

    let answer = client.method1(Method1Request { text: "one".into() }).await.unwrap().into_inner();
    assert_eq!((answer.text.as_str(), answer.instance_id.as_str()), ("one", "a"));

    let answers = client.method2(Method2Request { text: "two".into(), count: 3 }).await.unwrap().into_inner();
    let indices: Vec<_> = answers.map(|answer| answer.unwrap().index).collect().await;
    assert_eq!(indices, [0, 1, 2]);

    let messages = ["x", "y", "z"].map(|text| Method3Request { text: text.into() });
    let answer = client.method3(tokio_stream::iter(messages)).await.unwrap().into_inner();
    assert_eq!((answer.count, answer.text.as_str()), (3, "x y z"));

    let (messages, queue) = mpsc::channel(1);
    let mut answers = client.stream_method(ReceiverStream::new(queue)).await.unwrap().into_inner();
    for index in 0..3 {
        messages.send(StreamRequest { text: "s".into() }).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().index, index);
    }
    drop(messages);
    assert_eq!(answers.message().await.unwrap(), None);
    world.end().await;
}

#[tokio::test]
async fn a_keyed_client_reaches_its_instance_and_no_other() {
    let mut world = World::new().await;
    for id in ["a", "b"] {
        world.backend(id, MyServiceImpl::new(id)).await;
    }
    let router = MyServiceRouter::new(&world.gateway);

    for _ in 0..4 {
        let request = Method1Request { text: "m".into() };
        let answer = router.typed_client_for("b".parse().unwrap()).method1(request).await.unwrap();
        assert_eq!(answer.into_inner().instance_id, "b");
    }
    let request = Method1Request { text: "m".into() };
    let refused = router.typed_client_for("z".parse().unwrap()).method1(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    world.end().await;
}

#[tokio::test]
async fn a_call_before_any_backend_is_unavailable() {
    let world = World::new().await;
    let status = world.client().method1(Method1Request { text: "m".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("no instance of myservice.MyService has registered yet"), "{status}");
    world.end().await;
}

#[tokio::test]
async fn messages_far_larger_than_a_window_arrive_whole_both_ways() {
    let mut world = World::new().await;
    world.backend("a", MyServiceImpl::new("a")).await;
    let mut client = world.client();
    let text: String = ('a'..='z').cycle().take(5_000_000).collect();

    let call = client.method1(Method1Request { text: text.clone() });
    let answer = timeout(PATIENCE, call).await.unwrap().unwrap().into_inner();
    assert!(answer.text == text);

    let messages: Vec<_> = (0..500).map(|_| Method3Request { text: text[..10_000].to_owned() }).collect();
    let call = client.method3(tokio_stream::iter(messages));
    let answer = timeout(PATIENCE, call).await.unwrap().unwrap().into_inner();
    assert_eq!((answer.count, answer.text.len()), (500, 500 * 10_001 - 1));
    world.end().await;
}

#[tokio::test]
async fn a_response_that_nobody_reads_waits_and_then_comes_whole() {
    let mut world = World::new().await;
    let backend = world.backend("a", MyServiceImpl::new("a")).await;
    let request = Method2Request { text: "x".repeat(10_000), count: 200 };

    let mut answers = world.client().method2(request).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().index, 0);
    // Another call gets by.
    let answer = world.client().method1(Method1Request { text: "by".into() }).await.unwrap().into_inner();
    assert_eq!(answer.text, "by");
    eventually("only the stream is left", || backend.stats().calls == 1).await;
    let rest = timeout(PATIENCE, answers.map(|answer| answer.unwrap().index).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(rest, (1..200).collect::<Vec<_>>());
    world.end().await;
}

#[tokio::test]
async fn dropping_a_call_drops_its_handler() {
    let mut world = World::new().await;
    let (stall, mut seen) = Stall::new();
    let backend = world.backend("a", stall).await;
    let mut client = world.client();
    let call = tokio::spawn(async move { client.method1(Method1Request::default()).await });
    assert_eq!(next(&mut seen).await, "begins");

    call.abort();

    assert_eq!(next(&mut seen).await, "dropped");
    eventually("the backend is idle", || backend.stats().calls == 0).await;
    world.end().await;
}

#[tokio::test]
async fn dropping_the_response_of_a_stream_drops_its_handler() {
    let mut world = World::new().await;
    let (stall, mut seen) = Stall::new();
    world.backend("a", stall).await;
    let (_messages, queue) = mpsc::channel(1);
    let answers = world.client().stream_method(ReceiverStream::new(queue)).await.unwrap();
    assert_eq!(next(&mut seen).await, "begins");

    drop(answers);

    assert_eq!(next(&mut seen).await, "dropped");
    world.end().await;
}

#[tokio::test]
async fn a_deadline_ends_the_call_on_both_sides() {
    let mut world = World::new().await;
    let (stall, mut seen) = Stall::new();
    world.backend("a", stall).await;
    let mut request = Request::new(Method1Request::default());
    request.set_timeout(Duration::from_secs(2));

    let status = world.client().method1(request).await.unwrap_err();

    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(next(&mut seen).await, "begins");
    assert_eq!(next(&mut seen).await, "dropped");
    world.end().await;
}

#[tokio::test]
async fn an_instance_that_is_lost_ends_its_calls_unavailable() {
    let mut world = World::new().await;
    let (stall, mut seen) = Stall::new();
    world.backend("a", stall).await;
    let mut client = world.client();
    let call = tokio::spawn(async move { client.method1(Method1Request::default()).await });
    assert_eq!(next(&mut seen).await, "begins");

    let (_stop, backend) = world.stops.pop().unwrap();
    backend.abort();

    assert_eq!(timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err().code(), Code::Unavailable);
    let gateway = world.gateway.clone();
    eventually("the tunnel is gone", || gateway.stats().tunnels == 0).await;
    world.end().await;
}

async fn next(seen: &mut mpsc::UnboundedReceiver<&'static str>) -> &'static str {
    timeout(PATIENCE, seen.recv()).await.unwrap().unwrap()
}

/// A service that takes calls and does not answer; it tells when a call begins and when its handler is dropped.
#[derive(Debug, Clone)]
struct Stall(mpsc::UnboundedSender<&'static str>);

impl Stall {
    fn new() -> (Self, mpsc::UnboundedReceiver<&'static str>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    fn begin(&self) -> Handler {
        let _ = self.0.send("begins");
        Handler(self.0.clone())
    }
}

struct Handler(mpsc::UnboundedSender<&'static str>);

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MyService for Stall {
    async fn method1(&self, _: Request<Method1Request>) -> Result<Response<Method1Response>, Status> {
        let _handler = self.begin();
        std::future::pending().await
    }

    type Method2Stream = Answers<Method2Response>;

    async fn method2(&self, _: Request<Method2Request>) -> Result<Response<Self::Method2Stream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn method3(&self, _: Request<Streaming<Method3Request>>) -> Result<Response<Method3Response>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    type StreamMethodStream = Answers<StreamResponse>;

    async fn stream_method(
        &self,
        _: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamMethodStream>, Status> {
        let handler = self.begin();
        Ok(Response::new(Box::pin(tokio_stream::pending().map(move |answer| {
            let _ = &handler;
            answer
        }))))
    }
}

/// For what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
