//! Each answer that is not the service's own: its code, its reason, and what it says of the call.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use grpcrouter_protocol::ResponsePart;
use grpcrouter_runtime::{
    Backend,
    codegen::{Kind, MethodSpec, OnMissingKey, Router, ServiceSpec},
};
use grpcrouter_tests::{
    by_hand::ByHand,
    probe::{Probe, say},
    raw::{RawClient, RawEnd},
    world::{PATIENCE, TestBackend, TestGateway, eventually, no_task_left},
};
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use myservice::proto::{Method1Request, my_service_server::MyServiceServer};
use prost::Message as _;
use tokio::{net::TcpListener, sync::oneshot, time::timeout};
use tonic::{Code, body::Body, transport::server::TcpIncoming};

use super::{Between, METHOD1, METHOD2, end, message, ok};

#[track_caller]
fn is(end: &RawEnd, code: Code, reason: &str, outcome: &str) {
    assert_eq!((end.http_status, end.code()), (200, code as i32), "{}", end.message());
    assert_eq!(end.reason(), (reason.to_owned(), outcome.to_owned()));
}

#[tokio::test]
async fn what_is_not_served_is_unimplemented_and_what_nobody_serves_now_is_unavailable() {
    let mut between = Between::new().await;
    is(&end(between.call("/no.Such/Method", &[]).await).await, Code::Unimplemented, "UNKNOWN_SERVICE", "NOT_SENT");
    is(
        &end(between.call("/myservice.MyService/NoSuch", &[]).await).await,
        Code::Unimplemented,
        "UNKNOWN_METHOD",
        "NOT_SENT",
    );
    let nobody = end(between.call(METHOD1, &[("instanceid", "nobody")]).await).await;
    is(&nobody, Code::Unavailable, "NO_INSTANCE_FOR_KEY", "NOT_SENT");
    let (_, served) = between.exchange(&[("instanceid", "by hand")], ok()).await;
    assert_eq!(served.code(), 0);
    let Between { gateway, instance, client, connection } = between;
    instance.die();
    gateway.instances(0).await;
    let none = client.unary(METHOD1, &[], &Method1Request::default()).await.unwrap();
    is(&none, Code::Unavailable, "NO_INSTANCE", "NOT_SENT");
    drop(client);
    connection.abort();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_wrong_number_of_messages_is_unimplemented_before_the_half_close() {
    let between = Between::new().await;
    for path in [METHOD1, METHOD2] {
        let mut none = between.client.call(path, &[]).await.unwrap();
        none.request.send_data(Bytes::new(), true).unwrap();
        is(&end(none).await, Code::Unimplemented, "WRONG_NUMBER_OF_MESSAGES", "NOT_SENT");

        let mut two = between.client.call(path, &[]).await.unwrap();
        two.request.send_data([message(), message()].concat().into(), false).unwrap();
        is(&end(two).await, Code::Unimplemented, "WRONG_NUMBER_OF_MESSAGES", "NOT_SENT");
    }
    between.stop().await;
}

#[tokio::test]
async fn a_second_message_that_comes_when_the_instance_has_the_first_may_have_been_executed() {
    let mut between = Between::new().await;
    for path in [METHOD1, METHOD2] {
        let mut late = between.client.call(path, &[]).await.unwrap();
        late.request.send_data(message(), false).unwrap();
        between.taken().await;

        late.request.send_data(message(), true).unwrap();

        is(&end(late).await, Code::Unimplemented, "WRONG_NUMBER_OF_MESSAGES", "MAYBE_EXECUTED");
    }
    between.stop().await;
}

#[tokio::test]
async fn an_instance_that_is_lost_with_the_call_may_have_executed_it() {
    let mut between = Between::new().await;
    let call = between.call(METHOD1, &[]).await;
    between.taken().await;
    let Between { gateway, instance, client, connection } = between;

    instance.die();

    is(&end(call).await, Code::Unavailable, "INSTANCE_LOST", "MAYBE_EXECUTED");
    drop(client);
    connection.abort();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn an_instance_that_refuses_a_call_by_key_leaves_it_not_started() {
    let mut between = Between::new().await;
    between.instance.drain();
    let call = between.call(METHOD1, &[("instanceid", "by hand")]).await;
    between.instance.receive().await.unwrap();
    between.instance.transmit().unwrap();

    is(&end(call).await, Code::Unavailable, "REFUSED", "NOT_STARTED");
    between.stop().await;
}

#[tokio::test]
async fn more_calls_than_the_instances_take_is_resource_exhausted() {
    let mut between = Between::with(|builder| builder.max_open_calls(1)).await;
    let first = between.call(METHOD1, &[]).await;
    let taken = between.taken().await;

    let second = end(between.call(METHOD1, &[]).await).await;

    is(&second, Code::ResourceExhausted, "TOO_MANY_CALLS", "NOT_SENT");
    between.instance.respond(taken.id, ok()).unwrap();
    assert_eq!(end(first).await.code(), 0);
    between.stop().await;
}

/// A batch of an instance, as far as this test writes one.
#[derive(Clone, PartialEq, prost::Message)]
struct Batch {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint64, tag = "2")]
    ack: u64,
    #[prost(message, repeated, tag = "3")]
    frames: Vec<Frame>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(uint64, tag = "1")]
    id: u64,
    /// Empty headers.
    #[prost(bytes = "bytes", optional, tag = "2")]
    headers: Option<Bytes>,
}

