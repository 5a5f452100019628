//! The token goes to the gateway and nowhere else, and what the gateway says of it is told.

use std::{fs, net::SocketAddr};

use bytes::Bytes;
use grpcrouter_protocol::{RejectReason, Rejected, Welcome, encode_welcome};
use grpcrouter_runtime::DialStep;
use grpcrouter_tests::world::PATIENCE;
use http::{HeaderMap, HeaderValue};
use tokio::{sync::mpsc, time::timeout};

use crate::{backend, doors, problem, serve};

/// A gateway that lets nobody in. What came as `authorization` is told.
async fn refusing(with: Refusal) -> (SocketAddr, mpsc::UnboundedReceiver<Option<HeaderValue>>) {
    let (told, came) = mpsc::unbounded_channel();
    let address = doors::serve(move |stream| {
        let told = told.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let _ = told.send(request.headers().get("authorization").cloned());
                let head = http::Response::builder().header("content-type", "application/grpc");
                let mut trailers = HeaderMap::new();
                match with {
                    Refusal::Status(code, message) => {
                        trailers.insert("grpc-status", code.into());
                        trailers.insert("grpc-message", HeaderValue::from_static(message));
                        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        let _ = stream.send_trailers(trailers);
                    }
                    Refusal::Rejected(reason, message) => {
                        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        let welcome: Bytes = encode_welcome(&Welcome::Rejected(Rejected {
                            reason,
                            message: message.to_owned(),
                            retry_after: std::time::Duration::ZERO,
                            gateways: Vec::new(),
                            versions: None,
                        }));
                        let _ = stream.send_data(welcome, false);
                        trailers.insert("grpc-status", 0.into());
                        let _ = stream.send_trailers(trailers);
                    }
                }
            }
        }
    })
    .await;
    (address, came)
}

#[derive(Clone, Copy)]
enum Refusal {
    Status(u16, &'static str),
    Rejected(RejectReason, &'static str),
}

#[tokio::test]
async fn the_token_is_read_anew_for_each_dial_and_goes_out_as_bearer() {
    let (address, mut came) = refusing(Refusal::Rejected(RejectReason::Unauthenticated, "no")).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "grt_1_old\n").unwrap();

    let backend = serve(backend(&format!("http://{address}")).token_file(file.path()));

    assert_eq!(timeout(PATIENCE, came.recv()).await.unwrap().unwrap().unwrap(), "Bearer grt_1_old");
    fs::write(file.path(), "grt_1_new\n").unwrap();
    timeout(PATIENCE, async { while came.recv().await.unwrap().unwrap() != "Bearer grt_1_new" {} }).await.unwrap();
    backend.stop().await;
}

#[tokio::test]
async fn without_a_token_none_is_sent_and_each_refusal_is_told_with_its_reason() {
    for (refusal, words) in [
        (
            Refusal::Rejected(RejectReason::Unauthenticated, "the token has expired"),
            ["(UNAUTHENTICATED): the token has expired; ", "--token-file"],
        ),
        (
            Refusal::Rejected(RejectReason::PermissionDenied, "not shop.Orders"),
            ["(PERMISSION_DENIED): not shop.Orders; ", "what its token or certificate allows"],
        ),
        (
            Refusal::Rejected(RejectReason::Version, "we speak 2 to 3"),
            ["(VERSION): we speak 2 to 3; ", "update the older"],
        ),
        (Refusal::Rejected(RejectReason::Draining, "about to stop"), ["(DRAINING): about to stop; ", "its successor"]),
        (Refusal::Rejected(RejectReason::Flapping, "two of them"), ["(FLAPPING): two of them; ", ".instance_id(..)"]),
        (Refusal::Status(16, "who are you"), ["(UNAUTHENTICATED): who are you; ", "--token-file"]),
        (Refusal::Status(7, "not you"), ["(PERMISSION_DENIED): not you; ", "what its token"]),
    ] {
        let (address, mut came) = refusing(refusal).await;

        let (step, said) = problem(backend(&format!("http://{address}"))).await;

        assert_eq!(came.recv().await.unwrap(), None);
        assert_eq!(step, DialStep::Register, "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
}
