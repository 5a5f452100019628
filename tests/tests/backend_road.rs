//! The backend's own promises, on real sockets: it finishes what it began and refuses the rest, comes back, says what is
//! wrong when it cannot, and its handlers end when their calls do, through the gateway and by its own port alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use grpcrouter_runtime::Backend;
use grpcrouter_tests::{
    deadlines::{grpc_timeout, long_enough},
    held_link::held_link,
    lines::Lines,
    probe::{Probe, say},
    raw::{RawClient, frame},
    world::{PATIENCE, TestBackend, TestGateway, eventually, no_task_left},
};
use myservice::proto::{
    Method1Request, Method2Request, Method3Request, StreamRequest, my_service_server::MyServiceServer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tonic::Code;
use tonic_types::StatusExt;
use tracing_subscriber::filter::LevelFilter;

use self::{
    road::{Road, connect, end},
    world::{Callers, four_calls, free_address, refuse},
};

#[path = "backend_road/road.rs"]
mod road;
#[path = "backend_road/world.rs"]
mod world;

// ---- stopping

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_backends_come_and_go() {
    let gateway = TestGateway::start().await;
    let steady = TestBackend::start(&gateway, "steady").await;
    let callers = Callers::start(&gateway).await;

    for round in 0..4 {
        let passing = TestBackend::start(&gateway, &format!("passing {round}")).await;
        passing.probe.saw("method1 done", 20).await;
        timeout(PATIENCE, passing.begin_stop()).await.unwrap().unwrap().unwrap();
    }

    callers.stop().await;
    gateway.stop(vec![steady]).await;
}

#[tokio::test]
async fn calls_that_cross_the_drain_are_refused_and_answered_by_another() {
    let gateway = TestGateway::start().await;
    let link = held_link(gateway.address).await;
    let passing = TestBackend::dial(&format!("http://{}", link.address), "passing");
    timeout(PATIENCE, passing.backend.ready()).await.unwrap();
    let (log, probe) = (Lines::default(), passing.probe.clone());
    let _guard = log.listen(LevelFilter::INFO);

    link.out.hold();
    let stopped = passing.begin_stop();
    log.has("stopping: no new calls").await;
    // The gateway knows nothing of it, and sends them to an instance that has decided to take none.
    let calls = four_calls(&gateway).await;
    let steady = TestBackend::start(&gateway, "steady").await;
    link.out.release();

    for call in calls {
        assert_eq!(timeout(PATIENCE, call).await.unwrap().unwrap(), "steady");
    }
    assert_eq!(probe.log(), [""; 0]);
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    gateway.stop(vec![steady]).await;
}

#[tokio::test]
async fn a_backend_that_is_stopped_between_hello_and_welcome_loses_no_call_that_was_sent_to_it() {
    let gateway = TestGateway::start().await;
    let link = held_link(gateway.address).await;
    link.back.hold();
    let passing = TestBackend::dial(&format!("http://{}", link.address), "passing");
    gateway.instances(1).await;
    let (log, probe) = (Lines::default(), passing.probe.clone());
    let _guard = log.listen(LevelFilter::INFO);

    // They are on their way behind Welcome.
    let calls = four_calls(&gateway).await;
    assert_eq!(passing.backend.stats().tunnels, 0);
    let stopped = passing.begin_stop();
    log.has("stopping: no new calls").await;
    let steady = TestBackend::start(&gateway, "steady").await;
    link.back.release();

    for call in calls {
        // What comes together with Welcome may be answered here still; what comes later is sent back.
        timeout(PATIENCE, call).await.unwrap().unwrap();
    }
    assert_eq!(probe.times("method1 begins") + steady.probe.times("method1 begins"), 4);
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    gateway.instances(1).await;
    gateway.stop(vec![steady]).await;
}

#[tokio::test]
async fn a_backend_whose_gateway_never_says_welcome_stops_within_the_drain_timeout() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let (spoke, heard) = tokio::sync::oneshot::channel();
    let mute = tokio::spawn(async move {
        let mut connection = h2::server::handshake(mute.accept().await.unwrap().0).await.unwrap();
        let request = connection.accept().await.unwrap().unwrap();
        spoke.send(()).unwrap();
        let _ = connection.accept().await;
        drop(request);
    });
    let backend = Backend::builder()
        .gateway(format!("http://{address}"))
        .add_service(MyServiceServer::new(Probe::new("a")))
        .drain_timeout(Duration::from_millis(100))
        // It would wait so long for Welcome.
        .dial_timeout(PATIENCE * 4)
        .build()
        .unwrap();
    let backend = TestBackend::serve(backend, Probe::new("a"));
    timeout(PATIENCE, heard).await.unwrap().unwrap();

    let stopped = backend.begin_stop();

    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    mute.abort();
}