#[tokio::test]
async fn an_instance_that_breaks_the_protocol_in_a_call_is_an_internal_error_of_that_call_alone() {
    let gateway = TestGateway::start().await;
    let mut instance = ByHand::register(gateway.address, "by hand").await.unwrap();
    gateway.instances(1).await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let mut calls = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut call = client.call(METHOD2, &[]).await.unwrap();
        call.request.send_data(message(), true).unwrap();
        calls.push(call);
        ids.push(instance.started().await.unwrap().0);
    }

    // Headers twice.
    let frame = Frame { response: Some(Response { id: ids[0].get(), headers: Some(Bytes::new()) }) };
    let batch = Batch { seq: 1, ack: 0, frames: vec![frame.clone(), frame] };
    instance.write(&batch.encode_to_vec()).unwrap();

    let broken = end(calls.remove(0)).await;
    assert_eq!(broken.code(), Code::Internal as i32, "{}", broken.message());
    assert_eq!(broken.reason(), ("PROTOCOL_VIOLATION".to_owned(), "MAYBE_EXECUTED".to_owned()));
    assert_eq!(gateway.gateway.stats().calls, 1);
    instance.die();
    is(&end(calls.remove(0)).await, Code::Unavailable, "INSTANCE_LOST", "MAYBE_EXECUTED");
    drop(client);
    connection.abort();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_gateway_that_stops_says_so_to_the_calls_that_it_ends() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let mut call = client.call(METHOD1, &[]).await.unwrap();
    let stall = Method1Request { text: say::STALL.to_owned() };
    call.request.send_data(grpcrouter_tests::raw::frame(&stall), true).unwrap();
    backend.probe.saw("method1 begins", 1).await;

    let stopped = gateway.begin_stop();

    is(&end(call).await, Code::Unavailable, "SHUTTING_DOWN", "MAYBE_EXECUTED");
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    connection.abort();
    backend.kill().await;
    no_task_left().await;
}

/// Its calls must carry `shard-bin`.
struct StrictRouter;

impl Router for StrictRouter {
    const SPEC: &'static ServiceSpec = {
        static METHODS: &[MethodSpec] =
            &[MethodSpec::new("strict.Strict", "Do", "/strict.Strict/Do", Kind::ServerStreaming)];
        static SPEC: ServiceSpec = ServiceSpec::new("strict.Strict", "strict.Strict")
            .routing_key("shard-bin")
            .on_missing_key(OnMissingKey::Reject)
            .methods(METHODS);
        &SPEC
    };
}

