//! The registry over time: thousands of instances, watchers, ejection. The clock is tokio's and stands still unless the
//! test moves it.

use std::sync::Mutex as StdMutex;

use tonic::Code;

use super::*;

/// Fails so many calls at `instance`.
fn fail(registry: &Registry, instance: &Arc<Instance>, calls: u32) {
    for _ in 0..calls {
        let in_a_row = Seat::new(instance.clone()).ended(Code::Unavailable, None, true).unwrap();
        registry.failed(instance, in_a_row);
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await; // waits because the clock is the test's own: it passes at once
}

fn fleet(registry: &Registry, ids: &[&str]) -> Vec<Arc<Instance>> {
    let fleet: Vec<_> = ids.iter().map(|id| instance(id, "shop.Orders")).collect();
    fleet.iter().for_each(|one| drop(registry.insert(one)));
    fleet
}

#[tokio::test(start_paused = true)]
async fn among_ten_thousand_a_change_is_seen_within_fifty_milliseconds_and_a_storm_makes_few_snapshots() {
    let registry = registry();
    let all: Vec<_> = (0..10_000).map(|n| instance(&format!("i{n}"), "shop.Orders")).collect();
    let len = || registry.snapshot(ORDERS).unwrap().len();
    let editions = || registry.targets.get(0).unwrap().editions();

    // All join within a second.
    for (nth, one) in all.iter().enumerate() {
        registry.insert(one);
        if nth % 10 == 9 {
            pass(Duration::from_millis(1)).await;
        }
    }
    pass(Duration::from_millis(25)).await;
    assert_eq!(len(), 10_000);
    let joining = editions();
    // 500 while there are so few that one costs nothing, then one every 1 to 20 ms.
    assert!(joining < 500 + 250, "{joining} snapshots for 10,000 joins");

    // One leaves and is seen at once, another drains and is seen 20 ms later.
    registry.remove(all.first().unwrap(), "gone");
    registry.drain(all.get(1).unwrap());
    pass(Duration::from_millis(50)).await;
    assert_eq!((len(), editions()), (9_998, joining + 2));

    // A storm of a second: every instance says something a few times.
    for nth in 0..1_000_u64 {
        for one in all.iter().skip(2).skip(nth as usize % 100 * 90).take(30) {
            registry.update(one, &Update { weight: 1 + nth as u32 % 2, ..update(nth + 1) });
        }
        pass(Duration::from_millis(1)).await;
    }
    assert!(editions() - joining <= 3 + 1_000 / 20, "{} snapshots in a second", editions() - joining);
    assert_eq!(registry.ready_instances(), 9_998);
}

#[test]
fn outside_of_a_runtime_every_change_is_seen_at_once() {
    let registry = registry();
    let all: Vec<_> = (0..600).map(|n| instance(&format!("i{n}"), "shop.Orders")).collect();

    all.iter().for_each(|one| drop(registry.insert(one)));

    assert_eq!(registry.snapshot(ORDERS).unwrap().len(), 600);
}

#[tokio::test(start_paused = true)]
async fn one_that_keeps_failing_by_itself_is_left_out_for_ten_seconds() {
    let registry = registry();
    let fleet = fleet(&registry, &["a", "b", "c"]);

    fail(&registry, fleet.first().unwrap(), 9);
    assert!(answers(&registry, &RoutingKey::Absent).contains(&"a".to_owned()));
    fail(&registry, fleet.first().unwrap(), 1);
    assert_eq!(fleet.first().unwrap().shown().state, InstanceState::Ejected);
    assert_eq!(answers(&registry, &RoutingKey::Absent).iter().filter(|id| *id == "a").count(), 0);
    // Its own key is nobody else's.
    assert_eq!(answers(&registry, &key("a")), ["a"; 4]);

    pass(Duration::from_secs(11)).await;
    assert_eq!(fleet.first().unwrap().shown().state, InstanceState::Ready);
    let share = |registry: &Registry| {
        (0..3_000).filter_map(|_| pick(registry, &RoutingKey::Absent)).filter(|one| one.id.as_str() == "a").count()
    };
    let (first, later) = (share(&registry), {
        pass(Duration::from_secs(10)).await;
        share(&registry)
    });
    assert!((30..200).contains(&first) && later == 1_000, "{first}, later {later}");
}

#[tokio::test(start_paused = true)]
async fn one_good_answer_ends_the_row() {
    let registry = registry();
    let fleet = fleet(&registry, &["a", "b", "c"]);
    let a = fleet.first().unwrap();

    for _ in 0..10 {
        fail(&registry, a, 9);
        assert_eq!(Seat::new(a.clone()).ended(Code::NotFound, None, true), None);
    }

    assert_eq!(a.shown().state, InstanceState::Ready);
}

#[tokio::test(start_paused = true)]
async fn never_more_than_half_are_left_out_and_nobody_when_all_fail() {
    let registry = registry();
    let fleet = fleet(&registry, &["a", "b", "c", "d", "e", "f"]);
    let ejected = || fleet.iter().filter(|one| one.shown().state == InstanceState::Ejected).count();

    fleet.iter().for_each(|one| fail(&registry, one, 10));
    assert_eq!(ejected(), 3);

    pass(Duration::from_secs(11)).await;
    assert_eq!(ejected(), 0);
    for _ in 0..10 {
        fleet.iter().for_each(|one| fail(&registry, one, 1));
    }
    assert_eq!(ejected(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_alone_is_never_left_out() {
    let registry = registry();
    let fleet = fleet(&registry, &["a"]);

    fail(&registry, fleet.first().unwrap(), 100);

    assert_eq!(answers(&registry, &RoutingKey::Absent), ["a"; 4]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_left_out_takes_calls_where_nobody_else_is_left() {
    let registry = registry();
    let [a, b] = ["a", "b"].map(|id| keyed(id, "shop.Orders", &["eu"]));
    registry.insert(&a);
    registry.insert(&b);
    fail(&registry, &a, 10);
    assert_eq!(answers(&registry, &RoutingKey::Absent), ["b"; 4]);
    assert_eq!(answers(&registry, &key("eu")), ["b"; 4]);

    registry.remove(&b, "gone");

    assert_eq!(a.shown().state, InstanceState::Ejected);
    assert_eq!(answers(&registry, &RoutingKey::Absent), ["a"; 4]);
    assert_eq!(answers(&registry, &key("eu")), ["a"; 4]);
}

#[tokio::test(start_paused = true)]
async fn when_an_ejected_one_leaves_nothing_of_it_is_left() {
    let registry = registry();
    let fleet = fleet(&registry, &["a", "b"]);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    fail(&registry, fleet.first().unwrap(), 10);
    assert_eq!(tasks(), 1);

    registry.remove(fleet.first().unwrap(), "gone");
    pass(Duration::from_millis(1)).await;

    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn watchers_are_told_each_change_in_order_and_who_is_too_slow_is_told_that() {
    let told = Arc::new(StdMutex::new(Vec::new()));
    let callback = OnChange::new({
        let told = told.clone();
        move |change| told.lock().unwrap().push(change.clone())
    });
    let registry = Registry::new([("shop.Orders".into(), vec![LoadBalancing::RoundRobin])], 0, 0, vec![callback]);
    let mut watch = registry.watch();
    let a = keyed("a", "shop.Orders", &["eu"]);

    registry.insert(&a);
    let labels = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
    registry.update(&a, &Update { labels: labels.clone(), weight: 7, load_permille: 250, ..update(1) });
    registry.update(&a, &update(1));
    registry.drain(&a);
    registry.remove(&a, "it drained");

    let Some(InstanceChange::Joined(joined)) = watch.next().await else { panic!("not joined") };
    assert_eq!((joined.id.as_str(), joined.state), ("a", InstanceState::Ready));
    assert_eq!((joined.services, joined.routing_keys), (vec!["shop.Orders".to_owned()], vec!["eu".to_owned()]));
    let Some(InstanceChange::Changed(changed)) = watch.next().await else { panic!("not changed") };
    assert_eq!((changed.weight, changed.labels, changed.load_permille), (7, labels, 250));
    let Some(InstanceChange::Changed(drains)) = watch.next().await else { panic!("not changed") };
    assert_eq!(drains.state, InstanceState::Draining);
    let Some(InstanceChange::Left { instance, why }) = watch.next().await else { panic!("not left") };
    assert_eq!((instance.id.as_str(), why.as_str()), ("a", "it drained"));
    assert_eq!(told.lock().unwrap().len(), 4);

    for _ in 0..600 {
        registry.insert(&a);
        registry.remove(&a, "again");
    }
    assert_eq!(watch.next().await, Some(InstanceChange::Lagged { missed: 1_200 - 1_024 }));
    assert!(matches!(watch.next().await, Some(InstanceChange::Joined(_))));
    drop(registry);
    while watch.next().await.is_some() {}
}

#[test]
fn the_list_tells_who_is_here_and_how_they_are() {
    let registry = registry();
    let [a, b] = ["a", "b"].map(|id| instance(id, "shop.Orders"));
    registry.insert(&a);
    registry.insert(&b);
    registry.update(&b, &Update { health: Health::NotServing, ..update(1) });
    let seat = Seat::new(a);

    let list = registry.instances();

    let shown: Vec<_> = list.iter().map(|one| (one.id.as_str(), one.state, one.open_calls, one.calls)).collect();
    assert_eq!(shown, [("a", InstanceState::Ready, 1, 1), ("b", InstanceState::NotServing, 0, 0)]);
    drop(seat);
}
