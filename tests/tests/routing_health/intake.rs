//! Calls of the gateway's own services come in by the same rules as any other.

use bytes::Bytes;
use grpcrouter_tests::{raw::frame, world::TestGateway};

use super::*;

const CHECK: &str = "/grpc.health.v1.Health/Check";

#[tokio::test]
async fn what_is_no_grpc_or_malformed_is_refused_as_everywhere() {
    let gateway = TestGateway::start().await;
    let raw = gateway.raw().await;
    let ask = async |path: &str, headers: &[(&str, &str)]| raw.unary(path, headers, &question("")).await.unwrap();

    assert_eq!(ask(CHECK, &[("content-type", "application/json")]).await.http_status, 415);
    assert_eq!(ask(CHECK, &[("grpc-timeout", "soon")]).await.code(), Code::Internal as i32);
    assert_eq!(ask(CHECK, &[("grpc-timeout", "0S")]).await.code(), Code::DeadlineExceeded as i32);
    let large = "x".repeat(17 * 1024);
    assert_eq!(ask(CHECK, &[("x-large", &large)]).await.code(), Code::ResourceExhausted as i32);
    assert_eq!(ask("/grpc.health.v1.Health/Chek", &[]).await.code(), Code::Unimplemented as i32);
    assert_eq!(ask("/grpc.health.v2.Health/Check", &[]).await.code(), Code::Unimplemented as i32);
    let mut get = raw.call_with(http::Method::PUT, CHECK, &[]).await.unwrap();
    get.request.send_data(frame(&question("")), true).unwrap();
    assert_eq!(get.end().await.unwrap().http_status, 405);

    let well = ask(CHECK, &[]).await;
    assert_eq!((well.code(), well.body.as_ref()), (0, &[0, 0, 0, 0, 2, 8, 1][..]));
    drop(raw);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_question_that_is_long_is_refused_by_its_prefix() {
    let gateway = TestGateway::start().await;
    let raw = gateway.raw().await;
    let mut call = raw.call(CHECK, &[]).await.unwrap();

    call.request.send_data(Bytes::from_static(&[0, 0, 1, 0, 1]), false).unwrap();
    let end = call.response.await.unwrap();

    let status = tonic::Status::from_header_map(end.headers()).unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.message(), "a message of the request is too large: 65537, the limit is 65536");
    drop((raw, call.request));
    gateway.stop(Vec::new()).await;
}
