//! Services that nobody declared to the gateway: carried from the day on which an instance registers them; and services
//! that nothing but their descriptors declare.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "observe/recorded.rs"]
#[expect(dead_code, reason = "the suite of metrics looks at more of it")]
mod recorded;

use grpcrouter_protocol::ServiceOffer;
use grpcrouter_runtime::{Gateway, GatewayBuilder, MethodRoutes, ServiceRoutes, Strategy};
use grpcrouter_tests::{
    by_hand::ByHand,
    echo::{
        EchoBackend,
        proto::{Ask, Told},
    },
    raw::{RawClient, RawEnd},
    world::{PATIENCE, TestGateway},
};
use prost::Message as _;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use self::recorded::Recorded;

const ECHO: &str = "routing.Echo";
const ONE: &str = "/routing.Echo/One";

fn any(routes: MethodRoutes<'_>) -> GatewayBuilder {
    Gateway::builder().any_service(routes)
}

async fn call(client: &RawClient, path: &str, headers: &[(&str, &str)]) -> RawEnd {
    let ask = Ask::default();
    tokio::time::timeout(PATIENCE, client.unary(path, headers, &ask)).await.expect("an end").unwrap()
}

fn who(end: &RawEnd) -> String {
    assert_eq!(end.code(), 0, "{}", end.message());
    Told::decode(&end.body[5..]).unwrap().instance
}

async fn end(gateway: TestGateway, client: RawClient, backends: Vec<EchoBackend>) {
    drop(client);
    gateway.idle().await;
    for backend in backends {
        backend.stop().await;
    }
    gateway.stop(Vec::new()).await;
}

/// Registers these names, with nothing behind them.
async fn register(gateway: &TestGateway, id: &str, services: impl IntoIterator<Item = String>) -> ByHand {
    let offer = |name: String| ServiceOffer {
        name,
        methods: Vec::new(),
        descriptor_hash: bytes::Bytes::new(),
        not_serving: false,
    };
    let mut hello = ByHand::introduction(id, 16).unwrap();
    hello.services = services.into_iter().map(offer).collect();
    ByHand::hello(gateway.address, &hello).await.unwrap()
}

#[tokio::test]
async fn a_service_is_called_from_its_first_instance_on_and_stays_known() {
    let gateway = TestGateway::of(any(MethodRoutes::new())).await;
    let client = gateway.raw().await;
    assert_eq!(call(&client, ONE, &[]).await.code(), 12, "nobody ever registered it");

    let a = EchoBackend::start(&gateway, "a").await;
    let b = EchoBackend::start(&gateway, "b").await;
    for method in ["One", "Down", "Up", "Both"] {
        let path = format!("/{ECHO}/{method}");
        let mut both = [who(&call(&client, &path, &[]).await), who(&call(&client, &path, &[]).await)];
        both.sort();
        assert_eq!(both.concat(), "ab", "{method}");
    }
    // The service's own word, as it knows its methods.
    assert_eq!(call(&client, "/routing.Echo/Other", &[]).await.code(), 12);
    for path in ["/routing.Echo/", "/routing.Echo", "/x/routing.Echo/One"] {
        assert_eq!(call(&client, path, &[]).await.code(), 12, "{path}");
    }

    a.stop().await;
    b.stop().await;
    gateway.instances(0).await;
    let gone = call(&client, ONE, &[]).await;
    assert_eq!(gone.code(), 14, "known, and nobody there: {}", gone.message());
    end(gateway, client, Vec::new()).await;
}

#[tokio::test]
async fn all_of_them_are_routed_as_the_gateway_was_told() {
    let by_key = TestGateway::of(any(MethodRoutes::new().routing_key("x-instance"))).await;
    let client = by_key.raw().await;
    let backends = vec![EchoBackend::start(&by_key, "a").await, EchoBackend::start(&by_key, "b").await];
    for id in ["a", "b", "a"] {
        assert_eq!(who(&call(&client, ONE, &[("x-instance", id)]).await), id);
    }
    assert_eq!(call(&client, ONE, &[("x-instance", "nobody")]).await.code(), 14);
    end(by_key, client, backends).await;

    let in_path = MethodRoutes::new().strategy(Strategy::PathBased).path_prefix("/to");
    let by_path = TestGateway::of(any(in_path)).await;
    let client = by_path.raw().await;
    let backends = vec![EchoBackend::start(&by_path, "a").await, EchoBackend::start(&by_path, "b").await];
    assert_eq!(who(&call(&client, "/to/b/routing.Echo/One", &[]).await), "b");
    for path in [ONE, "/to/routing.Echo/One"] {
        who(&call(&client, path, &[]).await);
    }
    assert_eq!(call(&client, "/from/b/routing.Echo/One", &[]).await.code(), 12);
    end(by_path, client, backends).await;

    let error = any(MethodRoutes::new().target("other.Service")).build().unwrap_err().to_string();
    assert!(error.starts_with("any_service(other.Service) cannot be used: "), "{error}");
    let error = any(MethodRoutes::new().strategy(Strategy::HeaderBased)).build().unwrap_err().to_string();
    assert!(error.contains("any_service") && error.contains("it needs a routing_key"), "{error}");
}

