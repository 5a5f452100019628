//! Windows that grow over a long way: what a quick reader leaves unread stays within the pool, and nothing of it is lost.

use std::time::Duration;

use bytes::Buf as _;
use grpcrouter_tests::{
    raw::{RawClient, frame},
    slow_link::slow_link,
    world::{TestBackend, TestGateway, eventually},
};
use h2::RecvStream;
use myservice::proto::Method2Request;

use super::KINDS;

/// What all windows may have together beyond their first size.
const POOL: usize = 2 << 20;
const FIRST: usize = 64 << 10;

/// A gateway with that pool, and a backend 50 ms away.
async fn world() -> (TestGateway, TestBackend) {
    let gateway = TestGateway::start_with(|builder| builder.window_memory(POOL as u64)).await;
    let far = slow_link(gateway.address, Duration::from_millis(25)).await;
    let backend = TestBackend::dial(&format!("http://{far}"), "a");
    gateway.instances(1).await;
    (gateway, backend)
}

/// A response of `count` messages of some 10 KB, of which `read` bytes were read and no more.
async fn begun(client: &RawClient, count: u32, read: usize) -> RecvStream {
    let mut call = client.call(KINDS[1].path, &[]).await.unwrap();
    call.request.send_data(frame(&Method2Request { text: "y".repeat(10_000), count }), true).unwrap();
    let mut body = call.response.await.unwrap().into_body();
    let mut left = read;
    while left > 0 {
        left -= take(&mut body).await.unwrap().min(left);
    }
    body
}

/// Takes what comes next; how many bytes that was.
async fn take(body: &mut RecvStream) -> Option<usize> {
    let data = body.data().await?.unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    Some(data.remaining())
}

#[tokio::test]
async fn what_quick_readers_leave_unread_is_no_more_than_first_windows_and_the_pool() {
    let (gateway, backend) = world().await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let calls = 4;
    let mut bodies = tokio::task::JoinSet::new();
    for _ in 0..calls {
        // A connection each: what is unread of one takes all of the window of its connection.
        let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
        bodies.spawn(async move { (begun(&client, 100_000, 3 << 20).await, client, connection) });
    }
    let stalled = bodies.join_all().await;

    let queued = || gateway.gateway.stats().queued_bytes;
    eventually("windows have grown", || queued() > calls * FIRST + POOL / 8).await;
    let mut most = 0;
    for number in 0..10 {
        let message = Method2Request { text: format!("{number}"), count: 1 };
        let end = client.unary(KINDS[0].path, &[], &message).await.unwrap();
        assert_eq!(end.code(), 0, "others go on");
        most = most.max(queued());
    }

    assert!(most <= calls * FIRST + POOL, "{most}");
    for (body, client, connection) in stalled {
        drop((body, client));
        connection.abort();
    }
    drop(client);
    connection.abort();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_response_that_is_over_waits_whole_for_its_reader_and_is_counted_until_then() {
    let (gateway, backend) = world().await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let count = 350;
    let mut body = begun(&client, count, 3 << 20).await;
    let mut read = 3 << 20;

    // Its handler is done and all of it is out; what another call brings came behind it.
    backend.probe.saw("method2 done", 1).await;
    eventually("the backend has said all", || backend.backend.stats().calls == 0).await;
    let (other, other_connection) = RawClient::connect(gateway.address).await.unwrap();
    let message = Method2Request { text: "behind".to_owned(), count: 0 };
    assert_eq!(other.unary(KINDS[0].path, &[], &message).await.unwrap().code(), 0);
    let stats = gateway.gateway.stats();
    assert!(stats.calls == 1 && stats.queued_bytes > FIRST, "{stats:?}");
    while let Some(len) = take(&mut body).await {
        read += len;
    }

    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(read >= count as usize * 10_000, "{read}");
    gateway.idle().await;
    drop((body, client, other));
    connection.abort();
    other_connection.abort();
    gateway.stop(vec![backend]).await;
}
