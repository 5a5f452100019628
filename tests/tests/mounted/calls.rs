//! Calls through a server that the gateway is mounted in: what a client sees is what the service says.

use grpcrouter_tests::probe::say;
use grpcrouter_tests::raw::frame;
use myservice::proto::{
    Method1Request, Method2Request, Method3Request, StreamRequest, my_service_client::MyServiceClient,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::{MOUNTS, Mount, Place};

/// Runs a test in each of the servers.
macro_rules! in_each {
    ($($name:ident),+ $(,)?) => {
        mod in_tonic { $(#[tokio::test] async fn $name() { super::$name(crate::Mount::Tonic).await; })+ }
        mod in_tonic_typed { $(#[tokio::test] async fn $name() { super::$name(crate::Mount::Typed).await; })+ }
        mod in_axum { $(#[tokio::test] async fn $name() { super::$name(crate::Mount::Axum).await; })+ }
    };
}

in_each!(
    all_four_kinds_reach_a_backend_that_registered_there,
    the_routing_key_chooses_the_instance,
    the_prefix_is_served_beside_the_bare_path,
    metadata_and_failures_cross_as_they_are,
    a_message_above_four_mebibytes_crosses,
    without_an_instance_the_answer_is_the_gateways_own,
    a_method_that_is_none_is_unimplemented,
);

async fn all_four_kinds_reach_a_backend_that_registered_there(mount: Mount) {
    let place = Place::new(mount, &["a"]).await;
    let mut client = place.client().await;

    let answer = client.method1(Method1Request { text: "one".into() }).await.unwrap().into_inner();
    assert_eq!((answer.text.as_str(), answer.instance_id.as_str()), ("one", "a"));

    let answers = client.method2(Method2Request { text: "two".into(), count: 5 }).await.unwrap().into_inner();
    let indices: Vec<_> = answers.map(|answer| answer.unwrap().index).collect().await;
    assert_eq!(indices, [0, 1, 2, 3, 4]);

    let messages = ["a", "b", "c"].map(|text| Method3Request { text: text.into() });
    let answer = client.method3(tokio_stream::iter(messages)).await.unwrap().into_inner();
    assert_eq!((answer.count, answer.text.as_str()), (3, "a b c"));

    let (messages, queue) = tokio::sync::mpsc::channel(1);
    let mut answers = client.stream_method(ReceiverStream::new(queue)).await.unwrap().into_inner();
    for index in 0..3 {
        // Each answer is read before the next message is sent: nothing waits for more.
        messages.send(StreamRequest { text: "s".into() }).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().index, index);
    }
    drop(messages);
    assert_eq!(answers.message().await.unwrap(), None);
    place.end().await;
}

async fn the_routing_key_chooses_the_instance(mount: Mount) {
    let place = Place::new(mount, &["a", "b"]).await;
    let mut client = place.client().await;
    let mut ask = async |id: &'static str| {
        let mut request = Request::new(Method1Request { text: "m".into() });
        request.metadata_mut().insert("instanceid", MetadataValue::from_static(id));
        client.method1(request).await.map(|answer| answer.into_inner().instance_id)
    };

    for id in ["b", "b", "a", "b"] {
        assert_eq!(ask(id).await.unwrap(), id);
    }
    let refused = ask("z").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("has the routing key instanceid = \"z\"; connected: a, b"), "{refused}");
    place.end().await;
}

async fn the_prefix_is_served_beside_the_bare_path(mount: Mount) {
    let place = Place::new(mount, &["a"]).await;
    let uri = place.uri();
    let channel = tonic::transport::Endpoint::from_shared(uri.clone()).unwrap().connect().await.unwrap();
    let mut client = MyServiceClient::with_origin(channel, format!("{uri}/api/v1").parse().unwrap());

    let answer = client.method1(Method1Request { text: "p".into() }).await.unwrap();

    assert_eq!(answer.into_inner().text, "p");
    place.end().await;
}

async fn metadata_and_failures_cross_as_they_are(mount: Mount) {
    let place = Place::new(mount, &["a"]).await;
    let mut client = place.client().await;
    let mut request = Request::new(Method1Request { text: "m".into() });
    request.metadata_mut().append("x-echo-a", "1".parse().unwrap());
    request.metadata_mut().append("x-echo-a", "2".parse().unwrap());
    request.metadata_mut().append_bin("x-echo-bin", MetadataValue::from_bytes(&[0, 1, 254, 255]));

    let answer = client.method1(request).await.unwrap();
    let values: Vec<_> = answer.metadata().get_all("x-echo-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(answer.metadata().get_bin("x-echo-bin").unwrap().to_bytes().unwrap(), [0u8, 1, 254, 255].as_slice());

    let failure = client.method1(Method1Request { text: say::FAIL.into() }).await.unwrap_err();
    assert_eq!((failure.code(), failure.message()), (Code::FailedPrecondition, "no: ü"));
    assert_eq!(failure.details(), [0, 1, 254, 255]);
    assert_eq!(failure.metadata().get("x-why").unwrap(), "because");
    place.end().await;
}

async fn a_message_above_four_mebibytes_crosses(mount: Mount) {
    let place = Place::new(mount, &["a"]).await;
    let text = "x".repeat(5 << 20);

    let answer = place.client().await.method1(Method1Request { text: text.clone() }).await.unwrap();

    assert!(answer.into_inner().text == text);
    place.end().await;
}

async fn without_an_instance_the_answer_is_the_gateways_own(mount: Mount) {
    let place = Place::new(mount, &[]).await;
    let request = Method1Request { text: "m".into() };

    let end = place.raw().await.unary("/myservice.MyService/Method1", &[], &request).await.unwrap();

    assert_eq!(end.code(), Code::Unavailable as i32);
    assert_eq!(end.reason(), ("NO_INSTANCE".to_owned(), "NOT_SENT".to_owned()));
    place.end().await;
}

async fn a_method_that_is_none_is_unimplemented(mount: Mount) {
    let place = Place::new(mount, &["a"]).await;
    let request = Method1Request { text: "m".into() };

    let end = place.raw().await.unary("/myservice.MyService/Metod1", &[], &request).await.unwrap();

    assert_eq!(end.code(), Code::Unimplemented as i32);
    if mount != Mount::Typed {
        // There tonic answers, which knows no nearest name.
        let status = tonic::Status::from_header_map(&end.trailers).unwrap();
        assert_eq!(status.message(), "service myservice.MyService has no method Metod1; did you mean Method1?");
    }
    place.end().await;
}

#[tokio::test]
async fn a_unary_call_with_two_messages_never_reaches_the_service() {
    for mount in MOUNTS {
        if mount == Mount::Typed {
            // tonic's server reads the first and looks no further.
            continue;
        }
        let place = Place::new(mount, &["a"]).await;
        let mut call = place.raw().await.call("/myservice.MyService/Method1", &[]).await.unwrap();
        let message = frame(&Method1Request { text: "m".into() });
        call.request.send_data([message.clone(), message].concat().into(), true).unwrap();

        let end = call.end().await.unwrap();

        assert_eq!(end.code(), Code::Unimplemented as i32, "{mount:?}");
        assert_eq!(place.probe().log(), Vec::<String>::new(), "{mount:?}");
        place.end().await;
    }
}

#[tokio::test]
async fn an_axum_app_keeps_its_own_pages_beside_the_services() {
    let place = Place::new(Mount::Axum, &["a"]).await;
    let socket = tokio::net::TcpStream::connect(place.address).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);

    let request = http::Request::get(format!("{}/", place.uri())).body(()).unwrap();
    let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    let page = response.await.unwrap().into_body().data().await.unwrap().unwrap();

    assert_eq!(page, "a page of the app's own");
    connection.abort();
    place.end().await;
}
