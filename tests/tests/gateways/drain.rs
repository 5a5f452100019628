//! From the word to stop until the last call has ended.

use std::time::Duration;

use grpcrouter_protocol::{CloseCode, Event, RejectReason};
use grpcrouter_runtime::GatewayBuilder;
use grpcrouter_tests::{
    by_hand::ByHand,
    frames::{ByteClient, DATA, Frame, GOAWAY, HEADERS, PING, call, frame},
    raw::{self, RawClient},
    world::{PATIENCE, TestBackend, TestGateway, eventually, no_task_left},
};
use myservice::proto::Method1Request;
use tokio::{net::TcpStream, time::timeout};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::{METHOD1, heard, ok};

/// Longer than any test is patient: what ends does so by itself.
const LONG: Duration = Duration::from_secs(300);

fn text(text: &str) -> Method1Request {
    Method1Request { text: text.to_owned() }
}

#[tokio::test]
async fn a_gateway_that_stops_sends_instances_on_and_finishes_what_runs() {
    let other = "http://gateway-b.example:8080";
    let gateway = TestGateway::start_with(|builder| builder.drain_timeout(LONG).peers([other])).await;
    let address = gateway.address;
    let mut instance = ByHand::register(address, "a").await.unwrap();
    gateway.instances(1).await;
    let client = gateway.raw().await;
    let running = client.call(METHOD1, &[]).await.unwrap();
    let (id, _) = timeout(PATIENCE, instance.started()).await.unwrap().unwrap();

    let stopped = gateway.begin_stop();

    assert_eq!(heard(&mut instance).await, Event::Draining { gateways: vec![other.to_owned()] });
    // Who comes now is told to go on, in words that programs read.
    let hello = ByHand::introduction("b", 16).unwrap();
    let rejected = ByHand::knock(address, None, &[], &hello).await.unwrap().unwrap_err();
    assert_eq!((rejected.reason, rejected.gateways), (RejectReason::Draining, vec![other.to_owned()]));
    assert_eq!(rejected.retry_after, Duration::from_secs(1));
    // And so is a load balancer, on a new connection as it makes one for each look.
    let (look, _) = RawClient::connect(address).await.unwrap();
    let health = look.unary("/grpc.health.v1.Health/Check", &[], &HealthCheckRequest::default()).await.unwrap();
    let said: HealthCheckResponse = prost::Message::decode(&health.body[5..]).unwrap();
    assert_eq!(said.status(), ServingStatus::NotServing);

    assert!(!stopped.is_finished());
    instance.respond(id, ok()).unwrap();
    assert_eq!(timeout(PATIENCE, running.end()).await.unwrap().unwrap().code(), 0);
    let Event::Closed(close) = heard(&mut instance).await else { panic!("the end of the tunnel") };
    assert_eq!(close.code, CloseCode::Shutdown);
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    drop((client, look));
    instance.die();
    no_task_left().await;
}

#[tokio::test]
async fn a_client_hears_of_the_end_in_two_steps_and_what_it_sent_in_between_is_carried() {
    let gateway = TestGateway::start_with(|builder| builder.drain_timeout(LONG)).await;
    let mut instance = ByHand::register(gateway.address, "a").await.unwrap();
    gateway.instances(1).await;
    let mut client = ByteClient::connect(gateway.address).await.unwrap();
    let message = |stream| frame(DATA, END_STREAM, stream, &raw::frame(&text("x")));
    client.send(&call(1, METHOD1)).await.unwrap();
    client.send(&message(1)).await.unwrap();
    let (first, _) = timeout(PATIENCE, instance.started()).await.unwrap().unwrap();

    let stopped = gateway.begin_stop();

    // First that there is an end, and a question how far the client is.
    assert_eq!(last_stream(&mut client).await, u32::MAX >> 1);
    let ping = timeout(PATIENCE, client.next_of(PING)).await.unwrap().unwrap();
    // The instance has heard of it too by now; a call that crossed that word on its way is carried all the same.
    assert!(matches!(heard(&mut instance).await, Event::Draining { .. }));
    client.send(&call(3, METHOD1)).await.unwrap();
    client.send(&message(3)).await.unwrap();
    let (crossing, _) = timeout(PATIENCE, instance.started()).await.unwrap().unwrap();
    client.send(&frame(PING, ACK, 0, &ping.payload)).await.unwrap();
    assert_eq!(last_stream(&mut client).await, 3);

    instance.respond(crossing, ok()).unwrap();
    instance.respond(first, ok()).unwrap();
    for stream in [3, 1] {
        let trailers = loop {
            let Frame { kind, flags, stream, .. } = timeout(PATIENCE, client.next()).await.unwrap().unwrap();
            if kind == HEADERS && flags & END_STREAM != 0 {
                break stream;
            }
        };
        assert_eq!(trailers, stream);
    }
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    instance.die();
    drop(client);
    no_task_left().await;
}

