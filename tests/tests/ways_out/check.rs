//! A check goes the whole way, tells what it saw, and leaves nothing behind.

use grpcrouter_runtime::DialStep;
use grpcrouter_tests::{
    certs::Certs,
    world::{TestBackend, TestGateway},
};
use myservice::proto::Method1Request;

use crate::{
    SERVICE, backend,
    doors::{tls, tls_before},
    proxy::Proxy,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_registers_without_getting_a_call_or_displacing_anybody() {
    let gateway = TestGateway::start().await;
    let steady = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;
    let calls = async {
        for _ in 0..200 {
            let answer = client.method1(Method1Request { text: "x".to_owned() }).await.expect("no call fails");
            assert_eq!(answer.into_inner().instance_id, "a");
        }
    };
    let checks = async {
        for _ in 0..5 {
            let found = backend(&gateway.uri()).instance_id("a").check([SERVICE]).await.unwrap();
            assert!(found[0].is_ok(), "{:?}", found[0].steps);
            assert!(
                found[0].steps.last().unwrap().found.starts_with("let in as \"a-check\"; version 1 of the protocol")
            );
        }
    };

    tokio::join!(calls, checks);

    assert_eq!(steady.backend.stats().tunnels, 1);
    drop(client);
    gateway.stop(vec![steady]).await;
}

#[tokio::test]
async fn a_check_tells_each_step_and_what_it_saw_there() {
    let gateway = TestGateway::start().await;
    let certs = Certs::new();
    let door = tls_before(gateway.address, tls(&certs.server_at(&["gateway.test"]), &[b"h2"], None)).await;
    let proxy = Proxy::to(door, None).await;

    let found = backend("https://gateway.test")
        .ca_file(certs.ca())
        .proxy(format!("http://{}", proxy.address))
        .check([SERVICE])
        .await
        .unwrap()
        .remove(0);

    use DialStep::{Connect, Gateway, Http2, Name, Proxy as ProxyStep, Register, Tls};
    let steps: Vec<DialStep> = found.steps.iter().map(|step| step.step).collect();
    assert_eq!(steps, [Name, Connect, ProxyStep, Tls, Http2, Gateway, Register]);
    assert_eq!(found.gateway, "gateway.test:443");
    assert_eq!(found.proxy.unwrap(), format!("http://{}", proxy.address));
    assert_eq!(found.peer.unwrap(), proxy.address);
    let seen = found.tls.unwrap();
    assert_eq!((seen.version.as_str(), seen.names.as_str()), ("TLS 1.3", "gateway.test"));
    assert!(seen.issuer.contains("test authority"), "{}", seen.issuer);
    assert!(found.round_trip.is_some());
    assert_eq!(found.welcome.unwrap().version, 1);
    gateway.instances(0).await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn a_check_without_a_service_stops_where_a_gateway_answers() {
    let gateway = TestGateway::start().await;

    let found = backend(&gateway.uri()).check(Vec::<String>::new()).await.unwrap().remove(0);

    assert!(found.is_ok(), "{:?}", found.steps);
    assert_eq!(found.steps.last().unwrap().step, DialStep::Gateway);
    assert!(found.welcome.is_none());
    gateway.stop(vec![]).await;
}
