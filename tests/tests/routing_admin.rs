//! grpcrouter.Admin over real sockets: who is here, who comes, changes and goes; and only where the owner listens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use grpcrouter_protocol::{Health, Time, Update};
use grpcrouter_runtime::{Gateway, ServeError};
use grpcrouter_tests::{
    admin::proto::{
        GetSplitRequest, Instance, InstanceEvent, InstanceState, ListInstancesRequest, SetSplitRequest, Share,
        WatchInstancesRequest, admin_client::AdminClient, instance_event::Kind,
    },
    by_hand::ByHand,
    world::{PATIENCE, TestBackend, TestGateway, eventually, tasks},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};
use tonic::{Code, Streaming, transport::Channel};

const SERVICE: &str = "myservice.MyService";

/// A gateway whose owner listens.
struct Place {
    gateway: TestGateway,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Place {
    async fn new() -> Self {
        // Who loses its connection is gone.
        let gateway = TestGateway::start_with(|builder| builder.resume_window(Duration::ZERO)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = gateway.gateway.clone();
        let task = tokio::spawn(async move { served.serve_admin(listener, stopped).await });
        Self { gateway, admin, stop, task }
    }

    async fn owner(&self) -> AdminClient<Channel> {
        AdminClient::new(channel(self.admin).await)
    }

    async fn stop(self, backends: Vec<TestBackend>) {
        let _ = self.stop.send(());
        timeout(PATIENCE, self.task).await.expect("it stops").unwrap().unwrap();
        self.gateway.stop(backends).await;
    }
}

async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    // Not the megabytes of hyper: who does not read is soon not written to.
    endpoint.initial_stream_window_size(65_535).connect().await.expect("it listens")
}

async fn list(owner: &mut AdminClient<Channel>, service: &str) -> Vec<Instance> {
    let request = ListInstancesRequest { service: service.to_owned() };
    owner.list_instances(request).await.unwrap().into_inner().instances
}

#[tokio::test]
async fn the_list_tells_all_of_each_instance_in_the_order_in_which_they_came() {
    let place = Place::new().await;
    let mut owner = place.owner().await;
    assert_eq!(list(&mut owner, "").await, []);
    let first = TestBackend::start_with(&place.gateway, "z", |builder| {
        builder.software_version("1.2").label("zone", "eu").routing_key("tenant").weight(7)
    })
    .await;
    let second = TestBackend::start(&place.gateway, "a").await;
    second.backend.health().set_serving("", false).unwrap();
    place.gateway.instances(1).await;

    let instances = list(&mut owner, "").await;

    assert_eq!(instances.iter().map(|one| one.instance_id.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    let [z, a] = &instances[..] else { panic!("{instances:?}") };
    assert_eq!((z.state(), a.state()), (InstanceState::Ready, InstanceState::NotServing));
    assert_eq!((z.software_version.as_str(), z.weight, z.labels["zone"].as_str()), ("1.2", 7, "eu"));
    assert_eq!((z.services.as_slice(), z.routing_keys.as_slice()), (&[SERVICE.to_owned()][..], &["tenant".into()][..]));
    assert_eq!((z.incarnation.len(), z.open_calls, z.calls), (16, 0, 0));
    assert!(z.peer.starts_with("127.0.0.1:") && z.incarnation != a.incarnation);

    assert_eq!(list(&mut owner, SERVICE).await.len(), 2);
    assert_eq!(list(&mut owner, "shop.Orders").await, []);
    drop(owner);
    place.stop(vec![first, second]).await;
}

#[tokio::test]
async fn a_watch_lists_all_and_then_tells_each_change() {
    let place = Place::new().await;
    let here = TestBackend::start(&place.gateway, "here").await;
    let mut watch = Watch::new(&place, SERVICE).await;
    let mut other = Watch::new(&place, "shop.Orders").await;
    assert_eq!([watch.next().await, watch.next().await, watch.next().await], ["reset 0", "joined here", "listed"]);
    assert_eq!([other.next().await, other.next().await], ["reset 0", "listed"]);

    let mut hand = ByHand::register(place.gateway.address, "hand").await.unwrap();
    assert_eq!(watch.next().await, "joined hand");
    for (version, health, state) in [(1, Health::NotServing, "NotServing"), (2, Health::Serving, "Ready")] {
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
        assert_eq!(watch.next().await, format!("changed hand {state}"));
    }
    hand.drain();
    hand.transmit().unwrap();
    assert_eq!(watch.next().await, "changed hand Draining");
    hand.die();
    assert!(watch.next().await.starts_with("left hand: "));

    // Of another service there was nothing to tell; and the owner's end is the end of the watch.
    drop(watch);
    let end = place.stop.send(());
    assert!(timeout(PATIENCE, other.events.message()).await.unwrap().is_err());
    assert!(end.is_ok());
    timeout(PATIENCE, place.task).await.unwrap().unwrap().unwrap();
    drop(other);
    place.gateway.stop(vec![here]).await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_given_a_new_list() {
    let place = Place::new().await;
    let mut watch = Watch::new(&place, "").await;
    assert_eq!([watch.next().await, watch.next().await], ["reset 0", "listed"]);
    let mut hand = ByHand::register(place.gateway.address, "hand").await.unwrap();

    // More than fits into the client's window, the queue of changes, and everything in between.
    let mut told = place.gateway.gateway.watch();
    let labels = |version| -> BTreeMap<_, _> { [("number".to_owned(), format!("{version:0>250}"))].into() };
    for version in 1..=4_000 {
        let update = Update {
            version,
            health: Health::Serving,
            weight: 1,
            labels: labels(version),
            load_permille: 0,
            not_serving: Vec::new(),
        };
        hand.tunnel.update(update, Time::default());
        hand.transmit().unwrap();
        told.next().await.unwrap();
    }

    let mut events = Vec::new();
    while !events.last().is_some_and(|event: &String| event.starts_with("reset")) {
        events.push(watch.next().await);
    }
    assert!(events.len() < 4_000 && events[0] == "joined hand", "{} events", events.len());
    assert_eq!([watch.next().await, watch.next().await], ["joined hand", "listed"]);
    assert_eq!(watch.labels["number"], labels(4_000)["number"]);
    hand.die();
    drop(watch);
    place.gateway.instances(0).await;
    place.stop(Vec::new()).await;
}

#[tokio::test]
async fn calls_are_split_between_versions_and_the_split_is_told() {
    let place = Place::new().await;
    let mut owner = place.owner().await;
    let share = |version: &str, share| Share { software_version: version.to_owned(), share };
    let shares = vec![share("v1", 90), share("v2", 10)];
    let get = GetSplitRequest { service: SERVICE.to_owned() };
    assert_eq!(owner.get_split(get.clone()).await.unwrap().into_inner().shares, []);

    let set = SetSplitRequest { service: SERVICE.to_owned(), shares: shares.clone() };
    assert_eq!(owner.set_split(set).await.unwrap().into_inner().shares, shares);
    assert_eq!(owner.get_split(get.clone()).await.unwrap().into_inner().shares, shares);
    let told = place.gateway.gateway.shares(SERVICE).unwrap();
    assert_eq!(told, [("v1".to_owned(), 90), ("v2".to_owned(), 10)]);

    let wrong = SetSplitRequest { service: SERVICE.to_owned(), shares: vec![share("v1", 0)] };
    assert_eq!(owner.set_split(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let nobodys = SetSplitRequest { service: "shop.Orders".to_owned(), shares };
    assert_eq!(owner.set_split(nobodys).await.unwrap_err().code(), Code::NotFound);
    owner.set_split(SetSplitRequest { service: SERVICE.to_owned(), shares: Vec::new() }).await.unwrap();
    assert_eq!(owner.get_split(get).await.unwrap().into_inner().shares, []);
    drop(owner);
    place.stop(Vec::new()).await;
}

#[tokio::test]
async fn only_where_the_owner_listens_and_only_that() {
    let place = Place::new().await;
    let mut client = AdminClient::new(channel(place.gateway.address).await);
    let refused = client.list_instances(ListInstancesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().starts_with("unknown service grpcrouter.Admin"), "{refused:?}");

    let (owner, connection) = grpcrouter_tests::raw::RawClient::connect(place.admin).await.unwrap();
    let question = ListInstancesRequest::default();
    for path in ["/myservice.MyService/Method1", "/grpc.health.v1.Health/Check", "/grpcrouter.Router/Register", "/"] {
        assert_eq!(owner.unary(path, &[], &question).await.unwrap().code(), Code::Unimplemented as i32, "{path}");
    }
    assert_eq!(owner.unary("/grpcrouter.Admin/ListInstances", &[], &question).await.unwrap().code(), 0);
    drop((client, owner));
    connection.abort();
    place.stop(Vec::new()).await;
}

#[tokio::test]
async fn it_is_served_at_loopback_addresses_alone_unless_it_is_allowed() {
    let gateway = TestGateway::start().await;
    let everywhere = async || TcpListener::bind("0.0.0.0:0").await.unwrap();

    let error = gateway.gateway.serve_admin(everywhere().await, async {}).await.unwrap_err();
    assert!(error.to_string().contains("it asks for no credentials"), "{error}");

    let allowed = Gateway::builder()
        .add_router::<myservice::proto::my_service_router::MyServiceRouter>()
        .admin_beyond_loopback(true)
        .build()
        .unwrap();
    allowed.serve_admin(everywhere().await, async {}).await.unwrap();
    if let Ok(listener) = TcpListener::bind("[::1]:0").await {
        gateway.gateway.serve_admin(listener, async {}).await.unwrap();
    }
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_dropped_listener_takes_its_connections_with_it() {
    let before = tasks();
    let place = Place::new().await;
    let mut watch = Watch::new(&place, "").await;
    assert_eq!(watch.next().await, "reset 0");

    place.task.abort();

    while watch.events.message().await.is_ok() {}
    drop(watch);
    place.gateway.stop(Vec::new()).await;
    eventually("as many tasks as before", || tasks() <= before).await;
}

/// One call of WatchInstances, read as words.
struct Watch {
    events: Streaming<InstanceEvent>,
    /// The labels of the instance that was told last.
    labels: BTreeMap<String, String>,
}

impl Watch {
    async fn new(place: &Place, service: &str) -> Self {
        let request = WatchInstancesRequest { service: service.to_owned() };
        let events = place.owner().await.watch_instances(request).await.unwrap().into_inner();
        Self { events, labels: BTreeMap::new() }
    }

    async fn next(&mut self) -> String {
        let event = timeout(PATIENCE, self.events.message()).await.expect("news").unwrap().expect("an event");
        let mut named = |one: &Instance| {
            self.labels.clone_from(&one.labels);
            one.instance_id.clone()
        };
        match event.kind.expect("a kind") {
            Kind::Joined(one) => format!("joined {}", named(&one)),
            Kind::Changed(one) => format!("changed {} {:?}", named(&one), one.state()),
            Kind::Left(left) => format!("left {}: {}", named(&left.instance.expect("who")), left.why),
            Kind::Reset(reset) => format!("reset {}", reset.missed),
            Kind::Listed(_) => "listed".to_owned(),
        }
    }
}
