//! How calls end in a server that the gateway is mounted in, and how the gateway does: the same as with its own front,
//! but for what the docs of `Gateway::register_service` say.

use bytes::Bytes;
use grpcrouter_tests::deadlines::{grpc_timeout, long_enough};
use grpcrouter_tests::probe::say;
use grpcrouter_tests::raw::{RawCall, RawClient, frame};
use grpcrouter_tests::world::{PATIENCE, eventually, no_task_left, tasks};
use myservice::proto::my_service_client::MyServiceClient;
use myservice::proto::{Method1Request, Method2Request, Method3Request};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{MOUNTS, Mount, Place};

/// Path, the probe's name for it, and a message that its handler does not end on.
fn kinds() -> [(&'static str, &'static str, Bytes); 4] {
    let message = |text: &str, count| frame(&Method2Request { text: text.into(), count });
    [
        ("/myservice.MyService/Method1", "method1", message(say::STALL, 0)),
        ("/myservice.MyService/Method2", "method2", message(say::STALL, 2)),
        ("/myservice.MyService/Method3", "method3", message("more", 0)),
        ("/myservice.MyService/StreamMethod", "stream", message("more", 0)),
    ]
}

/// Begins a call and returns when its handler runs, for the `times`th time.
async fn begun(place: &Place, client: &RawClient, kind: &(&str, &str, Bytes), times: usize) -> RawCall {
    let (path, name, message) = kind;
    let mut call = client.call(path, &[]).await.unwrap();
    let uploads = matches!(*name, "method3" | "stream");
    call.request.send_data(message.clone(), !uploads).unwrap();
    place.probe().saw(&format!("{name} begins"), times).await;
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_of_any_kind_drops_the_handler_and_is_no_clean_end() {
    for mount in MOUNTS {
        let place = Place::new(mount, &["a"]).await;
        let client = place.raw().await;
        for kind in &kinds() {
            for times in 1..=CANCELS {
                let mut call = begun(&place, &client, kind, times).await;

                call.request.send_reset(h2::Reason::CANCEL);

                place.probe().saw(&format!("{} dropped", kind.1), times).await;
            }
        }
        assert_no_clean_end(&place, mount);
        place.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_drops_the_handlers_of_all_its_calls() {
    for mount in MOUNTS {
        let place = Place::new(mount, &["a"]).await;
        let (client, connection) = RawClient::connect(place.address).await.unwrap();
        let mut calls = Vec::new();
        for kind in &kinds() {
            calls.push(begun(&place, &client, kind, 1).await);
        }

        connection.abort();

        for (_, name, _) in &kinds() {
            place.probe().saw(&format!("{name} dropped"), 1).await;
        }
        assert_no_clean_end(&place, mount);
        place.end().await;
    }
}

fn assert_no_clean_end(place: &Place, mount: Mount) {
    for line in ["method3 clean end", "stream clean end"] {
        assert_eq!(place.probe().times(line), 0, "{mount:?}: {line}");
    }
}

#[tokio::test]
async fn calls_of_all_kinds_cancelled_and_not_leave_no_task_behind() {
    for mount in MOUNTS {
        let place = Place::new(mount, &["a"]).await;
        let client = place.raw().await;
        let answered = async || {
            let good = Method1Request { text: "x".into() };
            let end = client.unary("/myservice.MyService/Method1", &[], &good);
            assert_eq!(timeout(PATIENCE, end).await.unwrap().unwrap().code(), 0, "{mount:?}");
            place.idle().await;
        };
        answered().await;
        let idle = tasks();
        for times in 1..=5 {
            let mut calls = Vec::new();
            for kind in &kinds() {
                calls.push(begun(&place, &client, kind, times).await);
            }
            assert!(tasks() > idle, "{mount:?}: a call in a server of the user's has tasks");
            drop(calls);
            answered().await;
        }

        // While the server, the connection and the tunnel go on.
        eventually("no more tasks than without calls", || tasks() <= idle).await;
        drop(client);
        place.end().await;
        no_task_left().await;
    }
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_its_handler() {
    for mount in MOUNTS {
        let place = Place::new(mount, &["a"]).await;
        let code = long_enough(async |deadline| {
            let header = grpc_timeout(deadline);
            let raw = place.raw().await;
            let mut call = raw.call("/myservice.MyService/Method1", &[("grpc-timeout", &header)]).await.unwrap();
            call.request.send_data(frame(&Method1Request { text: say::STALL.into() }), true).unwrap();
            let code = timeout(PATIENCE, call.end()).await.unwrap().unwrap().code();
            (place.probe().times("method1 begins") > 0).then_some(code)
        })
        .await;

        place.probe().saw("method1 dropped", 1).await;
        match mount {
            Mount::Axum => assert_eq!(code, Code::DeadlineExceeded as i32),
            // tonic's own timer runs beside the gateway's, and says CANCELLED.
            Mount::Tonic | Mount::Typed => {
                assert!([Code::DeadlineExceeded as i32, Code::Cancelled as i32].contains(&code), "{mount:?}: {code}");
            }
        }
        place.end().await;
    }
}

#[tokio::test]
async fn a_deadline_holds_after_the_first_answer() {
    for mount in MOUNTS {
        let place = Place::new(mount, &["a"]).await;
        let code = long_enough(async |deadline| {
            let header = grpc_timeout(deadline);
            let raw = place.raw().await;
            let mut call = raw.call("/myservice.MyService/Method2", &[("grpc-timeout", &header)]).await.unwrap();
            call.request.send_data(frame(&Method2Request { text: say::STALL.into(), count: 2 }), true).unwrap();
            let end = timeout(PATIENCE, call.end()).await.unwrap().unwrap();
            (!end.body.is_empty()).then_some(end.code())
        })
        .await;

        assert_eq!(code, Code::DeadlineExceeded as i32, "{mount:?}");
        place.probe().saw("method2 dropped", 1).await;
        place.end().await;
    }
}

#[tokio::test]
async fn a_response_that_nobody_reads_waits_and_hinders_no_other_call() {
    for mount in MOUNTS {
        let place = Place::new(mount, &["a"]).await;
        let mut client = place.client().await;
        let request = Method2Request { text: "x".repeat(10_000), count: 1_000 };
        let mut answers = client.method2(request).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().index, 0);

        for _ in 0..20 {
            let answer = place.client().await.method1(Method1Request { text: "by".into() }).await.unwrap();
            assert_eq!(answer.into_inner().text, "by", "{mount:?}");
        }
        assert_eq!(place.probe().times("method2 done"), 0, "{mount:?}");
        for index in 1..1_000 {
            assert_eq!(answers.message().await.unwrap().unwrap().index, index, "{mount:?}");
        }
        assert_eq!(answers.message().await.unwrap(), None, "{mount:?}");
        place.end().await;
    }
}

#[tokio::test]
async fn a_drained_gateway_lets_the_server_end_and_what_runs_finish() {
    for mount in MOUNTS {
        let place = Place::new(mount, &["a"]).await;
        let mut client = place.client().await;
        let (messages, queue) = tokio::sync::mpsc::channel(1);
        let finishes = tokio::spawn(async move { client.method3(ReceiverStream::new(queue)).await });
        messages.send(Method3Request { text: "before".into() }).await.unwrap();
        place.probe().saw("method3 message", 1).await;

        place.stop.cancel();
        messages.send(Method3Request { text: "after".into() }).await.unwrap();
        drop(messages);

        let answer = timeout(PATIENCE, finishes).await.unwrap().unwrap().unwrap().into_inner();
        assert_eq!(answer.text, "before after", "{mount:?}");
        let gateway = place.gateway.clone();
        timeout(PATIENCE, place.server).await.expect("the server stops").unwrap();
        assert_eq!((gateway.stats().tunnels, gateway.stats().calls), (0, 0), "{mount:?}");
        for backend in place.backends {
            backend.stop().await;
        }
    }
}

#[tokio::test]
async fn what_does_not_finish_in_the_drain_timeout_ends_unavailable() {
    for mount in MOUNTS {
        let place = Place::new(mount, &["a"]).await;
        let mut client = place.client().await;
        let call = tokio::spawn(async move { client.method1(Method1Request { text: say::STALL.into() }).await });
        place.probe().saw("method1 begins", 1).await;

        place.stop.cancel();

        let status = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the gateway is shutting down"), "{mount:?}");
        place.probe().saw("method1 dropped", 1).await;
        timeout(PATIENCE, place.server).await.expect("the server stops").unwrap();
        for backend in place.backends {
            backend.stop().await;
        }
    }
}

#[tokio::test]
async fn a_drained_gateway_can_be_served_again() {
    let mut place = Place::new(Mount::Tonic, &["a"]).await;
    place.gateway.drain().await;
    assert_eq!(place.gateway.stats().tunnels, 0);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (gateway, stop) = (place.gateway.clone(), place.stop.clone());
    let served = tokio::spawn(async move { gateway.serve(listener, stop.cancelled()).await.unwrap() });

    // It dials again by itself, through the old server.
    eventually("the backend is back", || place.gateway.stats().instances == 1).await;
    let mut client = MyServiceClient::connect(format!("http://{address}")).await.unwrap();
    let answer = client.method1(Method1Request { text: "again".into() }).await.unwrap();
    assert_eq!(answer.into_inner().text, "again");

    drop(client);
    place.backends.pop().unwrap().stop().await;
    place.end().await;
    timeout(PATIENCE, served).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upload_that_the_server_cannot_decode_never_ends_well_at_the_service() {
    let place = Place::new(Mount::Typed, &["a"]).await;
    for (path, name, good) in kinds().into_iter().skip(2) {
        let mut call = place.raw().await.call(path, &[]).await.unwrap();
        call.request.send_data(good, false).unwrap();
        place.probe().saw(&format!("{name} begins"), 1).await;
        // A field that says it is longer than the message.
        call.request.send_data(Bytes::from_static(b"\0\0\0\0\x02\x0a\x7f"), true).unwrap();

        let end = timeout(PATIENCE, call.end()).await.unwrap().unwrap();

        assert_eq!(end.code(), Code::Internal as i32, "{name}: {end:?}");
        place.probe().saw(&format!("{name} dropped"), 1).await;
    }
    assert_no_clean_end(&place, Mount::Typed);
    place.end().await;
}

/// Of each kind, in each server.
const CANCELS: usize = 25;