#[tokio::test]
async fn what_does_not_finish_within_the_drain_timeout_ends_unavailable_and_its_handler_is_dropped() {
    for road in Road::both_with_drain_timeout(Duration::from_millis(600)).await {
        let mut client = road.client().await;
        let call = tokio::spawn(async move { client.method1(Method1Request { text: say::STALL.to_owned() }).await });
        road.probe.saw("method1 begins", 1).await;

        let backend = road.backend.backend.clone();
        let served = road.backend.begin_stop();

        let status = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{}: {status:?}", road.name);
        timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
        road.probe.saw("method1 dropped", 1).await;
        let stats = backend.stats();
        assert_eq!((stats.calls, stats.tunnels, stats.queued_bytes), (0, 0, 0), "{}", road.name);
        end(road.gateway).await;
    }
    no_task_left().await;
}

#[tokio::test]
async fn a_direct_call_that_runs_when_the_backend_stops_finishes() {
    let road = Road::direct().await;
    let mut client = road.client().await;
    let slow = Method2Request { text: say::SLOW.to_owned(), count: 3 };
    let mut answers = client.method2(slow).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();

    let served = road.backend.begin_stop();

    assert_eq!(answers.message().await.unwrap().unwrap().index, 1);
    assert_eq!(answers.message().await.unwrap().unwrap().index, 2);
    assert_eq!(answers.message().await.unwrap(), None);
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    drop((client, answers));
    no_task_left().await;
}

// ---- coming back

#[tokio::test]
async fn a_gateway_that_is_killed_ends_the_handlers_and_finds_the_backend_again() {
    let gateway = TestGateway::start().await;
    let address = gateway.address;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.method1(Method1Request { text: say::STALL.to_owned() }).await });
    backend.probe.saw("method1 begins", 1).await;

    let served = gateway.begin_stop();
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());

    // No word came: tonic's client makes up a status of its own.
    assert!(timeout(PATIENCE, call).await.unwrap().unwrap().is_err());
    // The next one says that it knows nothing of those calls.
    let gateway = TestGateway::start_on(&address.to_string()).await;
    backend.probe.saw("method1 dropped", 1).await;
    gateway.instances(1).await;
    let mut client = gateway.client().await;
    let answer = client.method1(Method1Request { text: "back".to_owned() }).await.unwrap().into_inner();
    assert_eq!(answer.instance_id, "a");
    drop(client);
    backend.kill().await;
    end(Some(gateway)).await;
    no_task_left().await;
}

#[tokio::test]
async fn one_backend_serves_two_gateways_and_its_port_at_once() {
    let (one, two) = (TestGateway::start().await, TestGateway::start().await);
    let probe = Probe::new("a");
    let backend = Backend::builder()
        .gateway(one.uri())
        .gateway(two.uri())
        .listen("127.0.0.1:0")
        .instance_id("a")
        .add_service(MyServiceServer::new(probe.clone()))
        .build()
        .unwrap();
    let ready = backend.ready();
    let backend = TestBackend::serve(backend, probe);

    timeout(PATIENCE, ready).await.unwrap();

    let port = backend.backend.local_addr().unwrap();
    assert_eq!(backend.backend.stats().tunnels, 2);
    for target in [one.uri(), two.uri(), format!("http://{port}")] {
        let mut client = connect(target).await;
        let answer = client.method1(Method1Request { text: "x".to_owned() }).await.unwrap().into_inner();
        assert_eq!(answer.instance_id, "a");
    }
    backend.stop().await;
    end(Some(one)).await;
    end(Some(two)).await;
}

// ---- saying what is wrong

#[tokio::test]
async fn a_gateway_that_is_not_there_is_told_with_what_to_do_and_dialled_again_until_it_is() {
    let log = Lines::default();
    let _guard = log.listen(LevelFilter::INFO);
    let address = free_address().await;
    let backend = TestBackend::dial(&format!("http://{address}"), "a");

    let told = format!(
        "nothing answers at {address}: Connection refused (os error 111); is the gateway running, and is this its address?"
    );
    log.has(&told).await;
    log.has("wait_ms=").await;

    let gateway = TestGateway::start_on(&address.to_string()).await;
    gateway.instances(1).await;
    backend.stop().await;
    end(Some(gateway)).await;
}