#[tokio::test]
async fn a_routing_key_that_is_missing_or_malformed_is_an_invalid_argument_that_names_it() {
    let gateway = TestGateway::start_with(|builder| builder.add_router::<StrictRouter>()).await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let call = async |headers: &[(&str, &str)]| {
        client.unary("/strict.Strict/Do", headers, &Method1Request::default()).await.unwrap()
    };

    let missing = call(&[]).await;
    let malformed = call(&[("shard-bin", "!")]).await;
    let unknown = call(&[("shard-bin", "AAE")]).await;

    is(&missing, Code::InvalidArgument, "MISSING_ROUTING_KEY", "NOT_SENT");
    assert!(missing.message().contains("shard-bin (METADATA_BASED)"), "{}", missing.message());
    is(&malformed, Code::InvalidArgument, "MALFORMED_ROUTING_KEY", "NOT_SENT");
    assert!(malformed.message().contains("shard-bin (METADATA_BASED)"), "{}", malformed.message());
    is(&unknown, Code::Unavailable, "NO_INSTANCE", "NOT_SENT");
    drop(client);
    connection.abort();
    gateway.stop(Vec::new()).await;
}

/// A router of a later version of the service, whose method the backend does not have yet.
struct LaterRouter;

impl Router for LaterRouter {
    const SPEC: &'static ServiceSpec = {
        static METHODS: &[MethodSpec] =
            &[MethodSpec::new("later.Later", "Method9", "/later.Later/Method9", Kind::Unary)];
        static SPEC: ServiceSpec = ServiceSpec::new("later.Later", "myservice.MyService").methods(METHODS);
        &SPEC
    };
}

