//! Corners of the gateway's road: many full instances, a client that reads slowly while the gateway stops, the window of a
//! tunnel, and calls from inside of the process while the gateway ends.

use std::{future::poll_fn, time::Duration};

use bytes::{Bytes, BytesMut};
use grpcrouter_protocol::{Headers, ResponsePart};
use grpcrouter_tests::{
    by_hand::ByHand,
    raw::{RawClient, frame},
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::{
    Method1Response, Method3Request, my_service_client::MyServiceClient, my_service_router::MyServiceRouter,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt;

use super::{Connected, METHOD1, ok, text};

#[tokio::test]
async fn a_call_finds_the_one_instance_with_room_among_many_that_are_full() {
    const FULL: usize = 12;
    let gateway = TestGateway::start().await;
    let client = Connected::to(&gateway).await;
    let mut instances = Vec::new();
    let mut calls = Vec::new();
    for number in 0..=FULL {
        let id = format!("{number:02}");
        let hello = ByHand::introduction(&id, 1).unwrap();
        let mut instance = ByHand::hello(gateway.address, &hello).await.unwrap();
        gateway.instances(number + 1).await;
        if number < FULL {
            let mut call = client.client.call(METHOD1, &[("instanceid", &id)]).await.unwrap();
            call.request.send_data(frame(&text("x")), true).unwrap();
            instance.started().await.unwrap();
            calls.push(call);
        }
        instances.push(instance);
    }

    // Whoever's turn it is, all the others are full.
    let mut room = instances.pop().unwrap();
    let mut call = client.client.call(METHOD1, &[]).await.unwrap();
    call.request.send_data(frame(&text("x")), true).unwrap();
    let (id, _) = timeout(PATIENCE, room.started()).await.unwrap().unwrap();
    room.respond(id, ResponsePart { headers: Some(Headers::default()), trailers: ok(), ..Default::default() }).unwrap();

    assert_eq!(timeout(PATIENCE, call.end()).await.unwrap().unwrap().code(), 0);
    drop(calls);
    instances.into_iter().chain([room]).for_each(ByHand::die);
    gateway.instances(0).await;
    client.die();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_an_answer_whose_call_was_over_before_the_gateway_stopped() {
    const LENGTH: usize = 60_000;
    let gateway = TestGateway::start_with(|builder| builder.drain_timeout(PATIENCE)).await;
    let mut instance = ByHand::register(gateway.address, "by hand").await.unwrap();
    gateway.instances(1).await;
    let socket = TcpStream::connect(gateway.address).await.unwrap();
    // The most of the answer stays at the gateway, in the hands of h2.
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(1_000).handshake::<_, Bytes>(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}{METHOD1}", gateway.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut upload) = client.ready().await.unwrap().send_request(request, false).unwrap();
    upload.send_data(frame(&text("x")), true).unwrap();
    let (id, _) = instance.started().await.unwrap();
    let answer = frame(&Method1Response { text: "y".repeat(LENGTH), ..Default::default() });
    let part = ResponsePart { headers: Some(Headers::default()), data: answer.clone(), trailers: ok() };
    instance.respond(id, part).unwrap();
    let mut body = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
    eventually("the call is over at the gateway", || gateway.gateway.stats().calls == 0).await;

    let stopped = gateway.begin_stop();

    // waits because a gateway that did not care would have cut the connection after 1.25 s
    sleep(Duration::from_millis(1_600)).await;
    let mut read = BytesMut::new();
    while let Some(data) = timeout(PATIENCE, body.data()).await.unwrap() {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        read.extend_from_slice(&data);
    }
    assert!(read == answer, "{} of {}", read.len(), answer.len());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    drop(body);
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    instance.die();
    connection.abort();
}

#[tokio::test]
async fn the_stream_of_a_tunnel_gets_its_large_window_though_register_comes_before_the_settings_are_acked() {
    let gateway = TestGateway::start().await;
    let (client, connection) = RawClient::connect(gateway.address).await.unwrap();

    let mut register = client.call("/grpcrouter.Router/Register", &[]).await.unwrap();

    // Other streams have 256 KiB. What this client can say of it ends at its own send buffer, 400 KiB.
    register.request.reserve_capacity(1 << 20);
    let widened = async {
        while register.request.capacity() <= 256 * 1024 {
            poll_fn(|cx| register.request.poll_capacity(cx)).await.unwrap().unwrap();
        }
    };
    timeout(PATIENCE, widened).await.unwrap();
    drop((register, client));
    connection.abort();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_gateway_that_stops_takes_no_more_calls_from_inside_and_finishes_those_that_run() {
    let gateway = TestGateway::start_with(|builder| builder.drain_timeout(PATIENCE * 2)).await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = MyServiceClient::new(MyServiceRouter::new(&gateway.gateway));
    let (messages, queue) = tokio::sync::mpsc::channel(1);
    let mut uploads = MyServiceClient::new(MyServiceRouter::new(&gateway.gateway));
    let running = tokio::spawn(async move { uploads.method3(ReceiverStream::new(queue)).await });
    messages.send(Method3Request { text: "before".to_owned() }).await.unwrap();
    backend.probe.saw("method3 message", 1).await;

    let stopped = gateway.begin_stop();

    // While a call runs that does not end before this has.
    let refused = async {
        loop {
            if let Err(status) = client.method1(text("more")).await {
                return status;
            }
        }
    };
    let status = timeout(PATIENCE, refused).await.unwrap();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"), "{status:?}");
    assert_eq!(info.metadata["outcome"], "NOT_SENT");
    messages.send(Method3Request { text: "after".to_owned() }).await.unwrap();
    drop(messages);
    let answer = timeout(PATIENCE, running).await.unwrap().unwrap().unwrap().into_inner();
    assert_eq!(answer.text, "before after");
    timeout(PATIENCE, stopped).await.unwrap().unwrap().unwrap();
    backend.kill().await;
}

#[tokio::test]
async fn a_gateway_has_as_many_calls_open_as_it_may_and_tells_the_next_one() {
    let gateway = TestGateway::start_with(|builder| builder.max_calls(2)).await;
    let mut instance = ByHand::register(gateway.address, "a").await.unwrap();
    gateway.instances(1).await;
    let client = Connected::to(&gateway).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut call = client.client.call(METHOD1, &[]).await.unwrap();
        call.request.send_data(frame(&text("x")), true).unwrap();
        open.push((call, timeout(PATIENCE, instance.started()).await.unwrap().unwrap().0));
    }

    let refused = client.client.unary(METHOD1, &[], &text("one more")).await.unwrap();

    assert_eq!(refused.code(), Code::ResourceExhausted as i32);
    assert_eq!(refused.reason(), ("TOO_MANY_CALLS".to_owned(), "NOT_SENT".to_owned()));
    for (call, id) in open {
        let end = ResponsePart { headers: Some(Headers::default()), trailers: ok(), ..Default::default() };
        instance.respond(id, end).unwrap();
        assert_eq!(timeout(PATIENCE, call.end()).await.unwrap().unwrap().code(), 0);
    }
    gateway.idle().await;
    let mut next = client.client.call(METHOD1, &[]).await.unwrap();
    next.request.send_data(frame(&text("x")), true).unwrap();
    timeout(PATIENCE, instance.started()).await.unwrap().unwrap();
    drop(next);
    gateway.idle().await;
    instance.die();
    client.die();
    gateway.stop(Vec::new()).await;
}