#[tokio::test]
async fn what_is_no_gateway_is_told_apart() {
    // HTTP/1, as a web server would.
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web_address = web.local_addr().unwrap();
    let web = tokio::spawn(async move {
        loop {
            let (mut socket, _) = web.accept().await.unwrap();
            let mut hello = [0; 1024];
            let _ = socket.read(&mut hello).await;
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    // gRPC, but another service.
    let other = Road::direct().await;
    let log = Lines::default();
    let _guard = log.listen(LevelFilter::INFO);

    let to_web = TestBackend::dial(&format!("http://{web_address}"), "a");
    let to_other = TestBackend::dial(&other.target, "b");

    log.has(&format!("what listens at {web_address} does not speak HTTP/2 as a gateway does")).await;
    log.has("is the port right, or does it expect TLS?").await;
    log.has("is no gateway: it answered Unimplemented: unknown service grpcrouter.Router").await;
    to_web.stop().await;
    to_other.stop().await;
    other.backend.stop().await;
    web.abort();
}

#[tokio::test]
async fn a_gateway_that_refuses_is_told_with_its_words_and_left_alone_as_long_as_it_wants() {
    const RETRY_AFTER: Duration = Duration::from_millis(400);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, mut dials) = tokio::sync::mpsc::unbounded_channel();
    let gateway = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let _ = dialled.send(Instant::now());
            refuse(socket, RETRY_AFTER).await;
        }
    });
    let log = Lines::default();
    let _guard = log.listen(LevelFilter::INFO);

    let backend = TestBackend::dial(&format!("http://{address}"), "twice");

    let first = timeout(PATIENCE, dials.recv()).await.unwrap().unwrap();
    let second = timeout(PATIENCE, dials.recv()).await.unwrap().unwrap();
    assert!(second - first >= RETRY_AFTER, "{:?}", second - first);
    log.has("refused this instance (FLAPPING): two of them; two processes use the same instance id").await;
    backend.stop().await;
    gateway.abort();
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let backend =
        Backend::builder().listen(address).add_service(MyServiceServer::new(Probe::new("a"))).build().unwrap();

    let error = backend.serve(std::future::pending::<()>()).await.unwrap_err();

    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot listen at {address}: ")), "{text}");
    assert!(
        text.ends_with(
            "another process listens there: stop it, or choose another port (port 0 lets the system choose a free one)"
        ),
        "{text}"
    );
    no_task_left().await;
}

#[tokio::test]
async fn a_service_that_the_backend_does_not_have_is_answered_with_the_nearest_name() {
    let road = Road::direct().await;
    let (client, connection) = RawClient::connect(road.backend.backend.local_addr().unwrap()).await.unwrap();

    let end = client.unary("/myservice.MyServce/Method1", &[], &Method1Request::default()).await.unwrap();

    assert_eq!(end.code(), Code::Unimplemented as i32);
    assert_eq!(end.message(), "unknown service myservice.MyServce; did you mean myservice.MyService?");
    drop(client);
    connection.abort();
    road.end().await;
}

// ---- handlers and their calls

#[tokio::test]
async fn a_handler_that_panics_is_an_unknown_status_and_touches_no_other_call() {
    for road in Road::both().await {
        let mut client = road.client().await;
        let mut answers =
            client.method2(Method2Request { text: say::SLOW.to_owned(), count: 2 }).await.unwrap().into_inner();

        let status = client.method1(Method1Request { text: say::PANIC.to_owned() }).await.unwrap_err();

        assert_eq!(status.code(), Code::Unknown, "{}: {status:?}", road.name);
        assert_eq!(status.get_details_error_info().unwrap().reason, "HANDLER_PANICKED");
        assert_eq!(answers.message().await.unwrap().unwrap().index, 0);
        assert_eq!(answers.message().await.unwrap().unwrap().index, 1);
        assert_eq!(answers.message().await.unwrap(), None);
        let again = client.method1(Method1Request { text: "x".to_owned() }).await.unwrap().into_inner();
        assert_eq!(again.text, "x");
        drop((client, answers));
        road.end().await;
    }
}

#[tokio::test]
async fn a_deadline_runs_over_the_whole_call_and_drops_the_handler() {
    for road in Road::both().await {
        // It enforces nothing itself: what it sees is what the other side did.
        let (client, connection) = RawClient::connect(road.address()).await.unwrap();

        // Before any answer.
        let stall = Method1Request { text: say::STALL.to_owned() };
        long_enough(async |deadline| {
            let timeout = grpc_timeout(deadline);
            let end =
                client.unary("/myservice.MyService/Method1", &[("grpc-timeout", &timeout)], &stall).await.unwrap();
            assert_eq!(end.code(), Code::DeadlineExceeded as i32, "{}", road.name);
            (road.probe.times("method1 begins") > 0).then_some(())
        })
        .await;
        road.probe.saw("method1 dropped", 1).await;

        // After the response headers; without a deadline it would never end.
        let stall = Method2Request { text: say::STALL.to_owned(), count: 2 };
        long_enough(async |deadline| {
            let timeout = grpc_timeout(deadline);
            let end =
                client.unary("/myservice.MyService/Method2", &[("grpc-timeout", &timeout)], &stall).await.unwrap();
            assert_eq!(end.code(), Code::DeadlineExceeded as i32, "{}", road.name);
            (!end.body.is_empty()).then_some(())
        })
        .await;
        road.probe.saw("method2 dropped", 1).await;
        drop(client);
        connection.abort();
        road.end().await;
    }
}

