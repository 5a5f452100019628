//! `grpcrouter agent`.

use tokio::task::JoinSet;

use crate::world::{Running, World, run, upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_brings_an_unmodified_server_to_a_gateway_and_leaves_at_a_signal() {
    let world = World::start().await;
    let mut servers = JoinSet::new();
    let server = upstream(&mut servers).await.to_string();
    let (gateway, admin) = (world.uri(), world.admin());

    let mut agent = Running::start(&["agent", "--gateway", &gateway, "--upstream", &server, "--instance-id", "a"]);

    assert_eq!(agent.line().await, format!("grpcrouter: registered at {gateway} as a: myservice.MyService"));
    let answer = run(&["call", "--gateway", &gateway, "Method1", r#"{"text": "hi"}"#]).await.ok();
    assert_eq!(answer, "{\"text\":\"hi\",\"instanceId\":\"unmodified\"}\n");
    let listed = run(&["instances", "--admin", &admin]).await.ok();
    assert!(listed.lines().nth(1).unwrap().starts_with("a         READY  myservice.MyService"), "{listed}");
    #[cfg(unix)]
    assert_eq!(agent.stop().await, 0);
    #[cfg(unix)]
    assert!(world.gateway.instances().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flag_of_the_agent_reaches_the_gateway_also_from_the_environment() {
    let world = World::start().await;
    let mut servers = JoinSet::new();
    let server = format!("http://{}", upstream(&mut servers).await);
    let gateway = world.uri();
    let mut command =
        crate::world::program(&["agent", "--upstream", &server, "--label", "zone=eu", "--label", "rack=7"]);
    command
        .env("GRPCROUTER_GATEWAY", &gateway)
        .env("GRPCROUTER_INSTANCE_ID", "from-env")
        .env("GRPCROUTER_ROUTING_KEY", "t1,t2")
        .args(["--weight", "3", "--version", "2.0", "--service", "myservice.MyService", "--drain-timeout", "1s"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    lines.next_line().await.unwrap().unwrap();

    let instances = world.gateway.instances();

    let instance = &instances[0];
    assert_eq!((instance.id.as_str(), instance.version.as_str()), ("from-env", "2.0"));
    assert_eq!((instance.weight, instance.routing_keys.clone()), (3, vec!["t1".to_owned(), "t2".to_owned()]));
    let labels: Vec<_> = instance.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["rack=7", "zone=eu"]);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn what_the_agent_cannot_use_is_told_in_one_line() {
    let gateway = "http://127.0.0.1:1";
    let ran = run(&["agent", "--gateway", gateway, "--upstream", "localhost"]).await;
    assert_eq!(ran.failed(1), "grpcrouter: upstream(\"localhost\") cannot be used: it has no port; write HOST:PORT\n");

    let ran = run(&["agent", "--gateway", gateway, "--upstream", "localhost:1", "--token-file", "/no/such/file"]).await;
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{}", ran.err);
    assert!(ran.err.contains("/no/such/file"), "{}", ran.err);
}
