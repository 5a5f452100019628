//! The registry with instances that have no stream.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use bytes::Bytes;
use grpcrouter_protocol::{Config, Health, Incarnation, ServiceOffer, Side, TokenHash, WindowPool};

use super::*;
use crate::{gateway::strategy::RoutingKey, metrics::TunnelMeter, tunnel::TunnelHandle};

mod fleet;

const ORDERS: TargetId = TargetId(0);

pub(in crate::gateway) fn hello(id: &str, service: &str) -> Hello {
    Hello {
        versions: Config::VERSIONS,
        features: Vec::new(),
        instance_id: InstanceId::parse(id).unwrap(),
        incarnation: Incarnation([0; 16]),
        services: vec![ServiceOffer {
            name: service.to_owned(),
            methods: Vec::new(),
            descriptor_hash: Bytes::new(),
            not_serving: false,
        }],
        software_version: String::new(),
        weight: 1,
        labels: BTreeMap::new(),
        routing_keys: Vec::new(),
        max_calls: 100,
        health: Health::Serving,
        draining: false,
        resume: None,
    }
}

fn from(hello: Hello) -> Arc<Instance> {
    let meter = TunnelMeter::new(Side::Gateway);
    let tunnel = TunnelHandle::gateway(Config::default(), &WindowPool::new(0), meter, TokenHash([0; 32]));
    Arc::new(Instance::new(hello, tunnel, "127.0.0.1:1".to_owned()))
}

fn instance(id: &str, service: &str) -> Arc<Instance> {
    from(hello(id, service))
}

fn keyed(id: &str, service: &str, keys: &[&str]) -> Arc<Instance> {
    let routing_keys = keys.iter().map(|key| (*key).to_owned()).collect();
    from(Hello { routing_keys, ..hello(id, service) })
}

fn registry() -> Registry {
    balancing(&[LoadBalancing::RoundRobin])
}

fn balancing(orders: &[LoadBalancing]) -> Registry {
    Registry::new(
        [("shop.Orders".into(), orders.to_vec()), ("shop.Stock".into(), vec![LoadBalancing::RoundRobin])],
        0,
        10,
        Vec::new(),
    )
}

fn key(value: &'static str) -> RoutingKey {
    RoutingKey::Value(value.into())
}

fn pick(registry: &Registry, key: &RoutingKey) -> Option<Arc<Instance>> {
    registry.snapshot(ORDERS).unwrap().pick(LoadBalancing::RoundRobin, key, &|_| true)
}

/// Who answers four calls with this key.
fn answers(registry: &Registry, key: &RoutingKey) -> Vec<String> {
    (0..4).filter_map(|_| pick(registry, key)).map(|instance| instance.id.to_string()).collect()
}

fn update(version: u64) -> Update {
    Update {
        version,
        health: Health::Serving,
        weight: 1,
        labels: BTreeMap::new(),
        load_permille: 0,
        not_serving: Vec::new(),
    }
}

#[test]
fn calls_go_in_turn_to_the_instances_of_their_service() {
    let registry = registry();
    for (id, service) in [("a", "shop.Orders"), ("b", "shop.Orders"), ("c", "shop.Stock")] {
        registry.insert(&instance(id, service));
    }

    assert_eq!(answers(&registry, &RoutingKey::Absent), ["a", "b", "a", "b"]);
    assert_eq!(registry.ready_instances(), 3);
}

#[test]
fn a_key_names_an_instance_or_one_that_declared_it() {
    let registry = registry();
    registry.insert(&instance("a", "shop.Orders"));
    registry.insert(&keyed("b", "shop.Orders", &["eu", "us", "us"]));
    registry.insert(&keyed("c", "shop.Orders", &["eu"]));

    assert_eq!(answers(&registry, &key("a")), ["a"; 4]);
    assert_eq!(answers(&registry, &key("us")), ["b"; 4]);
    assert_eq!(answers(&registry, &key("eu")), ["b", "c", "b", "c"]);
    assert_eq!(answers(&registry, &key("nobody")), [""; 0]);
}

