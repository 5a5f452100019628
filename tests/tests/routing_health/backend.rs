//! What a backend says of itself: to its gateways, which send it no call while it cannot serve, and at its own port.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use ServingStatus::{NotServing, ServiceUnknown, Serving};
use grpcrouter_runtime::{Backend, InstanceState, ServiceRoutes};
use grpcrouter_tests::{
    probe::{Probe, say},
    world::{TestBackend, TestGateway},
};
use http::{Request, Response};
use myservice::proto::{
    Method1Request, Method2Request, my_service_client::MyServiceClient, my_service_server::MyServiceServer,
};
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use super::*;

#[tokio::test]
async fn an_instance_that_cannot_serve_gets_no_new_call_and_finishes_what_it_has() {
    let gateway = TestGateway::start().await;
    let ill = TestBackend::start(&gateway, "ill").await;
    let mut client = gateway.client().await;
    let request = Method2Request { text: say::SLOW.into(), count: 5 };
    let mut running = client.method2(request).await.unwrap().into_inner();
    assert_eq!(running.message().await.unwrap().unwrap().index, 0);
    let well = TestBackend::start(&gateway, "well").await;
    let mut asker = Asker::of(gateway.address).await;
    let mut watch = asker.watch(SERVICE).await.unwrap();
    assert_eq!(watch.next().await, Ok(Serving));

    ill.backend.health().set_serving(SERVICE, false).unwrap();
    gateway.instances(1).await;

    for _ in 0..10 {
        assert_eq!(whoever(&mut client).await, Ok("well".to_owned()));
    }
    well.backend.health().set_serving("", false).unwrap();
    assert_eq!(watch.next().await, Ok(NotServing));
    assert_eq!(whoever(&mut client).await, Err(Code::Unavailable));
    let states: Vec<_> = gateway.gateway.instances().iter().map(|one| one.state).collect();
    assert_eq!(states, [InstanceState::NotServing; 2]);

    ill.backend.health().set_serving(SERVICE, true).unwrap();
    assert_eq!(watch.next().await, Ok(Serving));
    assert_eq!(whoever(&mut client).await, Ok("ill".to_owned()));
    for index in 1..5 {
        assert_eq!(running.message().await.unwrap().unwrap().index, index);
    }
    assert!(running.message().await.unwrap().is_none());
    drop((watch, asker, client, running));
    gateway.stop(vec![ill, well]).await;
}

#[tokio::test]
async fn a_service_that_cannot_serve_takes_none_of_the_others_with_it() {
    let orders = ServiceRoutes::new("shop.Orders").unary("Buy");
    let gateway = TestGateway::start_with(|builder| builder.add_service(orders)).await;
    let probe = Probe::new("a");
    let backend = Backend::builder()
        .gateway(gateway.uri())
        .instance_id("a")
        .add_service(MyServiceServer::new(probe.clone()))
        .add_service(Orders)
        .build()
        .unwrap();
    let health = backend.health();
    health.set_serving("shop.Orders", false).unwrap();
    let backend = TestBackend::serve(backend, probe);
    backend.backend.ready().await;
    gateway.instances(1).await;
    let mut asker = Asker::of(gateway.address).await;
    let (mut orders, mut service) = (asker.watch("shop.Orders").await.unwrap(), asker.watch(SERVICE).await.unwrap());
    let shown = || gateway.gateway.instances().remove(0);

    // Said in its first word.
    assert_eq!((orders.next().await, service.next().await), (Ok(NotServing), Ok(Serving)));
    assert_eq!((shown().state, shown().not_serving), (InstanceState::Ready, vec!["shop.Orders".to_owned()]));
    assert_eq!(whoever(&mut gateway.client().await).await, Ok("a".to_owned()));
    // And then by each update.
    health.set_serving("shop.Orders", true).unwrap();
    assert_eq!(orders.next().await, Ok(Serving));
    health.set_serving(SERVICE, false).unwrap();
    assert_eq!(service.next().await, Ok(NotServing));
    let request = Method1Request { text: "hello".to_owned() };
    let status = gateway.client().await.method1(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("1 connected, and each says that it does not serve"), "{status}");
    assert_eq!((gateway.gateway.stats().instances, asker.check("shop.Orders").await), (1, Ok(Serving)));
    // With none left it serves nobody at all.
    health.set_serving("shop.Orders", false).unwrap();
    assert_eq!(orders.next().await, Ok(NotServing));
    assert_eq!((gateway.gateway.stats().instances, shown().state), (0, InstanceState::NotServing));

    drop((orders, service, asker));
    gateway.stop(vec![backend]).await;
}

/// A service by name alone: nobody calls it.
#[derive(Clone)]
struct Orders;