#[tokio::test]
async fn what_is_declared_is_routed_as_declared_and_all_else_is_learnt() {
    let declared = ServiceRoutes::new(ECHO).routing_key("tenant").unary("One").any_method();
    let gateway = TestGateway::of(any(MethodRoutes::new()).add_service(declared)).await;
    let client = gateway.raw().await;
    assert_eq!(call(&client, ONE, &[]).await.code(), 14, "declared, so known before its first instance");
    let backends = vec![EchoBackend::start(&gateway, "a").await, EchoBackend::start(&gateway, "b").await];

    assert_eq!(who(&call(&client, ONE, &[("tenant", "b")]).await), "b");
    assert_eq!(who(&call(&client, "/routing.Echo/Both", &[("tenant", "b")]).await), "b");
    // A method that is named has its kind, one that is not has any.
    let none = tokio::time::timeout(PATIENCE, async {
        let mut call = client.call(ONE, &[]).await.unwrap();
        call.request.send_data(bytes::Bytes::new(), true).unwrap();
        call.end().await.unwrap()
    });
    assert_eq!(none.await.unwrap().code(), 12);
    end(gateway, client, backends).await;
}

#[tokio::test]
async fn health_and_reflection_know_what_is_learnt() {
    let gateway = TestGateway::of(any(MethodRoutes::new())).await;
    let channel = Channel::from_shared(gateway.uri()).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    let question = || HealthCheckRequest { service: ECHO.to_owned() };
    let mut watch = health.watch(question()).await.unwrap().into_inner();
    let mut next = async || {
        let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("news");
        next.unwrap().unwrap().status()
    };
    assert_eq!(next().await, ServingStatus::ServiceUnknown);
    assert_eq!(listed(&channel).await, [""; 0]);

    // A stream that was open before is told.
    let echo = EchoBackend::start(&gateway, "a").await;
    assert_eq!(next().await, ServingStatus::Serving);
    assert_eq!(listed(&channel).await, [ECHO]);

    echo.stop().await;
    assert_eq!(next().await, ServingStatus::NotServing);
    assert_eq!(listed(&channel).await, [ECHO]);
    drop((health, watch, channel));
    gateway.stop(Vec::new()).await;
}

/// What reflection lists beside the gateway's own.
async fn listed(channel: &Channel) -> Vec<String> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let question = ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter([question])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names = list.service.into_iter().map(|service| service.name);
    names.filter(|name| !name.starts_with("grpc.")).collect()
}

#[tokio::test]
async fn nobody_can_take_the_gateways_own_names_or_make_up_ones_without_end() {
    let gateway = TestGateway::of(any(MethodRoutes::new())).await;
    let client = gateway.raw().await;
    let kept = ["grpc.health.v1.Health", "grpcrouter.Admin", "grpcrouter.Router", "no/name", "two words"];
    let first = register(&gateway, "first", kept.map(str::to_owned)).await;
    let answer = call(&client, "/grpc.health.v1.Health/Check", &[]).await;
    assert_eq!(answer.code(), 0, "the gateway itself: {}", answer.message());
    for path in ["/grpcrouter.Admin/ListInstances", "/two%20words/Buy"] {
        assert_eq!(call(&client, path, &[]).await.code(), 12, "{path}");
    }

    let many = register(&gateway, "many", (0..1_000).map(|n| format!("shop.Service{n}"))).await;
    let more = register(&gateway, "more", (1_000..2_000).map(|n| format!("shop.Service{n}"))).await;

    let known = async |n: u32| call(&client, &format!("/shop.Service{n}/Buy"), &[("grpc-timeout", "1m")]).await.code();
    assert_eq!((known(0).await, known(1_023).await), (4, 4), "an instance has them, and does not answer");
    assert_eq!((known(1_024).await, known(1_999).await), (12, 12), "there is no room for more");
    drop((first, many, more));
    end(gateway, client, Vec::new()).await;
}

#[tokio::test]
async fn the_methods_of_what_is_learnt_are_one_series() {
    let mut recorded = Recorded::new();
    let guard = recorded.record();
    let gateway = TestGateway::of(any(MethodRoutes::new())).await;
    let client = gateway.raw().await;
    let echo = EchoBackend::start(&gateway, "a").await;

    for n in 0..20 {
        call(&client, &format!("/routing.Echo/Made{n}Up"), &[]).await;
    }
    who(&call(&client, ONE, &[]).await);

    drop(client);
    gateway.idle().await;
    let started = recorded.counted("grpc_server_started_total");
    let of = |part: &str| started.iter().filter(|(name, _)| name.contains(part)).map(|(_, count)| *count).collect();
    let (any, made_up): (Vec<f64>, Vec<f64>) = (of("grpc_method=\"*\",grpc_service=\"routing.Echo\""), of("Made"));
    assert_eq!((any, made_up), (vec![21.0], vec![]), "{started:?}");
    drop(guard);
    echo.stop().await;
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn descriptors_alone_are_as_good_as_generated_code() {
    // The set that the generator put into the code of tests/proto/routing.proto.
    use grpcrouter_tests::echo::proto::by_metadata_router::FILE_DESCRIPTOR_SET;
    let gateway = TestGateway::of(Gateway::builder().add_descriptors(FILE_DESCRIPTOR_SET)).await;
    let client = gateway.raw().await;
    let backends = vec![EchoBackend::start(&gateway, "a").await, EchoBackend::start(&gateway, "b").await];

    for (path, entry) in [
        ("/routing.ByMetadata/One", ("tenant", "b")),
        ("/routing.ByBytes/One", ("tenant-bin", "Yg")),
        ("/api/v1/b/routing.ByPath/One", ("x", "y")),
        ("/routing.ByHeader/One", ("x-tenant", "b")),
        ("/routing.ByHeader/Up", ("cookie", "TENANT=b")),
    ] {
        assert_eq!(who(&call(&client, path, &[entry]).await), "b", "{path}");
    }
    // Without the option it is not served.
    assert_eq!(call(&client, ONE, &[]).await.code(), 12);
    end(gateway, client, backends).await;
}
