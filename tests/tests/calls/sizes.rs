//! Messages of any size arrive as they were sent.

use grpcrouter_tests::world::{TestBackend, TestGateway};
use myservice::proto::{
    Method1Request, Method2Request, Method3Request, StreamRequest, my_service_client::MyServiceClient,
};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

const MIB: usize = 1024 * 1024;

/// Text in which no two places look alike.
fn text(length: usize) -> String {
    let mut text = String::with_capacity(length + 8);
    for number in 0.. {
        if text.len() >= length {
            break;
        }
        text.push_str(&format!("{number:07x} "));
    }
    text.truncate(length);
    text
}

async fn world() -> (TestGateway, TestBackend, MyServiceClient<Channel>) {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start_with(&gateway, "a", |builder| builder).await;
    let client = gateway.client().await;
    let client = client.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
    (gateway, backend, client)
}

#[tokio::test]
async fn messages_of_no_byte_one_byte_and_four_mebibytes_pass_in_all_four_kinds() {
    let (gateway, backend, mut client) = world().await;
    for text in [text(0), text(1), text(4 * MIB)] {
        let answer = client.method1(Method1Request { text: text.clone() }).await.unwrap().into_inner();
        assert!(answer.text == text);
        let request = Method2Request { text: text.clone(), count: 3 };
        let answers: Vec<_> = client.method2(request).await.unwrap().into_inner().collect().await;
        assert!(answers.len() == 3 && answers.into_iter().all(|answer| answer.unwrap().text == text));
        let request = vec![Method3Request { text: text.clone() }; 3];
        let answer = client.method3(tokio_stream::iter(request)).await.unwrap().into_inner();
        assert!(answer.count == 3 && answer.text == [&*text; 3].join(" "));
        let request = vec![StreamRequest { text: text.clone() }; 3];
        let answers: Vec<_> =
            client.stream_method(tokio_stream::iter(request)).await.unwrap().into_inner().collect().await;
        assert!(answers.len() == 3 && answers.into_iter().all(|answer| answer.unwrap().text == text));
    }
    drop(client);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_message_of_64_mebibytes_passes_both_ways() {
    let (gateway, backend, mut client) = world().await;
    let text = text(64 * MIB);

    let answer = client.method1(Method1Request { text: text.clone() }).await.unwrap().into_inner();
    assert!(answer.text == text);
    let request = tokio_stream::iter([StreamRequest { text: text.clone() }]);
    let mut answers = client.stream_method(request).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().text == text);
    assert!(answers.message().await.unwrap().is_none());

    drop((client, answers));
    gateway.stop(vec![backend]).await;
}