impl NamedService for Orders {
    const NAME: &'static str = "shop.Orders";
}

impl Service<Request<Body>> for Orders {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(tonic::Status::unimplemented("nobody calls it").into_http()))
    }
}

#[tokio::test]
async fn a_backend_that_was_ill_before_it_dialled_says_so_in_its_first_word() {
    let gateway = TestGateway::start().await;
    let mut changes = gateway.gateway.watch();
    let probe = Probe::new("a");
    let backend = Backend::builder()
        .gateway(gateway.uri())
        .instance_id("a")
        .label("zone", "z")
        .add_service(MyServiceServer::new(probe.clone()))
        .build()
        .unwrap();
    backend.health().set_serving(SERVICE, false).unwrap();

    let backend = TestBackend::serve(backend, probe);

    let joined = timeout(PATIENCE, changes.next()).await.unwrap();
    assert!(
        matches!(&joined, Some(grpcrouter_runtime::InstanceChange::Joined(one)) if one.state == InstanceState::NotServing),
        "{joined:?}"
    );
    backend.backend.ready().await;
    backend.backend.health().set_serving(SERVICE, true).unwrap();
    gateway.instances(1).await;
    // What else it said of itself stays.
    let one = &gateway.gateway.instances()[0];
    assert_eq!((one.labels["zone"].as_str(), one.weight), ("z", 1));
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_backend_answers_for_itself_at_its_own_port() {
    let (backend, address) = direct().await;
    let health = backend.backend.health();
    let mut asker = Asker::of(address).await;
    let (mut whole, mut service) = (asker.watch("").await.unwrap(), asker.watch(SERVICE).await.unwrap());
    assert_eq!((whole.next().await, service.next().await), (Ok(Serving), Ok(Serving)));
    let mut unknown = asker.watch("shop.Nothing").await.unwrap();
    assert_eq!(unknown.next().await, Ok(ServiceUnknown));
    assert_eq!(asker.check("shop.Nothing").await, Err(Code::NotFound));

    health.set_serving(SERVICE, false).unwrap();
    assert_eq!(service.next().await, Ok(NotServing));
    assert_eq!((asker.check("").await, asker.check(SERVICE).await), (Ok(Serving), Ok(NotServing)));
    assert!(whole.is_quiet().await);
    health.set_serving(SERVICE, true).unwrap();
    assert_eq!(service.next().await, Ok(Serving));
    health.set_serving("", false).unwrap();
    assert_eq!((whole.next().await, service.next().await), (Ok(NotServing), Ok(NotServing)));
    assert!(health.set_serving("shop.Nothing", true).is_err());
    // It is said, and not enforced: who calls directly knows better.
    let mut client = MyServiceClient::connect(format!("http://{address}")).await.unwrap();
    assert_eq!(whoever(&mut client).await, Ok("direct".to_owned()));

    health.set_serving("", true).unwrap();
    assert_eq!((whole.next().await, service.next().await), (Ok(Serving), Ok(Serving)));
    drop((whole, service, unknown, asker, client));
    backend.stop().await;
}

#[tokio::test]
async fn a_backend_that_stops_says_so_at_its_own_port_and_is_not_held_by_who_watches() {
    let (backend, address) = direct().await;
    let mut asker = Asker::of(address).await;
    let (mut whole, mut service) = (asker.watch("").await.unwrap(), asker.watch(SERVICE).await.unwrap());
    assert_eq!((whole.next().await, service.next().await), (Ok(Serving), Ok(Serving)));

    // Its drain timeout is longer than that.
    timeout(PATIENCE, backend.begin_stop()).await.expect("it stops").unwrap().unwrap();

    for watch in [&mut whole, &mut service] {
        assert_eq!((watch.next().await, watch.next().await), (Ok(NotServing), Err(Code::Unavailable)));
    }
}

/// A backend that is called at its own port.
async fn direct() -> (TestBackend, SocketAddr) {
    let probe = Probe::new("direct");
    let backend = Backend::builder()
        .listen("127.0.0.1:0")
        .add_service(MyServiceServer::new(probe.clone()))
        .drain_timeout(6 * PATIENCE)
        .build()
        .unwrap();
    let backend = TestBackend::serve(backend, probe);
    timeout(PATIENCE, backend.backend.ready()).await.expect("it listens");
    let address = backend.backend.local_addr().unwrap();
    (backend, address)
}

/// Who answers a call.
async fn whoever(client: &mut MyServiceClient<Channel>) -> Result<String, Code> {
    let answer = client.method1(Method1Request { text: "t".into() }).await;
    answer.map(|answer| answer.into_inner().instance_id).map_err(|status| status.code())
}
