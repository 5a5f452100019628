//! How many connections there may be, from where, and for how long without a use; each filled to one more than it holds.

use std::{net::SocketAddr, time::Duration};

use grpcrouter_tests::{
    frames::{ByteClient, PING, call},
    lines::Lines,
    raw::RawClient,
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use tokio::{net::TcpSocket, task::JoinHandle, time::timeout};
use tracing_subscriber::filter::LevelFilter;

use super::{METHOD1, text};

const STREAM_METHOD: &str = "/myservice.MyService/StreamMethod";

/// A connection from another address of this machine.
async fn from(address: &str, to: SocketAddr) -> anyhow::Result<(RawClient, JoinHandle<()>)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{address}:0").parse()?)?;
    RawClient::over(socket.connect(to).await?, to).await
}

async fn is_served((client, _): &(RawClient, JoinHandle<()>)) -> bool {
    matches!(timeout(PATIENCE, client.unary(METHOD1, &[], &text("x"))).await.unwrap(), Ok(end) if end.code() == 0)
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_are_served_and_a_place_that_is_free_again_is_taken() {
    let lines = Lines::default();
    let _listening = lines.listen(LevelFilter::WARN);
    let gateway = TestGateway::start_with(|builder| builder.max_connections(3)).await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (first, second) = (from("127.0.0.1", gateway.address).await, from("127.0.0.2", gateway.address).await);
    let (first, second) = (first.unwrap(), second.unwrap());

    for _ in 0..3 {
        let refused = async {
            is_served(&from("127.0.0.3", gateway.address).await?)
                .await
                .then_some(())
                .ok_or_else(|| anyhow::anyhow!("closed"))
        };
        timeout(PATIENCE, refused).await.unwrap().unwrap_err();
    }

    assert!(is_served(&first).await && is_served(&second).await);
    let said = lines.with(&["connection refused: there are too many", "limit=3", ".max_connections(..)"]);
    assert_eq!(said.len(), 1, "{said:?}");
    second.1.abort();
    eventually("a free place", || gateway.gateway.stats().connections == 2).await;
    let next = from("127.0.0.3", gateway.address).await.unwrap();
    assert!(is_served(&next).await);
    for (client, task) in [first, next] {
        drop(client);
        task.abort();
    }
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn one_address_takes_no_more_than_its_part_and_leaves_room_for_others() {
    let lines = Lines::default();
    let _listening = lines.listen(LevelFilter::WARN);
    let gateway = TestGateway::start_with(|builder| builder.max_connections_per_address(2)).await;
    let backend = TestBackend::start(&gateway, "a").await;
    let greedy = ["127.0.0.2"; 2].map(|address| from(address, gateway.address));
    let [one, two] = greedy;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert!(is_served(&one).await && is_served(&two).await);

    let third = async {
        is_served(&from("127.0.0.2", gateway.address).await?)
            .await
            .then_some(())
            .ok_or_else(|| anyhow::anyhow!("closed"))
    };
    timeout(PATIENCE, third).await.unwrap().unwrap_err();

    let other = from("127.0.0.3", gateway.address).await.unwrap();
    assert!(is_served(&other).await && is_served(&one).await);
    let said = lines.with(&["too many from one address", "limit=2", ".max_connections_per_address(..)"]);
    assert_eq!(said.len(), 1, "{said:?}");
    two.1.abort();
    eventually("a free place", || gateway.gateway.stats().connections == 3).await;
    let again = from("127.0.0.2", gateway.address).await.unwrap();
    assert!(is_served(&again).await);
    for (client, task) in [one, other, again] {
        drop(client);
        task.abort();
    }
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_connection_without_a_first_call_is_told_to_end_and_a_client_calls_all_the_same() {
    let soon = Duration::from_secs(1);
    let gateway = TestGateway::start_with(|builder| builder.opening_timeout(soon)).await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut bytes = ByteClient::connect(gateway.address).await.unwrap();
    let mut early = gateway.client().await;

    assert_eq!(timeout(PATIENCE, bytes.go_away()).await.unwrap(), Some(0), "NO_ERROR");
    // It does not answer the ping with which a graceful end begins, so it is cut.
    assert!(timeout(PATIENCE, bytes.is_over()).await.unwrap());

    eventually("only the instance is left", || gateway.gateway.stats().connections == 1).await;
    assert_eq!(early.method1(text("late")).await.unwrap().into_inner().text, "late");
    drop(early);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_connection_without_calls_ends_after_a_while_and_one_with_a_call_and_one_of_an_instance_stay() {
    let soon = Duration::from_secs(1);
    let gateway = TestGateway::start_with(|builder| builder.idle_timeout(soon).opening_timeout(soon)).await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut busy = ByteClient::connect(gateway.address).await.unwrap();
    busy.send(&call(1, STREAM_METHOD)).await.unwrap();
    backend.probe.saw("stream begins", 1).await;
    let (client, idle) = RawClient::connect(gateway.address).await.unwrap();
    assert_eq!(client.unary(METHOD1, &[], &text("x")).await.unwrap().code(), 0);

    // The task of its connection ends when the gateway has ended it.
    timeout(PATIENCE, idle).await.unwrap().unwrap();

    let (client, idle) = RawClient::connect(gateway.address).await.unwrap();
    assert_eq!(client.unary(METHOD1, &[], &text("x")).await.unwrap().code(), 0, "the instance is there");
    timeout(PATIENCE, idle).await.unwrap().unwrap();
    eventually("two are left", || gateway.gateway.stats().connections == 2).await;
    let stats = gateway.gateway.stats();
    assert_eq!((stats.calls, stats.instances), (1, 1));
    drop(busy);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_dead_and_its_calls_end() {
    let (soon, patience) = (Duration::from_millis(100), Duration::from_secs(3));
    let gateway = TestGateway::start_with(|builder| builder.keepalive(soon, patience)).await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut dead = ByteClient::connect(gateway.address).await.unwrap();
    dead.send(&call(1, STREAM_METHOD)).await.unwrap();
    backend.probe.saw("stream begins", 1).await;
    let client = RawClient::connect(gateway.address).await.unwrap();

    timeout(PATIENCE, dead.next_of(PING)).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, dead.is_over()).await.unwrap());

    backend.probe.saw("stream dropped", 1).await;
    assert!(is_served(&client).await, "who answers stays");
    drop(client.0);
    client.1.abort();
    gateway.stop(vec![backend]).await;
}