#[tokio::test]
async fn a_cancelled_upload_drops_the_handler_and_is_never_a_clean_end() {
    for road in Road::both().await {
        for dies in [false, true] {
            let before = road.probe.log().len();
            let count = if dies { 2 } else { 1 };
            let (client, connection) = RawClient::connect(road.address()).await.unwrap();
            let mut call = client.call("/myservice.MyService/Method3", &[]).await.unwrap();
            call.request.send_data(frame(&Method3Request { text: "part".to_owned() }), false).unwrap();
            road.probe.saw("method3 message", count).await;

            if dies {
                connection.abort();
            } else {
                call.request.send_reset(h2::Reason::CANCEL);
            }

            road.probe.saw("method3 dropped", count).await;
            let log = road.probe.log();
            let new: Vec<&str> = log.iter().skip(before).map(String::as_str).collect();
            // A direct client's reset may be seen by the handler first; then it is an error, not an end.
            assert!(!new.contains(&"method3 clean end"), "{}: {new:?}", road.name);
            drop((client, call));
            connection.abort();
        }
        road.end().await;
    }
}

#[tokio::test]
async fn dropping_the_serve_future_drops_every_handler() {
    for road in Road::both().await {
        let mut client = road.client().await;
        let call = tokio::spawn(async move { client.method1(Method1Request { text: say::STALL.to_owned() }).await });
        road.probe.saw("method1 begins", 1).await;
        let backend = road.backend.backend.clone();

        road.backend.kill().await;

        road.probe.saw("method1 dropped", 1).await;
        assert!(timeout(PATIENCE, call).await.unwrap().unwrap().is_err());
        eventually("nothing lives", || backend.stats() == Default::default()).await;
        end(road.gateway).await;
    }
    no_task_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_calls_of_all_kinds_and_cancels_leave_nothing_behind() {
    for road in Road::both().await {
        let mut client = road.client().await;
        let mut calls = tokio::task::JoinSet::new();
        for index in 0..200u32 {
            let mut client = client.clone();
            calls.spawn(async move {
                let text = format!("{index}");
                match index % 5 {
                    0 => {
                        let answer = client.method1(Method1Request { text: text.clone() }).await.unwrap().into_inner();
                        assert_eq!(answer.text, text);
                    }
                    1 => {
                        let request = Method2Request { text, count: 50 };
                        let mut answers = client.method2(request).await.unwrap().into_inner();
                        let mut next = 0;
                        while let Some(answer) = answers.message().await.unwrap() {
                            assert_eq!(answer.index, next);
                            next += 1;
                        }
                        assert_eq!(next, 50);
                    }
                    2 => {
                        let texts = (0..50).map(|each| Method3Request { text: each.to_string() });
                        let answer = client.method3(tokio_stream::iter(texts)).await.unwrap().into_inner();
                        assert_eq!(answer.count, 50);
                    }
                    3 => {
                        let texts = (0..50).map(|each| StreamRequest { text: each.to_string() });
                        let mut answers = client.stream_method(tokio_stream::iter(texts)).await.unwrap().into_inner();
                        let mut next = 0;
                        while let Some(answer) = answers.message().await.unwrap() {
                            assert_eq!(answer.text, next.to_string());
                            next += 1;
                        }
                        assert_eq!(next, 50);
                    }
                    // Dropped in the middle.
                    _ => {
                        let request = Method2Request { text: "x".repeat(20_000), count: 1000 };
                        let mut answers = client.method2(request).await.unwrap().into_inner();
                        for _ in 0..index % 7 {
                            answers.message().await.unwrap().unwrap();
                        }
                    }
                }
            });
        }
        while let Some(call) = timeout(PATIENCE * 3, calls.join_next()).await.unwrap() {
            call.unwrap();
        }
        let answer = client.method1(Method1Request { text: "still there".to_owned() }).await.unwrap().into_inner();
        assert_eq!(answer.text, "still there");
        drop(client);
        road.end().await;
    }
}