#[tokio::test]
async fn a_client_that_comes_while_the_gateway_stops_is_served_and_told_to_go_and_keeps_nobody_waiting() {
    // Who says nothing at all is waited for as long as ever.
    let opening = Duration::from_secs(3);
    let settings = |builder: GatewayBuilder| builder.drain_timeout(LONG).opening_timeout(opening);
    let gateway = TestGateway::start_with(settings).await;
    let address = gateway.address;
    let mut instance = ByHand::register(address, "a").await.unwrap();
    gateway.instances(1).await;
    let client = gateway.raw().await;
    let running = client.call(METHOD1, &[]).await.unwrap();
    let (id, _) = timeout(PATIENCE, instance.started()).await.unwrap().unwrap();
    let stopped = gateway.begin_stop();
    assert!(matches!(heard(&mut instance).await, Event::Draining { .. }));

    // Again and again, as clients do that know no other address.
    for _ in 0..5 {
        let (late, connection) = RawClient::connect(address).await.unwrap();
        let call = late.call(METHOD1, &[]).await.unwrap();
        let (id, _) = timeout(PATIENCE, instance.started()).await.unwrap().unwrap();
        instance.respond(id, ok()).unwrap();
        assert_eq!(timeout(PATIENCE, call.end()).await.unwrap().unwrap().code(), 0);
        timeout(PATIENCE, connection).await.expect("its connection ends").unwrap();
    }
    // One that has no call is told to go, and one that says nothing is closed.
    let (idle, _) = RawClient::connect(address).await.unwrap();
    let silent = TcpStream::connect(address).await.unwrap();
    instance.respond(id, ok()).unwrap();
    assert_eq!(timeout(PATIENCE, running.end()).await.unwrap().unwrap().code(), 0);

    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    drop((client, idle, silent));
    instance.die();
    no_task_left().await;
}

#[tokio::test]
async fn calls_go_on_while_one_of_two_gateways_stops_and_the_client_follows() {
    let [first, second] = [TestGateway::start().await, TestGateway::start().await];
    let backends = [TestBackend::start(&first, "a").await, TestBackend::start(&second, "a").await];
    let addresses = [first.address, second.address];
    let (done, mut at_work) = tokio::sync::watch::channel(0_u32);
    let calls = tokio::spawn(async move {
        // One connection; the next one when the gateway says that it ends, to whoever takes it, the one that stops first.
        let mut client = None;
        while *done.borrow() < 500 {
            let (send, moved) = match client.take() {
                Some(connected) => connected,
                None => connected(addresses).await,
            };
            let end = send.unary(METHOD1, &[], &text("x")).await?;
            anyhow::ensure!(end.code() == 0, "{end:?}");
            done.send_modify(|done| *done += 1);
            client = (!moved.is_finished()).then_some((send, moved));
        }
        anyhow::Ok(())
    });
    at_work.wait_for(|done| *done > 50).await.unwrap();

    timeout(PATIENCE, first.begin_stop()).await.unwrap().unwrap().unwrap();

    calls.await.unwrap().unwrap();
    let [a, b] = backends;
    a.kill().await;
    second.stop(vec![b]).await;
}

/// A connection to the first that takes it, and its task, which ends with it.
async fn connected(addresses: [std::net::SocketAddr; 2]) -> (RawClient, tokio::task::JoinHandle<()>) {
    for address in addresses {
        if let Ok(connected) = RawClient::connect(address).await {
            return connected;
        }
    }
    panic!("nobody takes a connection")
}

/// The last stream that the next GOAWAY names.
async fn last_stream(client: &mut ByteClient) -> u32 {
    let frame = timeout(PATIENCE, client.next_of(GOAWAY)).await.unwrap().unwrap();
    u32::from_be_bytes(frame.payload[..4].try_into().unwrap())
}

const END_STREAM: u8 = 1;
const ACK: u8 = 1;

#[tokio::test]
async fn an_instance_that_stays_to_the_end_is_there_when_the_gateway_comes_again() {
    let gateway = TestGateway::start().await;
    let address = gateway.address.to_string();
    let backend = TestBackend::start(&gateway, "a").await;

    timeout(PATIENCE, gateway.begin_stop()).await.unwrap().unwrap().unwrap();
    eventually("its tunnel is over", || backend.backend.stats().tunnels == 0).await;
    let gateway = TestGateway::start_on(&address).await;

    gateway.instances(1).await;
    gateway.stop(vec![backend]).await;
}
