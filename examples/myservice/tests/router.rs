//! The generated router in its three uses, in memory: tonic's server trait, a tower service, the channel of a client.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use grpcrouter_runtime::codegen::{Bytes, Prefixed, Service, http};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use myservice::MyServiceImpl;
use myservice::proto::my_service_client::MyServiceClient;
use myservice::proto::my_service_router::{MyServiceRouter, SPEC};
use myservice::proto::my_service_server::{MyService, MyServiceServer};
use myservice::proto::{Method1Request, Method2Request, Method3Request, StreamRequest};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Request};

fn in_memory() -> MyServiceRouter<MyServiceServer<MyServiceImpl>> {
    MyServiceRouter::with_channel(MyServiceServer::new(MyServiceImpl::new("a")))
}

/// Serves until the test ends.
async fn serve(routes: Routes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

async fn client(address: SocketAddr) -> MyServiceClient<tonic::transport::Channel> {
    MyServiceClient::connect(format!("http://{address}")).await.unwrap()
}

#[test]
fn the_spec_says_what_the_proto_file_says() {
    assert_eq!((SPEC.name, SPEC.target), ("myservice.MyService", "myservice.MyService"));
    assert_eq!((SPEC.routing_key, SPEC.path_prefix), (Some("instanceid"), Some("/api/v1")));
    let paths: Vec<_> = SPEC.methods.iter().map(|method| method.path).collect();
    let service = "/myservice.MyService";
    assert_eq!(paths, ["Method1", "Method2", "Method3", "StreamMethod"].map(|method| format!("{service}/{method}")));
}

#[tokio::test]
async fn a_router_is_the_channel_of_a_typed_client_for_all_four_kinds() {
    let mut client = in_memory().typed_client();

    let answer = client.method1(Method1Request { text: "one".into() }).await.unwrap().into_inner();
    assert_eq!((answer.text.as_str(), answer.instance_id.as_str()), ("one", "a"));

    let answers = client.method2(Method2Request { text: "two".into(), count: 3 }).await.unwrap().into_inner();
    let indices: Vec<_> = answers.map(|answer| answer.unwrap().index).collect().await;
    assert_eq!(indices, [0, 1, 2]);

    let messages = ["x", "y", "z"].map(|text| Method3Request { text: text.into() });
    let answer = client.method3(tokio_stream::iter(messages)).await.unwrap().into_inner();
    assert_eq!((answer.count, answer.text.as_str()), (3, "x y z"));

    let messages = ["x", "y"].map(|text| StreamRequest { text: text.into() });
    let answers = client.stream_method(tokio_stream::iter(messages)).await.unwrap().into_inner();
    let texts: Vec<_> = answers.map(|answer| answer.unwrap().text).collect().await;
    assert_eq!(texts, ["x", "y"]);
}

#[tokio::test]
async fn a_router_is_the_services_own_server_trait_for_all_four_kinds() {
    let mut client = client(serve(Routes::new(MyServiceServer::new(in_memory()))).await).await;

    let answer = client.method1(Method1Request { text: "one".into() }).await.unwrap().into_inner();
    assert_eq!(answer.text, "one");
    let answers = client.method2(Method2Request { text: "two".into(), count: 3 }).await.unwrap().into_inner();
    assert_eq!(answers.collect::<Vec<_>>().await.len(), 3);
    let messages = ["x", "y"].map(|text| Method3Request { text: text.into() });
    assert_eq!(client.method3(tokio_stream::iter(messages)).await.unwrap().into_inner().text, "x y");
    let messages = ["x", "y"].map(|text| StreamRequest { text: text.into() });
    let answers = client.stream_method(tokio_stream::iter(messages)).await.unwrap().into_inner();
    assert_eq!(answers.collect::<Vec<_>>().await.len(), 2);
}

#[tokio::test]
async fn a_method_that_is_none_is_answered_with_the_nearest_name() {
    let request = http::Request::post("http://gateway/myservice.MyService/Metod1").body(Body::empty()).unwrap();

    let response = in_memory().call(request).await.unwrap();

    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.message(), "service myservice.MyService has no method Metod1; did you mean Method1?");
}

#[tokio::test]
async fn a_prefixed_router_is_served_under_its_prefix_beside_the_bare_path() {
    let router = in_memory();
    let address = serve(Routes::new(router.clone()).add_service(Prefixed(router))).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let origin = format!("http://{address}/api/v1").parse().unwrap();

    let bare = MyServiceClient::new(channel.clone()).method1(Method1Request { text: "bare".into() }).await.unwrap();
    let prefixed = MyServiceClient::with_origin(channel, origin).method1(Method1Request { text: "p".into() }).await;

    assert_eq!(bare.into_inner().text, "bare");
    assert_eq!(prefixed.unwrap().into_inner().text, "p");
}

