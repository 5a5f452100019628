//! The same tests, whether the service is called directly, through the gateway, or offers both at once: a client sees
//! no difference.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::net::SocketAddr;

use grpcrouter_runtime::Backend;
use grpcrouter_tests::{
    probe::{Probe, say},
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::{
    Method1Request, Method2Request, Method3Request, StreamRequest, my_service_client::MyServiceClient,
    my_service_server::MyServiceServer,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};

/// How a client reaches the service.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// The service listens; there is no gateway.
    Direct,
    /// The service only dials out.
    Router,
    /// Both; called directly.
    BothDirect,
    /// Both; called through the gateway.
    BothRouter,
}

struct Place {
    gateway: Option<TestGateway>,
    backend: TestBackend,
    client: MyServiceClient<Channel>,
}

impl Place {
    async fn new(way: Way) -> Self {
        let gateway = match way {
            Way::Direct => None,
            Way::Router | Way::BothDirect | Way::BothRouter => Some(TestGateway::start().await),
        };
        let probe = Probe::new("a");
        let mut builder = Backend::builder()
            .instance_id("a")
            .add_service(MyServiceServer::new(probe.clone()))
            .drain_timeout(PATIENCE);
        let listen: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if !matches!(way, Way::Router) {
            builder = builder.listen(listen);
        }
        if let Some(gateway) = &gateway {
            builder = builder.gateway(gateway.uri());
        }
        let backend = TestBackend::serve(builder.build().unwrap(), probe);
        if let Some(gateway) = &gateway {
            gateway.instances(1).await;
        }
        if !matches!(way, Way::Router) {
            eventually("the backend listens", || std::net::TcpStream::connect(listen).is_ok()).await;
        }
        let target = match (way, &gateway) {
            (Way::Router | Way::BothRouter, Some(gateway)) => gateway.uri(),
            _ => format!("http://{listen}"),
        };
        let client = MyServiceClient::connect(target).await.unwrap();
        Self { gateway, backend, client }
    }

    async fn end(self) {
        drop(self.client);
        match self.gateway {
            Some(gateway) => gateway.stop(vec![self.backend]).await,
            None => self.backend.stop().await,
        }
    }
}

async fn the_four_kinds(way: Way) {
    let place = Place::new(way).await;
    let mut client = place.client.clone();

    let answer = client.method1(Method1Request { text: "one".to_owned() }).await.unwrap().into_inner();
    assert_eq!((answer.text.as_str(), answer.instance_id.as_str()), ("one", "a"));

    let answers = client.method2(Method2Request { text: "two".to_owned(), count: 5 }).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap()).collect().await;
    assert_eq!(answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(answers.iter().all(|answer| answer.text == "two"));

    let upload = ["a", "b", "c"].map(|text| Method3Request { text: text.to_owned() });
    let answer = client.method3(tokio_stream::iter(upload)).await.unwrap().into_inner();
    assert_eq!((answer.count, answer.text.as_str()), (3, "a b c"));

    let (sender, messages) = tokio::sync::mpsc::channel(1);
    let mut answers = client.stream_method(ReceiverStream::new(messages)).await.unwrap().into_inner();
    for (index, text) in ["x", "y", "z"].into_iter().enumerate() {
        // Each answer is read before the next message is sent: nothing waits for more.
        sender.send(StreamRequest { text: text.to_owned() }).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.text.as_str(), answer.index), (text, u32::try_from(index).unwrap()));
    }
    drop(sender);
    assert!(answers.message().await.unwrap().is_none());
    drop((client, answers));
    place.end().await;
}

async fn metadata_crosses_both_ways(way: Way) {
    let place = Place::new(way).await;
    let mut client = place.client.clone();
    let mut request = Request::new(Method1Request { text: "m".to_owned() });
    request.metadata_mut().append("x-echo-a", "1".parse().unwrap());
    request.metadata_mut().append("x-echo-a", "2".parse().unwrap());
    request.metadata_mut().append_bin("x-echo-bin", MetadataValue::from_bytes(&[0, 1, 254, 255]));
    request.metadata_mut().insert("authorization", "Bearer t".parse().unwrap());

    let response = client.method1(request).await.unwrap();

    let metadata = response.metadata();
    assert_eq!(metadata.get_all("x-echo-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(metadata.get_bin("x-echo-bin").unwrap().to_bytes().unwrap().as_ref(), [0, 1, 254, 255]);
    let keys = metadata.get("x-keys").unwrap().to_str().unwrap();
    assert!(keys.split(' ').any(|key| key == "authorization"), "{keys}");
    assert!(!keys.contains("x-grpcrouter"), "{keys}");
    drop(client);
    place.end().await;
}

async fn a_status_arrives_with_message_details_and_metadata(way: Way) {
    let place = Place::new(way).await;
    let mut client = place.client.clone();

    let status = client.method1(Method1Request { text: say::FAIL.to_owned() }).await.unwrap_err();

    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "no: ü"));
    assert_eq!(status.details(), [0, 1, 254, 255]);
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
    drop(client);
    place.end().await;
}

async fn response_headers_come_before_any_message(way: Way) {
    let place = Place::new(way).await;
    let mut client = place.client.clone();
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    sender.send(StreamRequest { text: say::SILENT.to_owned() }).await.unwrap();

    // Returns on response headers; the service sends no message before the client ends.
    let mut answers = client.stream_method(ReceiverStream::new(messages)).await.unwrap().into_inner();

    place.backend.probe.saw("stream silent", 1).await;
    drop(sender);
    assert!(answers.message().await.unwrap().is_none());
    drop((client, answers));
    place.end().await;
}

async fn dropping_a_call_drops_its_handler(way: Way) {
    let place = Place::new(way).await;
    let mut client = place.client.clone();
    let call = tokio::spawn(async move { client.method1(Method1Request { text: say::STALL.to_owned() }).await });
    place.backend.probe.saw("method1 begins", 1).await;

    call.abort();

    place.backend.probe.saw("method1 dropped", 1).await;
    place.end().await;
}

async fn large_messages_arrive_whole(way: Way) {
    let place = Place::new(way).await;
    let mut client = place.client.clone();
    let text: String = ('a'..='z').cycle().take(3_000_000).collect();

    let answer = client.method1(Method1Request { text: text.clone() }).await.unwrap().into_inner();

    assert!(answer.text == text);
    drop(client);
    place.end().await;
}

macro_rules! in_every_mode {
    ($($test:ident),* $(,)?) => {
        mod direct { $(#[tokio::test] async fn $test() { super::$test(super::Way::Direct).await })* }
        mod router { $(#[tokio::test] async fn $test() { super::$test(super::Way::Router).await })* }
        mod both_called_directly { $(#[tokio::test] async fn $test() { super::$test(super::Way::BothDirect).await })* }
        mod both_called_through_the_gateway {
            $(#[tokio::test] async fn $test() { super::$test(super::Way::BothRouter).await })*
        }
    };
}

in_every_mode!(
    the_four_kinds,
    metadata_crosses_both_ways,
    a_status_arrives_with_message_details_and_metadata,
    response_headers_come_before_any_message,
    dropping_a_call_drops_its_handler,
    large_messages_arrive_whole,
);