#[tokio::test]
async fn a_method_that_the_backend_is_too_old_for_is_answered_in_its_services_own_words() {
    let gateway = TestGateway::start_with(|builder| builder.add_router::<LaterRouter>()).await;
    let backend = TestBackend::start_with(&gateway, "old", |builder| builder.listen("127.0.0.1:0")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    let service = MyServiceServer::new(Probe::new("plain"));
    let server = tonic::transport::Server::builder().add_service(service);
    let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let mut ends = Vec::new();
    for (address, path) in [
        (gateway.address, "/later.Later/Method9"),
        (backend.backend.local_addr().unwrap(), "/myservice.MyService/Method9"),
        (plain, "/myservice.MyService/Method9"),
    ] {
        let (client, connection) = RawClient::connect(address).await.unwrap();
        let end = client.unary(path, &[], &Method1Request::default()).await.unwrap();
        assert_eq!((end.http_status, end.code()), (200, Code::Unimplemented as i32));
        assert_eq!(end.message(), "");
        // Who reads ErrorInfo sees that this is no answer of ours.
        assert!(!end.trailers.contains_key("grpc-status-details-bin"));
        let mut headers = end.headers;
        headers.remove("date");
        ends.push((end.body, headers));
        drop(client);
        connection.abort();
    }
    assert_eq!(ends[0], ends[2]);
    assert_eq!(ends[1], ends[2]);
    server.abort();
    gateway.stop(vec![backend]).await;
}

/// A service that answers something other than gRPC.
#[derive(Clone)]
struct Odd;

impl tonic::server::NamedService for Odd {
    const NAME: &'static str = "myservice.MyService";
}

impl tower_service::Service<http::Request<Body>> for Odd {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let header = |name: &str| request.headers().get(name).cloned();
        let mut response = http::Response::new(Body::empty());
        if let Some(status) = header("x-status") {
            *response.status_mut() = status.to_str().unwrap().parse().unwrap();
        }
        if let Some(content_type) = header("x-type") {
            response.headers_mut().insert("content-type", content_type);
        }
        let large = |name| Some("v".repeat(header(name)?.to_str().unwrap().parse().unwrap()).parse().unwrap());
        if let Some(value) = large("x-large") {
            response.headers_mut().insert("x-big", value);
        }
        if let Some(value) = large("x-trailers") {
            let ok = ("grpc-status".parse().unwrap(), http::HeaderValue::from_static("0"));
            let trailers = HeaderMap::from_iter([ok, ("x-big".parse().unwrap(), value)]);
            let body = Full::new(message()).with_trailers(std::future::ready(Some(Ok(trailers))));
            *response.body_mut() = Body::new(body);
        }
        std::future::ready(Ok(response))
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_grpc_is_told_apart_by_a_legal_status_from_both_doors() {
    let gateway = TestGateway::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let direct = listener.local_addr().unwrap();
    drop(listener);
    let backend = Backend::builder()
        .gateway(gateway.uri())
        .listen(direct.to_string())
        .instance_id("odd")
        .add_service(Odd)
        .build()
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(backend.serve(stopped));
    gateway.instances(1).await;
    for address in [gateway.address, direct] {
        let (client, connection) = RawClient::connect(address).await.unwrap();
        for (headers, code) in [
            (&[("x-status", "404")][..], Code::Unimplemented),
            (&[("x-status", "503")], Code::Unavailable),
            (&[("x-status", "401")], Code::Unauthenticated),
            (&[("x-status", "403")], Code::PermissionDenied),
            (&[("x-status", "400")], Code::Internal),
            (&[("x-status", "500")], Code::Unknown),
            (&[("x-type", "text/html")], Code::Internal),
            (&[("x-type", "application/grpc")], Code::Internal),
        ] {
            let end = client.unary(METHOD1, headers, &Method1Request::default()).await.unwrap();
            assert_eq!((end.http_status, end.code()), (200, code as i32), "{headers:?}: {}", end.message());
            assert_eq!(end.reason(), ("MALFORMED_RESPONSE".to_owned(), "MAYBE_EXECUTED".to_owned()));
        }
        let large = [("x-type", "application/grpc"), ("x-large", "20000")];
        let end = client.unary(METHOD1, &large, &Method1Request::default()).await.unwrap();
        assert!(end.message().starts_with("the response's initial metadata is too large"), "{}", end.message());
        is(&end, Code::ResourceExhausted, "TOO_LARGE", "MAYBE_EXECUTED");
        // Its messages are good; it is the end of the call that cannot be told.
        for (length, code) in [("32000", Code::Ok), ("33000", Code::ResourceExhausted)] {
            let trailers = [("x-type", "application/grpc"), ("x-trailers", length)];
            let mut call = client.call(METHOD1, &trailers).await.unwrap();
            call.request.send_data(message(), true).unwrap();
            let end = timeout(PATIENCE, call.end()).await.unwrap().unwrap();
            assert_eq!((end.body.clone(), end.code()), (message(), code as i32), "{length}");
            if code == Code::Ok {
                assert_eq!(end.trailers["x-big"].len(), 32_000);
            } else {
                is(&end, code, "TOO_LARGE", "MAYBE_EXECUTED");
                assert!(end.message().starts_with("the response's trailers is too large"), "{}", end.message());
                assert!(!end.trailers.contains_key("x-big"));
            }
        }
        drop(client);
        connection.abort();
    }
    stop.send(()).unwrap();
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_backend_without_the_service_that_it_is_asked_for_says_so() {
    // Called by its own port, for a gateway would not have picked it.
    let backend = Backend::builder().listen("127.0.0.1:0").add_service(Odd).build().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn({
        let backend = backend.clone();
        async move { backend.serve(stopped).await }
    });
    eventually("it listens", || backend.local_addr().is_some()).await;
    let (client, connection) = RawClient::connect(backend.local_addr().unwrap()).await.unwrap();

    let end = client.unary("/other.Service/Do", &[], &Method1Request::default()).await.unwrap();

    is(&end, Code::Unimplemented, "UNKNOWN_SERVICE", "NOT_SENT");
    drop(client);
    connection.abort();
    stop.send(()).unwrap();
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    no_task_left().await;
}

#[tokio::test]
async fn data_without_headers_is_given_legal_headers() {
    let mut between = Between::new().await;
    let part = ResponsePart { headers: None, data: message(), ..ok() };
    let (_, end) = between.exchange(&[], part).await;
    assert_eq!((end.code(), end.body), (0, message()));
    assert_eq!(end.headers["content-type"], "application/grpc");
    between.stop().await;
}
