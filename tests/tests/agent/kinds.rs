//! All four kinds of calls, as a tonic client makes them.

use grpcrouter_runtime::Upstream;
use grpcrouter_tests::world::TestGateway;
use myservice::proto::{Method1Request, Method2Request, Method3Request, StreamRequest};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, iter, wrappers::ReceiverStream};
use tonic::Code;

use crate::SERVICE;
use crate::world::{Server, TestAgent, With};

#[tokio::test]
async fn all_four_kinds_reach_an_unmodified_server_and_come_back() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With::default()).await;
    let agent = TestAgent::start(&gateway, Upstream::new(server.address.to_string()).service(SERVICE)).await;
    let mut client = gateway.client().await;

    let one = client.method1(Method1Request { text: "one".into() }).await.unwrap().into_inner();
    assert_eq!((&*one.text, &*one.instance_id), ("one", "upstream"));

    let many = client.method2(Method2Request { text: "many".into(), count: 3 }).await.unwrap().into_inner();
    let many: Vec<_> = many.map(|answer| answer.unwrap().index).collect().await;
    assert_eq!(many, [0, 1, 2]);

    let upload = ["a", "b", "c"].map(|text| Method3Request { text: text.into() });
    let taken = client.method3(iter(upload)).await.unwrap().into_inner();
    assert_eq!((taken.count, &*taken.text), (3, "a b c"));

    // Each answer before the next question: nothing is assembled on the way.
    let (questions, asked) = mpsc::channel(1);
    questions.send(StreamRequest { text: "0".into() }).await.unwrap();
    let mut answers = client.stream_method(ReceiverStream::new(asked)).await.unwrap().into_inner();
    for round in 0..5 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.index, answer.text), (round, round.to_string()));
        questions.send(StreamRequest { text: (round + 1).to_string() }).await.unwrap();
    }
    drop(questions);
    assert_eq!(answers.message().await.unwrap().unwrap().index, 5);
    assert!(answers.message().await.unwrap().is_none());

    gateway.idle().await;
    drop((client, answers));
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn messages_larger_than_every_window_come_through_whole() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With::default()).await;
    let agent = TestAgent::start(&gateway, Upstream::new(server.address.to_string()).service(SERVICE)).await;
    let mut client = gateway.client().await;
    let text = "0123456789abcdef".repeat(128 * 1024);

    let answer = client.method1(Method1Request { text: text.clone() }).await.unwrap().into_inner();

    assert!(answer.text == text, "{} bytes of {}", answer.text.len(), text.len());
    drop(client);
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn an_error_of_the_service_comes_as_the_service_gave_it() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With::default()).await;
    let agent = TestAgent::start(&gateway, Upstream::new(server.address.to_string()).service(SERVICE)).await;
    let mut client = gateway.client().await;

    let status = client.method1(Method1Request { text: "fail".into() }).await.unwrap_err();

    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "no: ü"));
    assert_eq!(status.details(), [0, 1, 254, 255]);
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
    drop(client);
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn an_upstream_that_takes_one_call_at_a_time_gets_one_call_at_a_time() {
    let gateway = TestGateway::start().await;
    let server = Server::start(With { streams: 1, ..With::default() }).await;
    let agent = TestAgent::start(&gateway, Upstream::new(server.address.to_string()).service(SERVICE)).await;
    let client = gateway.client().await;

    let calls = (0..8).map(|i| {
        let mut client = client.clone();
        async move { client.method1(Method1Request { text: i.to_string() }).await.unwrap().into_inner().text }
    });
    let answers = futures_util::future::join_all(calls).await;

    assert_eq!(answers, (0..8).map(|i| i.to_string()).collect::<Vec<_>>());
    drop(client);
    agent.stop().await;
    server.stop().await;
    gateway.stop(vec![]).await;
}