#[tokio::test]
async fn a_message_above_four_mebibytes_crosses_the_typed_path() {
    let service = || MyServiceServer::new(MyServiceImpl::new("a")).max_decoding_message_size(usize::MAX);
    let router = MyServiceRouter::with_channel(service());
    let text = "x".repeat(5 << 20);

    let answer = MyService::method1(&router, Request::new(Method1Request { text: text.clone() })).await.unwrap();

    assert!(answer.into_inner().text == text);
}

#[tokio::test]
async fn a_clients_compression_stays_on_its_side_of_the_typed_path() {
    let (wire, mut seen) = Wire::new();
    let router = MyServiceRouter::with_channel(wire);
    let mut request = Request::new(Method1Request { text: "m".into() });
    request.metadata_mut().insert("grpc-accept-encoding", "gzip".parse().unwrap());
    request.metadata_mut().insert("x-mine", "stays".parse().unwrap());

    let _ = MyService::method1(&router, request).await;

    assert_eq!(seen.recv().await.unwrap(), Seen::Head { accept_encoding: None, mine: Some("stays".into()) });
}

/// What an instance sees of a request, byte by byte: not tonic's reading of it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Head { accept_encoding: Option<String>, mine: Option<String> },
    Frame,
    End,
    Broken,
}

#[derive(Debug, Clone)]
struct Wire(mpsc::UnboundedSender<Seen>);

impl Wire {
    fn new() -> (Self, mpsc::UnboundedReceiver<Seen>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }
}

impl NamedService for Wire {
    const NAME: &'static str = "myservice.MyService";
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let seen = self.0.clone();
        let header = |name| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
        let head = Seen::Head { accept_encoding: header("grpc-accept-encoding"), mine: header("x-mine") };
        let streams = request.uri().path().ends_with("StreamMethod");
        let mut body = request.into_body();
        let (answer, answers) = mpsc::channel::<Result<Frame<Bytes>, tonic::Status>>(1);
        // Reads on when the call is dropped: only the body tells how the request ended.
        let reading = tokio::spawn(async move {
            let _ = seen.send(head);
            loop {
                let event = match body.frame().await {
                    None => Seen::End,
                    Some(Ok(_)) => Seen::Frame,
                    Some(Err(_)) => Seen::Broken,
                };
                let last = event != Seen::Frame;
                let _ = seen.send(event);
                if last {
                    return;
                }
            }
        });
        Box::pin(async move {
            if streams {
                // Response headers at once, then nothing until the call is gone.
                tokio::spawn(async move { answer.closed().await });
                let body = Body::new(StreamBody::new(ReceiverStream::new(answers)));
                return Ok(http::Response::builder().header("content-type", "application/grpc").body(body).unwrap());
            }
            let _ = reading.await;
            Ok(tonic::Status::ok("").into_http())
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Ends,
    ResetsWithCancel,
    DropsTheCall,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_upload_that_ended_well_ends_well_at_the_instance() {
    for typed in [false, true] {
        for streams in [false, true] {
            for how in [How::Ends, How::ResetsWithCancel, How::DropsTheCall] {
                if streams && how == How::DropsTheCall {
                    // tonic's client keeps sending for a response that was dropped: it resets nothing.
                    continue;
                }
                let last = tokio::time::timeout(Duration::from_secs(60), last_seen(typed, streams, how)).await;
                let expected = if how == How::Ends { Seen::End } else { Seen::Broken };
                assert_eq!(last, Ok(expected), "typed: {typed}, both stream: {streams}, the client {how:?}");
            }
        }
    }
}

/// How the instance sees an upload end.
async fn last_seen(typed: bool, streams: bool, how: How) -> Seen {
    let (wire, mut seen) = Wire::new();
    let router = MyServiceRouter::with_channel(wire);
    let routes = if typed { Routes::new(MyServiceServer::new(router)) } else { Routes::new(router) };
    let mut client = client(serve(routes).await).await;

    let (messages, queue) = mpsc::channel(1);
    let cancel;
    let call = if streams {
        let mut request = Request::new(ReceiverStream::new(queue).map(|()| StreamRequest { text: "m".into() }));
        cancel = Some(request.cancellation_handle());
        tokio::spawn(async move {
            let mut answers = client.stream_method(request).await.unwrap().into_inner();
            while let Ok(Some(_)) = answers.message().await {}
        })
    } else {
        let mut request = Request::new(ReceiverStream::new(queue).map(|()| Method3Request { text: "m".into() }));
        cancel = Some(request.cancellation_handle());
        tokio::spawn(async move { drop(client.method3(request).await) })
    };
    messages.send(()).await.unwrap();
    while seen.recv().await.unwrap() != Seen::Frame {}

    match how {
        How::Ends => drop(messages),
        How::ResetsWithCancel => cancel.unwrap().cancel(),
        How::DropsTheCall => call.abort(),
    }
    loop {
        match seen.recv().await.unwrap() {
            Seen::Head { .. } | Seen::Frame => {}
            last => return last,
        }
    }
}
