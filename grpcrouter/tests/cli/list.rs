//! `grpcrouter instances` and `grpcrouter services`.

use crate::world::{Running, World, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_and_services_are_listed_for_people_and_for_programs() {
    let world = World::with_instance("a").await;
    let admin = world.admin();

    let table = run(&["instances", "--admin", &admin]).await.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["INSTANCE", "STATE", "SERVICES", "VERSION", "PRINCIPAL", "PEER", "CALLS", "CONNECTED"]
    );
    assert!(lines[1].starts_with("a         READY  myservice.MyService  1.2"), "{table}");

    let json = run(&["instances", "--admin", &admin, "-o", "json"]).await.ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["instance_id"], &json[0]["state"]), (&"a".into(), &"READY".into()));

    let table = run(&["services", "--admin", &admin]).await.ok();
    assert_eq!(table, "SERVICE              READY   VERSIONS  INSTANCES\nmyservice.MyService  1 of 1  1.2       a\n");

    let json = run(&["services", "--admin", &admin, "-o", "json"]).await.ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["service"], "myservice.MyService");

    let none = run(&["instances", "--admin", &admin, "--service", "shop.Orders"]).await.ok();
    assert_eq!(none, "no instance is connected\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_prints_each_change() {
    let world = World::with_instance("a").await;
    let admin = world.admin();

    let mut instances = Running::start(&["instances", "--admin", &admin, "--watch", "-o", "json"]);
    let joined: serde_json::Value = serde_json::from_str(&instances.line().await).unwrap();
    assert_eq!((&joined["event"], &joined["instance"]["instance_id"]), (&"joined".into(), &"a".into()));
    let mut services = Running::start(&["services", "--admin", &admin, "--watch", "-o", "json"]);
    let now: serde_json::Value = serde_json::from_str(&services.line().await).unwrap();
    assert_eq!(now[0]["ready"], 1);

    drop(world);

    // The gateway went with all that it knew; a watch that ends is an error.
    assert_eq!(instances.child.wait().await.unwrap().code(), Some(1));
    assert_eq!(services.child.wait().await.unwrap().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_is_not_the_admins_is_told_from_one_that_is_not_there() {
    let world = World::start().await;

    let said = run(&["instances", "--admin", &world.uri()]).await.failed(1);
    assert!(said.contains("does not serve grpcrouter.Admin; start the gateway with --admin-listen ADDRESS"), "{said}");

    let said = run(&["services", "--admin", "http://127.0.0.1:1"]).await.failed(1);
    assert!(
        said.starts_with("grpcrouter: the gateway's admin listener at http://127.0.0.1:1 cannot be reached: "),
        "{said}"
    );
}
