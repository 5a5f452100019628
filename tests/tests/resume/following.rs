//! The gateways that an instance goes to, beside the one that it was told of.

use std::time::Duration;

use grpcrouter_protocol::{RejectReason, Time};
use grpcrouter_runtime::Backend;
use grpcrouter_tests::{
    lines::Lines,
    probe::{Probe, say},
    world::{PATIENCE, TestBackend, TestGateway, eventually, no_task_left},
};
use myservice::proto::{Method1Request, Method2Request, my_service_server::MyServiceServer};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

use super::played::Played;

/// Longer than any test is patient: what ends does so by itself.
const LONG: Duration = Duration::from_secs(300);

async fn answers(gateway: &TestGateway) {
    let mut client = gateway.client().await;
    let answer = client.method1(Method1Request { text: "x".to_owned() });
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().into_inner().instance_id, "a");
}

fn backend(gateways: &[String]) -> (Backend, Probe) {
    let probe = Probe::new("a");
    let builder = Backend::builder().instance_id("a").add_service(MyServiceServer::new(probe.clone()));
    let builder = gateways.iter().fold(builder, |builder, gateway| builder.gateway(gateway));
    (builder.build().unwrap(), probe)
}

#[tokio::test]
async fn an_instance_that_was_told_of_one_gateway_takes_the_calls_of_all() {
    let third = TestGateway::start().await;
    let second = TestGateway::start_with(|builder| builder.peers([third.uri()])).await;
    // It does not know the third; the second does.
    let first = TestGateway::start_with(|builder| builder.peers([second.uri()])).await;
    let backend = TestBackend::dial(&first.uri(), "a");

    for gateway in [&first, &second, &third] {
        gateway.instances(1).await;
        answers(gateway).await;
    }

    eventually("three tunnels", || backend.backend.stats().tunnels == 3).await;
    backend.stop().await;
    for gateway in [first, second, third] {
        gateway.instances(0).await;
        gateway.begin_stop().await.unwrap().unwrap();
    }
    no_task_left().await;
}

#[tokio::test]
async fn an_instance_finishes_at_a_gateway_that_drains_and_takes_its_calls_at_the_other_meanwhile() {
    let other = TestGateway::start().await;
    let gateway = TestGateway::start_with(|builder| builder.drain_timeout(LONG).peers([other.uri()])).await;
    let backend = TestBackend::dial(&gateway.uri(), "a");
    gateway.instances(1).await;
    other.instances(1).await;
    let mut client = gateway.client().await;
    let request = Method2Request { text: say::SLOW.to_owned(), count: 3 };
    let mut running = timeout(PATIENCE, client.method2(request)).await.unwrap().unwrap().into_inner();
    running.message().await.unwrap().unwrap();

    let stopped = gateway.begin_stop();

    answers(&other).await;
    for index in 1..3 {
        assert_eq!(timeout(PATIENCE, running.message()).await.unwrap().unwrap().expect("an answer").index, index);
    }
    assert_eq!(timeout(PATIENCE, running.message()).await.unwrap().unwrap(), None);
    drop((client, running));
    // It has no tunnel left, so it is done long before its time is over.
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    answers(&other).await;
    other.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_gateway_with_two_names_gets_one_tunnel() {
    let lines = Lines::default();
    let _listening = lines.listen(LevelFilter::INFO);
    let gateway = TestGateway::start().await;
    let names = [gateway.uri(), format!("http://localhost:{}", gateway.address.port())];
    let (backend, probe) = backend(&names);
    let ready = backend.ready();
    let backend = TestBackend::serve(backend, probe);

    timeout(PATIENCE, ready).await.unwrap();
    lines.has("this gateway has a tunnel under another name; one is enough").await;

    eventually("one tunnel", || (gateway.gateway.stats().tunnels, backend.backend.stats().tunnels) == (1, 1)).await;
    answers(&gateway).await;
    assert_eq!(lines.with(&["another process"]), Vec::<String>::new());
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_gateway_that_is_named_no_more_is_left_when_what_runs_there_has_finished() {
    let other = TestGateway::start().await;
    let teller = Played::start().await;
    let backend = TestBackend::dial(&teller.uri(), "a");
    let mut visit = teller.visited().await;
    let mut tunnel = visit.accept("token", vec![other.uri()]);
    other.instances(1).await;
    let mut client = other.client().await;
    let request = Method2Request { text: say::SLOW.to_owned(), count: 3 };
    let mut running = timeout(PATIENCE, client.method2(request)).await.unwrap().unwrap().into_inner();
    running.message().await.unwrap().unwrap();

    tunnel.peers_changed(Vec::new(), Time::default());
    visit.transmit(&mut tunnel);

    for index in 1..3 {
        assert_eq!(timeout(PATIENCE, running.message()).await.unwrap().unwrap().expect("an answer").index, index);
    }
    assert_eq!(timeout(PATIENCE, running.message()).await.unwrap().unwrap(), None);
    other.instances(0).await;
    eventually("one tunnel", || backend.backend.stats().tunnels == 1).await;

    // It is back as soon as it is named again.
    tunnel.peers_changed(vec![other.uri()], Time::default());
    visit.transmit(&mut tunnel);
    other.instances(1).await;

    backend.kill().await;
    drop((client, running));
    other.stop(Vec::new()).await;
}

#[tokio::test]
async fn who_is_turned_away_goes_to_the_gateways_that_it_is_sent_to() {
    let other = TestGateway::start().await;
    let full = Played::start().await;
    let backend = TestBackend::dial(&full.uri(), "a");

    full.visited().await.reject(RejectReason::Draining, vec![other.uri()]);

    other.instances(1).await;
    answers(&other).await;
    // And asks the first one again, for ever.
    full.visited().await.reject(RejectReason::Draining, Vec::new());
    full.visited().await.reject(RejectReason::Draining, Vec::new());
    assert_eq!(other.gateway.stats().instances, 1);
    drop(full);
    other.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_gateway_that_drains_is_left_as_soon_as_another_has_a_tunnel_and_nothing_runs_there() {
    let other = TestGateway::start().await;
    let drains = Played::start().await;
    let backend = TestBackend::dial(&drains.uri(), "a");
    let mut visit = drains.visited().await;
    let mut tunnel = visit.accept("token", Vec::new());
    eventually("a tunnel", || backend.backend.stats().tunnels == 1).await;

    tunnel.drain_to(vec![other.uri()], Time::default());
    visit.transmit(&mut tunnel);

    other.instances(1).await;
    visit.play(&mut tunnel).await;
    // It said that it is done.
    assert!(tunnel.is_closed());
    answers(&other).await;
    // It asks whether the gateway is back.
    let mut again = drains.visited().await;
    assert_eq!(again.hello.resume, None);
    again.reject(RejectReason::Draining, Vec::new());
    drop(drains);
    other.stop(vec![backend]).await;
}
