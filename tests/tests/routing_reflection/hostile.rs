//! Instances that offer what is none, what is too much or what they do not have: reflection goes without them, calls go on.

use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{ResponsePart, Trailers};
use grpcrouter_tests::{
    lines::Lines,
    world::{TestBackend, TestGateway, eventually},
};
use prost::Message as _;
use protox::prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use tracing_subscriber::filter::LevelFilter;

use crate::{
    Asker, by_name, by_symbol, in_time,
    offered::{answer, first_call, offering},
    service_file, unknowing,
};

fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
        ..FileDescriptorProto::default()
    }
}

fn set(file: Vec<FileDescriptorProto>) -> Bytes {
    FileDescriptorSet { file }.encode_to_vec().into()
}

#[tokio::test]
async fn descriptors_that_cannot_be_used_are_left_out_and_asked_for_once() {
    let gateway = TestGateway::of(unknowing()).await;
    let asker = Asker::of(&gateway).await;
    let good =
        TestBackend::start_with(&gateway, "good", |builder| builder.descriptors(service_file("good.proto", ""))).await;
    let many = (0..10_000).map(|number| file(&format!("{number}.proto"), &[])).chain([file("bad.proto", &[])]);
    let circle = vec![file("bad.proto", &["b.proto"]), file("b.proto", &["bad.proto"])];
    let bad = [
        (
            "garbage",
            Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0fno descriptors"),
            "not a descriptor: no protobuf message",
        ),
        ("circle", set(circle), "files import each other: bad.proto -> b.proto -> bad.proto"),
        ("many", set(many.collect()), "more than 2000 files"),
        ("huge", Bytes::from(vec![0; 5 << 20]), "more than 4194304 bytes"),
    ];
    for (id, set, why) in bad {
        let log = Lines::default();
        let _listening = log.listen(LevelFilter::INFO);
        in_time(Box::pin(async {
            let mut instance = offering(&gateway, id, &set).await;
            let (call, _) = instance.started().await.unwrap();
            answer_in_pieces(&mut instance, call, &set).await;
            log.has(why).await;
            log.has(&format!("instance={id}")).await;
            if id == "garbage" {
                // Nobody is asked again for what is of no use.
                let mut again = offering(&gateway, "again", &set).await;
                gateway.instances(3).await;
                assert_eq!(first_call(&gateway, &mut again, "again").await, "/myservice.MyService/Method1");
                again.die();
            }
            instance.die();
            gateway.instances(1).await;
        }))
        .await;
        assert_eq!(asker.error(by_name("bad.proto")).await.1, "no file bad.proto", "{id}");
        assert_eq!(asker.files(by_name("good.proto")).await.len(), 1);
    }
    assert!(gateway.gateway.descriptor_conflicts().is_empty());
    drop(asker);
    gateway.stop(vec![good]).await;
}

#[tokio::test]
async fn descriptors_of_another_hash_are_not_used_and_one_that_has_them_is_asked_next() {
    let set = service_file("mine.proto", "");
    let gateway = TestGateway::of(unknowing()).await;
    let asker = Asker::of(&gateway).await;
    let mut liar = offering(&gateway, "liar", &set).await;
    let (call, _) = liar.started().await.unwrap();
    answer(&mut liar, call, &service_file("lie.proto", "string lie = 2;"));
    let mut refuses = offering(&gateway, "refuses", &set).await;
    let (call, _) = refuses.started().await.unwrap();
    let trailers = Trailers { status: 12, ..Trailers::default() };
    refuses.respond(call, ResponsePart { trailers: Some(trailers), ..ResponsePart::default() }).unwrap();

    let honest = TestBackend::start_with(&gateway, "honest", |builder| builder.descriptors(set)).await;

    asker.comes("myservice.MyService", "the honest one's file", |file| file.is_some()).await;
    let found = asker.files(by_symbol("myservice.MyService")).await;
    assert!(!found[0].windows(3).any(|bytes| bytes == b"lie"));
    drop(asker);
    liar.die();
    refuses.die();
    gateway.instances(1).await;
    gateway.stop(vec![honest]).await;
}

#[tokio::test]
async fn nobody_can_take_the_place_of_googles_own_files() {
    let gateway = TestGateway::of(unknowing()).await;
    let asker = Asker::of(&gateway).await;
    let before = asker.files(by_name("google/protobuf/any.proto")).await;
    // Two instances that differ in their own file, and in one that they have by the name of Google's.
    let with_fake = |more: &str, imports: &[&str]| {
        let package = Some("google.protobuf".to_owned());
        let fake = FileDescriptorProto { package, ..file("google/protobuf/any.proto", imports) };
        let mut set = FileDescriptorSet::decode(service_file("mine.proto", more)).unwrap();
        set.file.insert(0, fake);
        set.encode_to_vec()
    };

    let mut backends = Vec::new();
    for (id, set) in [("a", with_fake("", &[])), ("b", with_fake("string more = 2;", &["other.proto"]))] {
        backends.push(TestBackend::start_with(&gateway, id, |builder| builder.descriptors(set)).await);
    }
    eventually("both files came", || !gateway.gateway.descriptor_conflicts().is_empty()).await;

    assert_eq!(asker.files(by_name("google/protobuf/any.proto")).await, before);
    let conflicts = gateway.gateway.descriptor_conflicts();
    assert_eq!(conflicts.iter().map(|conflict| conflict.file.as_str()).collect::<Vec<_>>(), ["mine.proto"]);
    drop(asker);
    gateway.stop(backends).await;
}

/// As [`answer`], for sets that do not fit in one window: goes on as the gateway reads, and stops when it will no more.
async fn answer_in_pieces(
    instance: &mut grpcrouter_tests::by_hand::ByHand,
    call: grpcrouter_protocol::CallId,
    set: &[u8],
) {
    let mut pieces = set.chunks(8_000).peekable();
    let headers = ResponsePart { headers: Some(Default::default()), ..ResponsePart::default() };
    instance.respond(call, headers).unwrap();
    while let Some(piece) = pieces.next() {
        let mut message = Vec::new();
        prost::encoding::bytes::encode(1, &piece.to_vec(), &mut message);
        let mut data = vec![0];
        data.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        data.extend_from_slice(&message);
        let trailers = pieces.peek().is_none().then(Trailers::default);
        instance.respond(call, ResponsePart { headers: None, data: data.into(), trailers }).unwrap();
        // Whatever the gateway says in between: credit, acks, or that it wants no more.
        if let Ok(received) = tokio::time::timeout(Duration::from_millis(1), instance.receive()).await
            && !received.unwrap()
        {
            return;
        }
        instance.transmit().unwrap();
    }
    instance.transmit().unwrap();
}
