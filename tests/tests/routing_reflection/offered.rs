//! What instances offer: their descriptors are asked for once for each hash, and are told with those of the gateway.

use bytes::{Bytes, BytesMut};
use grpcrouter_protocol::{CallId, Headers, ResponsePart, Trailers};
use grpcrouter_tests::{
    by_hand::ByHand,
    world::{TestBackend, TestGateway},
};
use myservice::proto::{Method1Request, my_service_client::MyServiceClient};
use tonic::{Code, Request, transport::Channel};

use crate::{Asker, by_name, by_symbol, compiled, files, service_file, unknowing};

#[tokio::test]
async fn what_an_instance_offers_is_told_without_source_info_and_with_every_custom_option() {
    let protos = [
        (
            "colour.proto",
            "syntax = \"proto3\"; package colour; import \"google/protobuf/descriptor.proto\"; \
             extend google.protobuf.MethodOptions { string colour = 50999; }",
        ),
        (
            "mine.proto",
            "syntax = \"proto3\"; package myservice; import \"colour.proto\"; message Ask { string text = 1; } \
             service MyService { rpc Method1(Ask) returns (Ask) { option (colour.colour) = \"deep red\"; } }",
        ),
    ];
    let set = compiled(&protos);
    let gateway = TestGateway::of(unknowing()).await;
    let asker = Asker::of(&gateway).await;
    assert_eq!(asker.error(by_symbol("myservice.MyService")).await.0, i32::from(Code::NotFound));

    let backend = TestBackend::start_with(&gateway, "a", |builder| builder.descriptors(set.clone())).await;
    asker.comes("myservice.MyService", "the instance's file", |file| file.is_some()).await;

    let found = asker.files(by_symbol("myservice.MyService.Method1")).await;
    let told = files(&set).pop().unwrap();
    // Source info is the last field but for `syntax`, which has eight bytes.
    assert_eq!(found.len(), 3);
    assert!(found[0].len() < told.len());
    let (head, tail) = found[0].split_at(found[0].len() - 8);
    assert!(told.starts_with(head) && told.ends_with(tail) && tail == b"\x62\x06proto3");
    assert!(head.windows(8).any(|bytes| bytes == b"deep red"), "the custom option is there");
    assert_eq!(found[1], asker.files(by_name("colour.proto")).await[0]);
    drop(asker);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn an_instance_without_descriptors_is_called_as_any_other_and_not_asked() {
    let gateway = TestGateway::of(unknowing()).await;
    let mut instance = ByHand::register(gateway.address, "a").await.unwrap();
    gateway.instances(1).await;
    let asker = Asker::of(&gateway).await;

    assert!(asker.services().await.contains(&"myservice.MyService".to_owned()));
    assert_eq!(asker.error(by_symbol("myservice.MyService")).await.0, i32::from(Code::NotFound));
    assert_eq!(first_call(&gateway, &mut instance, "a").await, "/myservice.MyService/Method1");
    drop(asker);
    instance.die();
    gateway.instances(0).await;
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn instances_with_the_same_descriptors_are_asked_once() {
    let set = service_file("mine.proto", "");
    let gateway = TestGateway::of(unknowing()).await;
    let mut first = offering(&gateway, "a", &set).await;
    let (call, start) = first.started().await.unwrap();
    assert_eq!(start.path.as_str(), "/grpcrouter.Instance/Descriptors");
    let mut second = offering(&gateway, "b", &set).await;
    gateway.instances(2).await;

    answer(&mut first, call, &set);
    let asker = Asker::of(&gateway).await;
    asker.comes("myservice.MyService", "the first instance's file", |file| file.is_some()).await;

    // The next thing that the second one is told is a client's call.
    assert_eq!(first_call(&gateway, &mut second, "b").await, "/myservice.MyService/Method1");
    drop(asker);
    first.die();
    second.die();
    gateway.instances(0).await;
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn when_the_one_that_was_asked_goes_the_next_is_asked() {
    let set = service_file("mine.proto", "");
    let gateway = TestGateway::of(unknowing()).await;
    let mut first = offering(&gateway, "a", &set).await;
    first.started().await.unwrap();
    let mut second = offering(&gateway, "b", &set).await;

    first.die();
    let (call, _) = second.started().await.unwrap();
    answer(&mut second, call, &set);

    let asker = Asker::of(&gateway).await;
    asker.comes("myservice.MyService", "the second instance's file", |file| file.is_some()).await;
    second.die();
    // Nobody offers it any more.
    asker.comes("myservice.MyService", "no file", |file| file.is_none()).await;
    drop(asker);
    gateway.stop(Vec::new()).await;
}

#[test]
fn a_backend_says_what_is_wrong_with_descriptors_that_it_is_given() {
    let build = |set: Vec<u8>| {
        let builder = grpcrouter_runtime::Backend::builder().gateway("http://127.0.0.1:1").descriptors(set);
        let service =
            myservice::proto::my_service_server::MyServiceServer::new(grpcrouter_tests::probe::Probe::new("a"));
        builder.add_service(service).build().unwrap_err().to_string()
    };

    assert!(build(b"nonsense".to_vec()).contains("not a descriptor: no protobuf message"));
    assert!(build(vec![0; 5 << 20]).contains("at most 4194304 are taken"));
}

/// An instance by hand that names `set`, and hands out nothing by itself.
pub(crate) async fn offering(gateway: &TestGateway, id: &str, set: &[u8]) -> ByHand {
    let mut hello = ByHand::introduction(id, 16).unwrap();
    hello.services[0].descriptor_hash = sha256(set);
    ByHand::hello(gateway.address, &hello).await.unwrap()
}

fn sha256(bytes: &[u8]) -> Bytes {
    use sha2::Digest as _;
    Bytes::copy_from_slice(&sha2::Sha256::digest(bytes))
}

/// `DescriptorsResponse`s of this set.
pub(crate) fn answer(instance: &mut ByHand, call: CallId, set: &[u8]) {
    let mut data = BytesMut::new();
    for chunk in set.chunks(1_000) {
        let mut message = Vec::new();
        prost::encoding::bytes::encode(1, &chunk.to_vec(), &mut message);
        data.extend_from_slice(&[0]);
        data.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        data.extend_from_slice(&message);
    }
    let part =
        ResponsePart { headers: Some(Headers::default()), data: data.freeze(), trailers: Some(Trailers::default()) };
    instance.respond(call, part).unwrap();
}

/// The path of the first call that comes to `instance`, whose id is `id`, after a client made one for it.
pub(crate) async fn first_call(gateway: &TestGateway, instance: &mut ByHand, id: &str) -> String {
    let client = tokio::spawn(call_of(gateway.client().await, id.to_owned()));
    let (_, start) = instance.started().await.unwrap();
    client.abort();
    start.path.as_str().to_owned()
}

async fn call_of(mut client: MyServiceClient<Channel>, id: String) {
    let mut request = Request::new(Method1Request { text: "t".to_owned() });
    request.metadata_mut().insert("instanceid", id.parse().unwrap());
    let _ = client.method1(request).await;
}
