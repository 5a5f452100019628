//! Which services an upstream has, found by its reflection.

use grpcrouter_runtime::{Agent, Backend, Gateway, ServiceRoutes, Upstream};
use grpcrouter_tests::world::{PATIENCE, TestGateway, eventually};
use myservice::proto::my_service_router::FILE_DESCRIPTOR_SET;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::SERVICE;
use crate::raw_upstream::RawUpstream;
use crate::world::{Server, TestAgent, With};

#[tokio::test]
async fn services_and_their_descriptors_are_found_by_reflection() {
    // A gateway that knows where the calls go, and nothing of what they are.
    let routes = ServiceRoutes::new(SERVICE).unary("Method1").routing_key("instanceid");
    let gateway = TestGateway::of(Gateway::builder().add_service(routes)).await;
    let server = Server::start(With { reflection: true, health: true, ..With::default() }).await;

    let agent = TestAgent::start(&gateway, Upstream::new(server.address.to_string())).await;

    // Neither reflection nor health: those are the gateway's own.
    assert_eq!(agent.agent.services(), [SERVICE]);
    let services: Vec<_> = gateway.gateway.instances().into_iter().map(|instance| instance.services).collect();
    assert_eq!(services, [[SERVICE]]);
    let channel = Channel::from_shared(gateway.uri()).unwrap().connect().await.unwrap();
    let mut client = ServerReflectionClient::new(channel);
    let mut files = Vec::new();
    for _ in 0..6_000 {
        files = file_of(&mut client).await;
        if !files.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await; // waits because the gateway asks when it will
    }
    assert!(
        FILE_DESCRIPTOR_SET.windows(files[0].len()).any(|bytes| bytes == files[0]),
        "the file as the server has it"
    );
    drop(client);
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}

/// The file of the service, as a client asks a gateway for it.
async fn file_of(client: &mut ServerReflectionClient<Channel>) -> Vec<Vec<u8>> {
    let question = MessageRequest::FileContainingSymbol(SERVICE.into());
    let asked = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut answers = client.server_reflection_info(tokio_stream::once(asked)).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response.unwrap() {
        MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto,
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn an_upstream_without_reflection_says_what_to_do() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With::default()).await;

    let error = TestAgent::begin(&gateway, Upstream::new(server.address.to_string())).end().await.unwrap_err();

    assert_eq!(
        error.to_string(),
        format!(
            "the services of the upstream {} are not known: it serves no reflection (grpc.reflection.v1 or v1alpha); name \
             each of them (--service package.Service, or Upstream::service), or switch on the server's reflection",
            server.address
        )
    );
    server.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn an_upstream_that_comes_back_with_other_services_is_registered_anew() {
    let gateway = TestGateway::start().await;
    // First one that has no reflection but a name that was given; then the agent's own look.
    let server = Server::start(With { reflection: true, ..With::default() }).await;
    let address = server.address;
    let agent = TestAgent::start(&gateway, Upstream::new(address.to_string())).await;
    assert_eq!(agent.agent.services(), [SERVICE]);
    server.die().await;

    let mut builder = tonic::transport::Server::builder();
    let (_health, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(other_services())
        .build_v1alpha()
        .unwrap();
    let listener = crate::world::listen(address).await;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tokio::spawn(builder.add_service(health).add_service(reflection).serve_with_incoming(incoming));

    eventually("the other service is registered", || agent.agent.services() == ["shop.Orders"]).await;
    eventually("and is all that is", || {
        gateway.gateway.instances().iter().all(|instance| instance.services == ["shop.Orders"])
    })
    .await;
    agent.stop().await;
    server.abort();
    gateway.stop(vec![]).await;
}

fn other_services() -> &'static [u8] {
    // A file "shop.proto" with the package `shop` and the service `Orders`.
    b"\n\x24\n\x0ashop.proto\x12\x04shop2\x08\n\x06Ordersb\x06proto3"
}

#[tokio::test]
async fn what_listens_there_and_is_no_grpc_server_is_not_taken_for_one() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let gateway = TestGateway::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = TestAgent::begin(&gateway, Upstream::new(listener.local_addr().unwrap().to_string()).service(SERVICE));

    for _ in 0..3 {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 24];
        socket.read_exact(&mut bytes).await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    }

    assert_eq!(gateway.gateway.stats().instances, 0);
    agent.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_told_before_anything_is_dialled() {
    let settings = || Backend::builder().gateway("no address at all");

    let error = Agent::new(Upstream::new("127.0.0.1:1"), settings).unwrap_err();
    assert!(error.to_string().starts_with("gateway("), "{error}");

    let error = Agent::new(Upstream::new("127.0.0.1"), || Backend::builder().gateway("http://g:1")).unwrap_err();
    assert_eq!(error.to_string(), "upstream(\"127.0.0.1\") cannot be used: it has no port; write HOST:PORT");
}

#[tokio::test]
async fn a_backend_takes_an_upstream_as_a_service_and_must_be_told_which() {
    let gateway = TestGateway::start().await;
    let mut upstream = RawUpstream::start().await;
    let address = upstream.address.to_string();
    let build = |upstream| Backend::builder().gateway(gateway.uri()).upstream(upstream).build();
    let error = build(Upstream::new(&address)).unwrap_err().to_string();
    assert!(error.contains("it names no service; name each with .service("), "{error}");

    let backend = build(Upstream::new(&address).service(SERVICE)).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn({
        let backend = backend.clone();
        async move { backend.serve(stopped).await }
    });
    let mut connection = upstream.connection().await;
    tokio::select! {
        () = backend.ready() => {}
        () = connection.idle() => {}
    }
    let raw = gateway.raw().await;
    let call = tokio::spawn(async move {
        raw.unary("/myservice.MyService/Method1", &[], &myservice::proto::Method1Request::default()).await.unwrap()
    });
    connection.call().await.trailers_only(&[("grpc-status", "0")]);
    assert_eq!(call.await.unwrap().code(), 0);

    let _ = stop.send(());
    timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    drop((upstream, connection));
    gateway.stop(vec![]).await;
}
