//! A client that vanishes leaves nothing behind, at whatever step it does.

use grpcrouter_tests::{
    raw::{RawClient, frame},
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::{Method1Request, Method2Request};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::{KINDS, Kind, UNARY};

/// How far a client gets before its connection dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Headers,
    InsideAPrefix,
    InsideAMessage,
    AfterAMessage,
    HandlerRuns,
    AnswerBegun,
    AnswerUnread,
    AllRead,
}

const STEPS: [Step; 8] = [
    Step::Headers,
    Step::InsideAPrefix,
    Step::InsideAMessage,
    Step::AfterAMessage,
    Step::HandlerRuns,
    Step::AnswerBegun,
    Step::AnswerUnread,
    Step::AllRead,
];

/// Goes as far as `step` and vanishes.
async fn vanish(gateway: &TestGateway, backend: &TestBackend, kind: Kind, step: Step) {
    let begun = backend.probe.times(&kind.begins());
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let mut call = client.call(kind.path, &[]).await.unwrap();
    let message = match step {
        Step::AllRead => kind.message("x"),
        Step::AnswerUnread if kind.answers && !kind.uploads => {
            frame(&Method2Request { text: "y".repeat(10_000), count: 1_000 })
        }
        _ => kind.endless(),
    };
    let sent = match step {
        Step::Headers => 0,
        Step::InsideAPrefix => 3,
        Step::InsideAMessage => 7,
        _ => message.len(),
    };
    let whole = !kind.uploads && !matches!(step, Step::AfterAMessage);
    let end = (sent == message.len() && whole) || step == Step::AllRead;
    if sent > 0 {
        call.request.send_data(message.slice(..sent), end).unwrap();
    }
    match step {
        // An upload's handler runs from the start on; the others want their whole message.
        Step::HandlerRuns => backend.probe.saw(&kind.begins(), begun + 1).await,
        Step::AnswerBegun | Step::AnswerUnread if kind.answers => {
            let mut response = timeout(PATIENCE, call.response).await.unwrap().unwrap();
            if step == Step::AnswerBegun {
                timeout(PATIENCE, response.body_mut().data()).await.unwrap().unwrap().unwrap();
            }
            connection.abort();
            let _ = connection.await;
            return;
        }
        Step::AllRead => assert_eq!(timeout(PATIENCE, call.end()).await.unwrap().unwrap().code(), 0),
        _ => {}
    }
    connection.abort();
    let _ = connection.await;
}

#[tokio::test]
async fn a_client_that_vanishes_at_any_step_of_any_kind_leaves_no_call_no_byte_and_no_handler() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (steady, connection) = RawClient::connect(gateway.address).await.unwrap();
    for kind in KINDS {
        for step in STEPS {
            println!("{} {step:?}", kind.name);
            vanish(&gateway, &backend, kind, step).await;

            eventually("its connection is gone", || gateway.gateway.stats().connections == 2).await;
            gateway.idle().await;
            let probe = &backend.probe;
            let done = format!("{} done", kind.name);
            eventually("every handler that began has ended", || {
                probe.times(&kind.begins()) == probe.times(&kind.dropped()) + probe.times(&done)
            })
            .await;
            let message = Method1Request { text: "still here".to_owned() };
            let end = steady.unary(UNARY.path, &[], &message);
            assert_eq!(timeout(PATIENCE, end).await.unwrap().unwrap().code(), 0);
        }
    }
    // Only who read everything had ended its upload.
    assert_eq!(backend.probe.times("method3 clean end"), 1);
    assert_eq!(backend.probe.times("stream clean end"), 1);
    assert!(!backend.probe.log().iter().any(|line| line.contains("error")));
    drop(steady);
    connection.abort();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_client_that_vanishes_before_its_first_call_leaves_nothing() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // The head of a HEADERS frame whose block never comes.
    const HALF_HEADERS: &[u8] = &[0, 0, 200, 1, 4, 0, 0, 0, 1, 0x82];
    let gateway = TestGateway::start().await;
    let steps =
        [&b""[..], &PREFACE[..9], PREFACE, &[PREFACE, SETTINGS].concat(), &[PREFACE, SETTINGS, HALF_HEADERS].concat()];
    for said in steps {
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        socket.write_all(said).await.unwrap();
        eventually("the gateway has it", || gateway.gateway.stats().connections == 1).await;

        drop(socket);

        eventually("it is gone", || gateway.gateway.stats().connections == 0).await;
    }
    gateway.stop(Vec::new()).await;
}
