//! Floods on one connection end that connection and touch no other; clients that cancel a lot go on.

use grpcrouter_tests::{
    frames::{ByteClient, DATA, PING, SETTINGS, call, frame, reset},
    lines::Lines,
    probe::say,
    raw,
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

use super::{METHOD1, text};

const STREAM_METHOD: &str = "/myservice.MyService/StreamMethod";
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A gateway with a backend, and a client beside the one that floods.
async fn place() -> (TestGateway, TestBackend, raw::RawClient) {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let beside = gateway.raw().await;
    assert_eq!(beside.unary(METHOD1, &[], &text("before")).await.unwrap().code(), 0);
    (gateway, backend, beside)
}

async fn nobody_else_noticed((gateway, backend, beside): (TestGateway, TestBackend, raw::RawClient)) {
    assert_eq!(beside.unary(METHOD1, &[], &text("after")).await.unwrap().code(), 0);
    drop(beside);
    gateway.stop(vec![backend]).await;
}

/// What `flood` comes to on a connection with one open call.
async fn flooded(gateway: &TestGateway, flood: &[u8]) -> Option<u32> {
    let mut client = ByteClient::connect(gateway.address).await.unwrap();
    client.send(&call(1, STREAM_METHOD)).await.unwrap();
    eventually("the call is there", || gateway.gateway.stats().calls == 1).await;
    // It may be cut off while it sends.
    let _ = client.send(flood).await;
    let ended = timeout(PATIENCE, client.go_away()).await.unwrap();
    eventually("its call has ended", || gateway.gateway.stats().calls == 0).await;
    ended
}

#[tokio::test]
async fn a_flood_of_pings_or_settings_ends_its_connection_and_no_other() {
    let lines = Lines::default();
    let _listening = lines.listen(LevelFilter::WARN);
    let place = place().await;
    for one in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[]), frame(0xbe, 0, 0, b"?")] {
        // Little more than is too much, so that all of it is read: what is not would take the last words with it.
        assert_eq!(flooded(&place.0, &one.repeat(1_100)).await, Some(ENHANCE_YOUR_CALM), "{one:?}");
    }
    let said = lines.with(&["connection ended for a flood", "far more pings, settings"]);
    assert_eq!(said.len(), 1, "{said:?}");
    nobody_else_noticed(place).await;
}

#[tokio::test]
async fn a_flood_without_end_is_not_read_to_its_end() {
    let place = place().await;
    let mut client = ByteClient::connect(place.0.address).await.unwrap();
    client.send(&call(1, STREAM_METHOD)).await.unwrap();
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(10_000);

    // 100 times 170 KB fit in no buffer on the way.
    let sent = async {
        for _ in 0..100 {
            client.send(&pings).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    timeout(PATIENCE, sent).await.unwrap().unwrap_err();

    nobody_else_noticed(place).await;
}

#[tokio::test]
async fn pings_that_go_with_calls_are_no_flood() {
    let place = place().await;
    let mut client = ByteClient::connect(place.0.address).await.unwrap();
    client.send(&call(1, STREAM_METHOD)).await.unwrap();
    let message = raw::frame(&text("x"));

    // One for each answer, as clients send them that measure their way.
    for round in 0..3_000_u32 {
        client.send(&frame(DATA, 0, 1, &message)).await.unwrap();
        let answer = timeout(PATIENCE, client.next_of(DATA)).await.unwrap();
        answer.unwrap_or_else(|error| panic!("ended in round {round}: {error}"));
        client.send(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
        // The client's window: the connection has 64 KiB at first.
        client.send(&frame(8, 0, 0, &100_u32.to_be_bytes())).await.unwrap();
        client.send(&frame(8, 0, 1, &100_u32.to_be_bytes())).await.unwrap();
    }

    drop(client);
    nobody_else_noticed(place).await;
}

#[tokio::test]
async fn rapid_reset_ends_its_connection_and_hardly_reaches_the_backend() {
    const AT_ONCE: u32 = 50;
    let place = place().await;
    let mut client = ByteClient::connect(place.0.address).await.unwrap();
    let mut calls = 0;
    eventually("it is connected", || place.0.gateway.stats().connections == 3).await;

    // Each is in the hands of an instance before it is taken back: the HTTP/2 library counts none of them.
    let attack = async {
        for round in 0.. {
            let streams = (0..AT_ONCE).map(|number| (round * AT_ONCE + number) * 2 + 1);
            let opened: Vec<u8> = streams.clone().flat_map(|stream| call(stream, STREAM_METHOD)).collect();
            client.send(&opened).await?;
            while place.0.gateway.stats().calls < AT_ONCE as usize && place.0.gateway.stats().connections == 3 {
                tokio::task::yield_now().await;
            }
            calls += AT_ONCE;
            client.send(&streams.flat_map(reset).collect::<Vec<u8>>()).await?;
            while place.0.gateway.stats().calls > 0 {
                tokio::task::yield_now().await;
            }
            if place.0.gateway.stats().connections < 3 {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(PATIENCE, attack).await.expect("the attack is ended");

    assert_eq!(timeout(PATIENCE, client.go_away()).await.unwrap(), Some(ENHANCE_YOUR_CALM));
    assert!((500..5_000).contains(&calls), "{calls}");
    nobody_else_noticed(place).await;
}

#[tokio::test]
async fn a_client_that_takes_back_one_of_two_calls_goes_on() {
    let place = place().await;
    let (client, task) = raw::RawClient::connect(place.0.address).await.unwrap();

    for round in 0..700 {
        let mut lost = client.call(STREAM_METHOD, &[]).await.unwrap();
        lost.request.send_data(raw::frame(&text(say::SILENT)), false).unwrap();
        let answered = client.unary(METHOD1, &[], &text("x")).await;
        assert_eq!(answered.unwrap_or_else(|error| panic!("ended in round {round}: {error}")).code(), 0);
        lost.request.send_reset(h2::Reason::CANCEL);
    }

    drop(client);
    task.abort();
    nobody_else_noticed(place).await;
}

#[tokio::test]
async fn the_257th_call_of_a_connection_is_refused_and_the_others_run_on() {
    const CALLS: u32 = 256;
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let place = place().await;
    let mut client = ByteClient::connect(place.0.address).await.unwrap();
    let stream = |number: u32| number * 2 + 1;
    let opened: Vec<u8> = (0..CALLS).flat_map(|number| call(stream(number), STREAM_METHOD)).collect();
    // What is said before the limit is known to the client does not count against it.
    client.next_of(SETTINGS).await.unwrap();
    client.send(&frame(SETTINGS, 1, 0, &[])).await.unwrap();
    client.send(&opened).await.unwrap();
    eventually("all are open", || place.0.gateway.stats().calls == CALLS as usize).await;

    client.send(&call(stream(CALLS), STREAM_METHOD)).await.unwrap();

    let refused = timeout(PATIENCE, client.next_of(3)).await.unwrap().unwrap();
    assert_eq!((refused.stream, &refused.payload[..]), (stream(CALLS), &REFUSED_STREAM[..]));
    assert_eq!(place.0.gateway.stats().calls, CALLS as usize);
    client.send(&frame(DATA, 1, stream(CALLS - 1), &raw::frame(&text("last")))).await.unwrap();
    let answered = async { while client.next_of(DATA).await.unwrap().stream != stream(CALLS - 1) {} };
    timeout(PATIENCE, answered).await.unwrap();
    drop(client);
    nobody_else_noticed(place).await;
}
