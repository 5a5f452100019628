//! What a gateway says of itself and of what it routes, while instances come, change and go.

use grpcrouter_protocol::{Health, Time, Update};
use grpcrouter_runtime::{Gateway, ServiceRoutes};
use grpcrouter_tests::{
    by_hand::ByHand,
    probe::say,
    world::{TestBackend, TestGateway, eventually},
};
use myservice::proto::{Method1Request, my_service_router::MyServiceRouter};
use tonic::transport::{Server, server::TcpIncoming};

use super::*;
use ServingStatus::{NotServing, ServiceUnknown, Serving};

#[tokio::test]
async fn a_service_serves_while_an_instance_takes_its_calls_and_the_gateway_always() {
    let gateway = TestGateway::start().await;
    let mut asker = Asker::of(gateway.address).await;
    assert_eq!((asker.check("").await, asker.check(SERVICE).await), (Ok(Serving), Ok(NotServing)));

    let backend = TestBackend::start(&gateway, "a").await;
    assert_eq!((asker.check("").await, asker.check(SERVICE).await), (Ok(Serving), Ok(Serving)));

    backend.stop().await;
    gateway.instances(0).await;
    assert_eq!((asker.check("").await, asker.check(SERVICE).await), (Ok(Serving), Ok(NotServing)));
    drop(asker);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_watch_tells_how_it_stands_and_then_each_change_and_nothing_else() {
    let gateway = TestGateway::start().await;
    let mut asker = Asker::of(gateway.address).await;
    let mut watch = asker.watch(SERVICE).await.unwrap();
    assert_eq!(watch.next().await, Ok(NotServing));

    let first = TestBackend::start(&gateway, "a").await;
    assert_eq!(watch.next().await, Ok(Serving));

    // Another one changes nothing, whether it comes or goes.
    let second = TestBackend::start(&gateway, "b").await;
    first.stop().await;
    gateway.instances(1).await;
    let backend = TestBackend::start(&gateway, "a").await;
    assert!(watch.is_quiet().await);

    second.stop().await;
    backend.stop().await;
    assert_eq!(watch.next().await, Ok(NotServing));
    drop((watch, asker));
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn an_instance_that_says_so_or_drains_does_not_count() {
    let gateway = TestGateway::start().await;
    let mut asker = Asker::of(gateway.address).await;
    let mut watch = asker.watch(SERVICE).await.unwrap();
    assert_eq!(watch.next().await, Ok(NotServing));
    let mut hand = ByHand::register(gateway.address, "hand").await.unwrap();
    assert_eq!(watch.next().await, Ok(Serving));

    for (version, health, status) in [(1, Health::NotServing, NotServing), (2, Health::Serving, Serving)] {
        let update = Update {
            version,
            health,
            weight: 1,
            labels: Default::default(),
            load_permille: 0,
            not_serving: Vec::new(),
        };
        hand.tunnel.update(update, Time::default());
        hand.transmit().unwrap();
        assert_eq!(watch.next().await, Ok(status));
        assert_eq!(asker.check(SERVICE).await, Ok(status));
    }

    hand.drain();
    hand.transmit().unwrap();
    assert_eq!(watch.next().await, Ok(NotServing));
    hand.die();
    drop((watch, asker));
    gateway.instances(0).await;
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_service_is_known_by_the_name_that_clients_call_and_by_the_one_that_instances_register() {
    let routes = ServiceRoutes::new("shop.Front").target(SERVICE).unary("Method1");
    let gateway = TestGateway::of(Gateway::builder().add_service(routes)).await;
    let mut asker = Asker::of(gateway.address).await;
    assert_eq!((asker.check("shop.Front").await, asker.check(SERVICE).await), (Ok(NotServing), Ok(NotServing)));

    let backend = TestBackend::start(&gateway, "a").await;
    assert_eq!((asker.check("shop.Front").await, asker.check(SERVICE).await), (Ok(Serving), Ok(Serving)));
    drop(asker);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn of_an_unknown_service_check_says_not_found_and_a_watch_stays_open() {
    let gateway = TestGateway::start().await;
    let mut asker = Asker::of(gateway.address).await;
    let mut known = asker.watch(SERVICE).await.unwrap();
    assert_eq!(known.next().await, Ok(NotServing));

    for name in ["shop.Nothing", "myservice", "/myservice.MyService", "\u{e9}", "grpcrouter.Router"] {
        assert_eq!(asker.check(name).await, Err(Code::NotFound), "{name}");
    }
    let mut unknown = asker.watch("shop.Nothing").await.unwrap();
    assert_eq!(unknown.next().await, Ok(ServiceUnknown));

    let backend = TestBackend::start(&gateway, "a").await;
    assert_eq!(known.next().await, Ok(Serving));
    assert!(unknown.is_quiet().await);
    drop((known, unknown, asker));
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_gateway_that_drains_says_so_at_once_and_ends_its_watches_with_itself() {
    let gateway = TestGateway::start_with(|builder| builder.drain_timeout(PATIENCE)).await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut asker = Asker::of(gateway.address).await;
    let mut watches = Vec::new();
    for (service, status) in [("", Serving), (SERVICE, Serving), ("shop.Nothing", ServiceUnknown)] {
        let mut watch = asker.watch(service).await.unwrap();
        assert_eq!(watch.next().await, Ok(status));
        watches.push(watch);
    }
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.method1(Method1Request { text: say::STALL.into() }).await });
    backend.probe.saw("method1 begins", 1).await;

    let stats = gateway.gateway.clone();
    let stopped = gateway.begin_stop();

    assert_eq!((watches[0].next().await, watches[1].next().await), (Ok(NotServing), Ok(NotServing)));
    // The call holds the gateway; the watches do not.
    for watch in &mut watches {
        assert_eq!(watch.next().await, Err(Code::Unavailable));
    }
    assert_eq!(stats.stats().calls, 1);
    call.abort();
    drop((watches, asker));
    stopped.await.unwrap().unwrap();
    backend.kill().await;
}

#[tokio::test]
async fn watches_alone_do_not_hold_a_gateway_that_drains() {
    let gateway = TestGateway::start_with(|builder| builder.drain_timeout(6 * PATIENCE)).await;
    let mut asker = Asker::of(gateway.address).await;
    let mut watch = asker.watch("").await.unwrap();
    assert_eq!(watch.next().await, Ok(Serving));

    timeout(PATIENCE, gateway.begin_stop()).await.expect("it stops").unwrap().unwrap();

    assert_eq!((watch.next().await, watch.next().await), (Ok(NotServing), Err(Code::Unavailable)));
}

#[tokio::test]
async fn health_can_be_turned_off_and_left_to_a_router_of_the_users_own() {
    let gateway = TestGateway::start_with(|builder| builder.health(false)).await;
    let mut asker = Asker::of(gateway.address).await;
    assert_eq!(asker.check("").await, Err(Code::Unimplemented));
    drop(asker);
    gateway.stop(Vec::new()).await;

    // Nobody has registered the user's own: were it the gateway's, it would answer.
    let own = ServiceRoutes::new("grpc.health.v1.Health").unary("Check").server_streaming("Watch");
    let gateway = TestGateway::start_with(|builder| builder.add_service(own)).await;
    let mut asker = Asker::of(gateway.address).await;
    assert_eq!(asker.check("").await, Err(Code::Unavailable));
    drop(asker);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_server_of_the_users_own_can_have_the_gateways_health() {
    let gateway = Gateway::builder().add_router::<MyServiceRouter>().build().unwrap();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
    let address = incoming.local_addr().unwrap();
    let services = Server::builder().add_service(gateway.register_service()).add_service(gateway.health_service());
    let server = tokio::spawn(services.serve_with_incoming(incoming));
    let mut asker = Asker::of(address).await;
    let mut watch = asker.watch(SERVICE).await.unwrap();
    assert_eq!(watch.next().await, Ok(NotServing));

    let backend = TestBackend::dial(&format!("http://{address}"), "a");
    assert_eq!(watch.next().await, Ok(Serving));
    assert_eq!(asker.check("").await, Ok(Serving));

    gateway.drain().await;
    assert_eq!((watch.next().await, watch.next().await), (Ok(NotServing), Err(Code::Unavailable)));
    eventually("the instance is gone", || gateway.stats().tunnels == 0).await;
    server.abort();
    backend.kill().await;
}