#[test]
fn one_that_drains_or_is_not_serving_takes_no_calls() {
    let registry = registry();
    let [a, b] = ["a", "b"].map(|id| instance(id, "shop.Orders"));
    registry.insert(&a);
    registry.insert(&b);

    registry.drain(&a);
    assert_eq!(answers(&registry, &RoutingKey::Absent), ["b"; 4]);

    let health = |version, health| Update { health, ..update(version) };
    registry.update(&b, &health(2, Health::NotServing));
    assert_eq!(answers(&registry, &RoutingKey::Absent), [""; 0]);
    registry.update(&b, &health(1, Health::Serving));
    assert_eq!(answers(&registry, &RoutingKey::Absent), [""; 0]);
    registry.update(&b, &health(3, Health::Serving));
    assert_eq!(answers(&registry, &RoutingKey::Absent), ["b"; 4]);
    assert_eq!(registry.ready_instances(), 1);
}

#[test]
fn the_latest_of_one_id_takes_the_calls() {
    let registry = registry();
    let [old, new] = ["a", "a"].map(|id| instance(id, "shop.Orders"));
    assert!(registry.insert(&old).is_none());

    let displaced = registry.insert(&new).unwrap();

    assert!(Arc::ptr_eq(&displaced, &old));
    assert!(Arc::ptr_eq(&pick(&registry, &key("a")).unwrap(), &new));
    assert_eq!((registry.tunnels().len(), registry.tunnel_count(), registry.ready_instances()), (2, 2, 1));
    registry.remove(&old, "it was replaced");
    assert!(Arc::ptr_eq(&pick(&registry, &key("a")).unwrap(), &new));
    assert_eq!((registry.tunnel_count(), registry.ready_instances()), (1, 1));
}

#[test]
fn who_left_last_is_remembered_with_the_reason() {
    let registry = registry();
    let nobody = |key: &RoutingKey| registry.snapshot(ORDERS).unwrap().nobody("shop.Orders", "id", key).message;
    let a = instance("a", "shop.Orders");
    assert!(nobody(&key("a")).starts_with("no instance of shop.Orders has registered yet; "));
    registry.insert(&a);

    registry.remove(&a, "the stream ended");

    let left = "the last one, a, left 0 s ago: the stream ended";
    assert_eq!(nobody(&key("a")), format!("no instance of shop.Orders is connected: {left}"));
    registry.insert(&instance("b", "shop.Orders"));
    let unknown = "no instance of shop.Orders has the routing key id";
    assert_eq!(nobody(&key("a")), format!("{unknown} = \"a\"; connected: b; {left}"));
    assert_eq!(nobody(&key("z")), format!("{unknown} = \"z\"; connected: b"));
    assert_eq!(registry.tunnels().len(), 1);
}

#[test]
fn one_without_room_is_passed_over_while_another_has_some() {
    let registry = registry();
    let [a, b] = ["a", "b"].map(|id| from(Hello { max_calls: 2, ..hello(id, "shop.Orders") }));
    registry.insert(&a);
    registry.insert(&b);

    let seats = [(); 2].map(|()| Seat::new(a.clone()));
    assert_eq!(answers(&registry, &RoutingKey::Absent), ["b"; 4]);
    // Where all are full the tunnel decides.
    let more = [(); 2].map(|()| Seat::new(b.clone()));
    assert_eq!(answers(&registry, &RoutingKey::Absent).len(), 4);
    drop((seats, more));
    let after = answers(&registry, &RoutingKey::Absent);
    assert!(after.contains(&"a".to_owned()) && after.contains(&"b".to_owned()), "{after:?}");
    assert_eq!(a.shown().open_calls, 0);
}

#[test]
fn weights_hold_over_those_that_are_healthy_and_change_while_it_runs() {
    let registry = balancing(&[LoadBalancing::WeightedRoundRobin]);
    let weighing = |id, weight| from(Hello { weight, ..hello(id, "shop.Orders") });
    let [a, b, c] = [weighing("a", 6), weighing("b", 3), weighing("c", 1)];
    [&a, &b, &c].into_iter().for_each(|one| drop(registry.insert(one)));
    let shares = || {
        let snapshot = registry.snapshot(ORDERS).unwrap();
        let pick = || snapshot.pick(LoadBalancing::WeightedRoundRobin, &RoutingKey::Absent, &|_| true).unwrap();
        let mut shares = [0_u32; 3];
        for _ in 0..9_000 {
            let picked = pick();
            let at = [&a, &b, &c].iter().position(|one| Arc::ptr_eq(one, &picked)).unwrap();
            *shares.get_mut(at).unwrap() += 1;
        }
        shares.map(|share| (share + 45) / 90)
    };

    assert_eq!(shares(), [60, 30, 10]);
    registry.update(&a, &Update { health: Health::NotServing, ..update(1) });
    assert_eq!(shares(), [0, 75, 25]);
    registry.update(&c, &Update { weight: 3, ..update(1) });
    assert_eq!(shares(), [0, 50, 50]);
}

