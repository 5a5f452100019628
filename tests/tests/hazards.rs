//! The hazards of the stack underneath that break promises of ours, each beside a control: the same scenario on plain
//! tonic, which shows that the hazard is real and that the test would see it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use grpcrouter_tests::{
    deadlines::{grpc_timeout, long_enough},
    probe::{Probe, say},
    raw::{RawClient, frame},
    world::{PATIENCE, TestBackend, TestGateway},
};
use myservice::proto::{Method1Request, Method2Request, Method3Request, my_service_server::MyServiceServer};

/// A plain tonic server on a free port.
async fn plain_tonic(probe: &Probe) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = MyServiceServer::new(probe.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    address
}

/// Uploads one message, waits until the handler has it, and cancels.
async fn cancelled_upload(client: &RawClient, probe: &Probe) {
    let mut call = client.call("/myservice.MyService/Method3", &[]).await.unwrap();
    call.request.send_data(frame(&Method3Request { text: "part".to_owned() }), false).unwrap();
    probe.saw("method3 message", 1).await;
    call.request.send_reset(h2::Reason::CANCEL);
}

#[tokio::test]
async fn h1_control_plain_tonic_takes_a_cancelled_upload_for_a_clean_end_if_a_task_reads_it() {
    let probe = Probe::new("plain");
    let (sender, mut ends) = tokio::sync::mpsc::channel(1);
    // What a naive gateway does: a task of its own pumps the client's stream.
    #[derive(Clone)]
    struct Pump(tokio::sync::mpsc::Sender<&'static str>, Probe);
    #[tonic::async_trait]
    impl myservice::proto::my_service_server::MyService for Pump {
        async fn method1(
            &self,
            _: tonic::Request<Method1Request>,
        ) -> Result<tonic::Response<myservice::proto::Method1Response>, tonic::Status> {
            Err(tonic::Status::unimplemented("not used"))
        }
        type Method2Stream = tokio_stream::Empty<Result<myservice::proto::Method2Response, tonic::Status>>;
        async fn method2(
            &self,
            _: tonic::Request<Method2Request>,
        ) -> Result<tonic::Response<Self::Method2Stream>, tonic::Status> {
            Err(tonic::Status::unimplemented("not used"))
        }
        async fn method3(
            &self,
            request: tonic::Request<tonic::Streaming<Method3Request>>,
        ) -> Result<tonic::Response<myservice::proto::Method3Response>, tonic::Status> {
            let mut messages = request.into_inner();
            let ends = self.0.clone();
            let log = self.1.clone();
            let pump = tokio::spawn(async move {
                loop {
                    match messages.message().await {
                        Ok(Some(_)) => log.note("method3 message"),
                        Ok(None) => return ends.send("clean end").await,
                        Err(_) => return ends.send("error").await,
                    }
                }
            });
            let _ = pump.await;
            Err(tonic::Status::unknown("over"))
        }
        type StreamMethodStream = tokio_stream::Empty<Result<myservice::proto::StreamResponse, tonic::Status>>;
        async fn stream_method(
            &self,
            _: tonic::Request<tonic::Streaming<myservice::proto::StreamRequest>>,
        ) -> Result<tonic::Response<Self::StreamMethodStream>, tonic::Status> {
            Err(tonic::Status::unimplemented("not used"))
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = MyServiceServer::new(Pump(sender, probe.clone()));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let (client, _connection) = RawClient::connect(address).await.unwrap();

    cancelled_upload(&client, &probe).await;

    assert_eq!(tokio::time::timeout(PATIENCE, ends.recv()).await.unwrap(), Some("clean end"));
}

#[tokio::test]
async fn h1_a_cancelled_upload_is_never_a_clean_end_behind_the_gateway() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();

    cancelled_upload(&client, &backend.probe).await;

    backend.probe.saw("method3 dropped", 1).await;
    assert_eq!(backend.probe.log(), ["method3 begins", "method3 message", "method3 dropped"]);
    drop(client);
    connection.abort();
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn h1_an_upload_whose_connection_dies_is_never_a_clean_end_behind_the_gateway() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let mut call = client.call("/myservice.MyService/Method3", &[]).await.unwrap();
    call.request.send_data(frame(&Method3Request { text: "part".to_owned() }), false).unwrap();
    backend.probe.saw("method3 message", 1).await;

    connection.abort();

    backend.probe.saw("method3 dropped", 1).await;
    assert_eq!(backend.probe.log(), ["method3 begins", "method3 message", "method3 dropped"]);
    drop((client, call));
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn h2_control_plain_tonic_answers_an_expired_deadline_with_cancelled() {
    let probe = Probe::new("plain");
    let (client, _connection) = RawClient::connect(plain_tonic(&probe).await).await.unwrap();
    let stall = Method1Request { text: say::STALL.to_owned() };

    let end = client.unary("/myservice.MyService/Method1", &[("grpc-timeout", "100m")], &stall).await.unwrap();

    assert_eq!(end.code(), tonic::Code::Cancelled as i32);
}

#[tokio::test]
async fn h2_the_gateway_answers_an_expired_deadline_with_deadline_exceeded() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();
    let stall = Method1Request { text: say::STALL.to_owned() };

    long_enough(async |deadline| {
        let timeout = grpc_timeout(deadline);
        let end = client.unary("/myservice.MyService/Method1", &[("grpc-timeout", &timeout)], &stall).await.unwrap();
        assert_eq!(end.code(), tonic::Code::DeadlineExceeded as i32);
        (backend.probe.times("method1 begins") > 0).then_some(())
    })
    .await;

    backend.probe.saw("method1 dropped", 1).await;
    drop(client);
    connection.abort();
    gateway.stop(vec![backend]).await;
}

/// Answers, one each 200 ms, for a second longer than the deadline; how it ended and whether there was any.
async fn slow_stream(client: &RawClient, deadline: Duration) -> (i32, bool) {
    let count = u32::try_from(deadline.as_millis() / 200 + 5).unwrap();
    let slow = Method2Request { text: say::SLOW.to_owned(), count };
    let timeout = grpc_timeout(deadline);
    let end = client.unary("/myservice.MyService/Method2", &[("grpc-timeout", &timeout)], &slow).await.unwrap();
    (end.code(), !end.body.is_empty())
}

#[tokio::test]
async fn h3_control_plain_tonic_forgets_the_deadline_once_response_headers_are_out() {
    let probe = Probe::new("plain");
    let (client, _connection) = RawClient::connect(plain_tonic(&probe).await).await.unwrap();

    let code = long_enough(async |deadline| {
        let (code, began) = slow_stream(&client, deadline).await;
        began.then_some(code)
    })
    .await;

    assert_eq!(code, tonic::Code::Ok as i32);
}

#[tokio::test]
async fn h3_the_deadline_runs_over_the_whole_call_behind_the_gateway() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();

    let code = long_enough(async |deadline| {
        let (code, began) = slow_stream(&client, deadline).await;
        began.then_some(code)
    })
    .await;

    assert_eq!(code, tonic::Code::DeadlineExceeded as i32);
    backend.probe.saw("method2 dropped", 1).await;
    drop(client);
    connection.abort();
    gateway.stop(vec![backend]).await;
}