#[test]
fn a_weight_out_of_bounds_is_the_nearest_that_is_in_them() {
    let shown = |weight| from(Hello { weight, ..hello("a", "shop.Orders") }).shown().weight;

    assert_eq!([0, 1, 1000, 1001, u32::MAX].map(shown), [1, 1, 1000, 1000, 1000]);
}

#[test]
fn methods_may_balance_differently_and_one_word_changes_them_all() {
    let registry = balancing(&[LoadBalancing::RoundRobin, LoadBalancing::ConsistentHash]);
    ["a", "b", "c"].into_iter().for_each(|id| drop(registry.insert(&instance(id, "shop.Orders"))));
    let with = |balancing, key: &RoutingKey| {
        let snapshot = registry.snapshot(ORDERS).unwrap();
        let ids = (0..4).filter_map(|_| snapshot.pick(balancing, key, &|_| true)).map(|one| one.id.to_string());
        ids.collect::<Vec<_>>()
    };

    // Nobody claims this key; it is hashed where that is asked for.
    assert_eq!(with(LoadBalancing::RoundRobin, &key("tenant")), [""; 0]);
    let hashed = with(LoadBalancing::ConsistentHash, &key("tenant"));
    assert!(hashed.len() == 4 && hashed.iter().all(|id| Some(id) == hashed.first()), "{hashed:?}");
    // A balancing that no route asks for has no pickers.
    assert_eq!(with(LoadBalancing::Random, &RoutingKey::Absent), [""; 0]);

    assert!(registry.balance("shop.Orders", LoadBalancing::ConsistentHash));
    assert_eq!(with(LoadBalancing::RoundRobin, &key("tenant")), hashed);
    assert!(registry.balance("shop.Orders", LoadBalancing::RoundRobin));
    assert_eq!(with(LoadBalancing::ConsistentHash, &key("tenant")), [""; 0]);
    assert!(!registry.balance("shop.Nobody", LoadBalancing::Random));
}

#[test]
fn how_long_instances_take_is_measured_only_where_it_is_asked_for() {
    let measured = |balancing_of: &[LoadBalancing]| {
        let (registry, a) = (balancing(balancing_of), instance("a", "shop.Orders"));
        registry.insert(&a);
        Seat::new(a.clone()).answered();
        a.latency.now(clock::now()).is_some()
    };

    assert!(!measured(&[LoadBalancing::RoundRobin, LoadBalancing::LeastRequest]));
    assert!(measured(&[LoadBalancing::RoundRobin, LoadBalancing::PeakEwma]));
}

#[test]
fn the_fourth_process_that_pushes_a_well_one_out_within_a_minute_is_told_to_wait() {
    let registry = registry();
    let process = |number| Hello { incarnation: Incarnation([number; 16]), ..hello("a", "shop.Orders") };
    let come = |number| registry.may_take(&process(number)).map(|()| drop(registry.insert(&from(process(number)))));

    assert_eq!([0, 1, 2, 3].map(come), [Ok(()); 4]);
    assert_eq!(come(4), Err(Duration::from_secs(60)));
    // The one that is here stays, and may dial again.
    assert_eq!(pick(&registry, &key("a")).unwrap().incarnation, Incarnation([3; 16]));
    assert_eq!(come(3), Ok(()));
    assert_eq!(registry.may_take(&hello("b", "shop.Orders")), Ok(()));
}

#[test]
fn to_follow_one_that_drains_is_no_takeover() {
    let registry = registry();
    for number in 0..20 {
        let hello = Hello { incarnation: Incarnation([number; 16]), ..hello("a", "shop.Orders") };
        assert_eq!(registry.may_take(&hello), Ok(()));
        let instance = from(hello);
        registry.insert(&instance);
        registry.drain(&instance);
    }
}
