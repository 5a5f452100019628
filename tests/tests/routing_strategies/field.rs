//! FIELD_BASED: a field of the first message, which is never decoded.

use std::time::Duration;

use bytes::Bytes;
use grpcrouter_tests::{
    echo::{
        EchoBackend,
        proto::{
            self, Ask,
            ask::{Customer, Zone, customer::KnownBy},
            by_field_client::ByFieldClient,
            by_field_router::ByFieldRouter,
        },
    },
    raw::{RawEnd, frame},
    world::{PATIENCE, eventually},
};
use prost::Message as _;
use tokio::time::timeout;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request};

use crate::{Place, ended, invalid, of_customer, told, who};

const ONE: &str = "/routing.ByField/One";
const BOTH: &str = "/routing.ByField/Both";

async fn with_body(place: &Place, path: &str, body: impl Into<Bytes>) -> RawEnd {
    let mut call = place.client.call(path, &[]).await.unwrap();
    call.request.send_data(body.into(), true).unwrap();
    ended(call).await
}

#[tokio::test]
async fn a_field_of_the_first_message_names_the_instance_with_every_kind() {
    let mut place = Place::new(&["a", "b"]).await;
    place
        .backends
        .push(EchoBackend::dial(&place.gateway.uri(), "c", |backend| backend.routing_key("1").routing_key("-7")));
    place.gateway.instances(3).await;
    let gateway = &place.gateway.gateway;
    let mut over_the_wire = ByFieldClient::connect(place.gateway.uri()).await.unwrap();
    let mut inside = ByFieldRouter::new(gateway).typed_client();
    // The same client over both roads.
    macro_rules! check {
        ($client:ident) => {
            for key in ["b", "a"] {
                assert_eq!($client.one(of_customer(key)).await.unwrap().into_inner().instance, key);
                // Only the first message counts.
                let asks = [of_customer(key), of_customer("nobody"), Ask::default()];
                let mut tellings = $client.both(tokio_stream::iter(asks)).await.unwrap().into_inner();
                let told = tellings.message().await.unwrap().unwrap();
                assert_eq!((told.instance.as_str(), told.messages), (key, 3));
            }
            let eu = Ask { zone: Zone::Eu.into(), ..Ask::default() };
            let mut tellings = $client.down(eu).await.unwrap().into_inner();
            assert_eq!(tellings.next().await.unwrap().unwrap().instance, "c");
            let shelf = Ask { shelf: Some(-7), ..Ask::default() };
            assert_eq!($client.up(tokio_stream::iter([shelf])).await.unwrap().into_inner().instance, "c");
        };
    }
    check!(over_the_wire);
    check!(inside);
    drop((over_the_wire, inside));
    place.end().await;
}

#[tokio::test]
async fn a_message_without_the_field_is_refused_or_balanced_as_the_method_says() {
    let place = Place::new(&["a", "b"]).await;
    let other = Customer { name: "n".into(), known_by: Some(KnownBy::Number(1)) };
    for ask in [Ask::default(), Ask { customer: Some(other), ..Ask::default() }] {
        let end = place.ask(ONE, &[], &ask).await;
        invalid(&end, "MISSING_ROUTING_KEY", &["customer.id (FIELD_BASED)", "routing.Echo"]);
    }
    assert_eq!(place.two(BOTH, &[]).await, "ab");
    // A stream without any message has no key either.
    let end = with_body(&place, BOTH, Bytes::new()).await;
    assert_eq!(told(&end).messages, 0);
    // Zero is a value where the field tells it apart from nothing.
    let zero = Ask { shelf: Some(0), ..Ask::default() };
    let end = place.ask("/routing.ByField/Up", &[], &zero).await;
    assert_eq!((end.code(), end.reason().0.as_str()), (14, "NO_INSTANCE_FOR_KEY"));
    assert_eq!(place.ask("/routing.ByField/Up", &[], &Ask::default()).await.code(), 0);
    place.end().await;
}

#[tokio::test]
async fn messages_are_merged_and_the_last_value_wins_as_for_any_reader() {
    let place = Place::new(&["a", "b"]).await;
    let parts = [of_customer("a"), Ask { token: vec![0; 10], ..Ask::default() }, of_customer("b")];
    let merged: Vec<u8> = parts.iter().flat_map(|part| part.encode_to_vec()).collect();
    assert_eq!(Ask::decode(&merged[..]).unwrap().customer, of_customer("b").customer);
    let prefix = [&[0][..], &u32::try_from(merged.len()).unwrap().to_be_bytes()].concat();

    assert_eq!(who(&with_body(&place, ONE, [prefix, merged].concat()).await), "b");
    place.end().await;
}

#[tokio::test]
async fn a_message_that_comes_byte_by_byte_is_waited_for() {
    let place = Place::new(&["a", "b"]).await;
    let mut call = place.client.call(BOTH, &[]).await.unwrap();
    let wire = [frame(&of_customer("b")), frame(&Ask::default())].concat();
    for byte in &wire {
        call.request.send_data(Bytes::copy_from_slice(&[*byte]), false).unwrap();
    }
    call.request.send_data(Bytes::new(), true).unwrap();

    let told = told(&ended(call).await);

    assert_eq!((told.instance.as_str(), told.messages), ("b", 2));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_whose_messages_come_late_each_find_their_own_instance() {
    let place = Place::new(&["a", "b"]).await;
    let client = ByFieldClient::connect(place.gateway.uri()).await.unwrap();
    let callers: Vec<_> = ["a", "b"].repeat(16).into_iter().map(|key| (key, client.clone())).collect();
    let callers = callers.into_iter().map(|(key, mut client)| {
        tokio::spawn(async move {
            for _ in 0..50 {
                let (asks, queue) = tokio::sync::mpsc::channel(1);
                let late = async move {
                    // The head of the call goes first.
                    tokio::task::yield_now().await;
                    asks.send(of_customer(key)).await.unwrap();
                    asks.send(Ask::default()).await.unwrap();
                };
                let (answer, ()) = tokio::join!(client.both(ReceiverStream::new(queue)), late);
                let told = answer.unwrap().into_inner().message().await.unwrap().unwrap();
                assert_eq!((told.instance.as_str(), told.messages), (key, 2));
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        timeout(PATIENCE, caller).await.expect("an end").unwrap();
    }
    drop(client);
    place.end().await;
}

#[tokio::test]
async fn a_message_of_64_kib_is_looked_into_and_arrives_whole_and_a_longer_one_is_refused_by_its_prefix() {
    let place = Place::new(&["a", "b"]).await;
    let of_size = |size: usize| {
        let bare = of_customer("b").encoded_len();
        Ask { padding: "x".repeat(size - bare - 4), ..of_customer("b") }
    };
    let largest = of_size(64 * 1024);
    assert_eq!(largest.encoded_len(), 64 * 1024);
    assert_eq!(who(&place.ask(ONE, &[], &largest).await), "b");

    // Its first bytes alone are enough to refuse it.
    let mut call = place.client.call(ONE, &[]).await.unwrap();
    call.request.send_data(frame(&of_size(64 * 1024 + 1)).slice(..5), false).unwrap();
    let end = ended(call).await;
    invalid(&end, "MALFORMED_ROUTING_KEY", &["customer.id (FIELD_BASED)", "65537 bytes", "at most 65536"]);
    place.end().await;
}

#[tokio::test]
async fn what_cannot_be_looked_into_is_refused_with_the_reason() {
    let place = Place::new(&["a"]).await;
    for (wire, why) in [
        (&b"\x01\0\0\0\x01x"[..], "the first message is compressed"),
        (b"\0\0\0\0\x01\xff", "the first message is not protobuf"),
        (b"\0\0\0\0\x02\x08\x01", "the field has another type"),
        (b"\0\0\0\0\x05\x0a\x03\x12\x01\xff", "it is not UTF-8"),
        (b"\0\0\0\0\x04\x0a\x02\x12\0", "it is empty"),
        (b"\0\0\0\0\x05\x0a\x03\x12", "the request ended inside of its first message"),
    ] {
        let end = with_body(&place, ONE, wire).await;
        invalid(&end, "MALFORMED_ROUTING_KEY", &["customer.id (FIELD_BASED)", "routing.Echo", why]);
    }
    let long = place.ask(ONE, &[], &of_customer(&"x".repeat(10 * 1024))).await;
    invalid(&long, "MALFORMED_ROUTING_KEY", &["customer.id (FIELD_BASED)", "it has 10240 bytes"]);
    // The same from inside of the process.
    let mut inside = ByFieldRouter::new(&place.gateway.gateway).typed_client();
    let refused = inside.one(of_customer(&"x".repeat(10 * 1024))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    drop(inside);
    place.end().await;
}

#[tokio::test]
async fn a_call_whose_first_message_never_comes_ends_with_the_gateway() {
    let place = Place::of(proto::gateway().drain_timeout(Duration::from_millis(100)), &["a"]).await;
    let late = place.client.call(BOTH, &[]).await.unwrap();
    let mut inside = ByFieldRouter::new(&place.gateway.gateway).typed_client();
    let (asks, queue) = tokio::sync::mpsc::channel::<Ask>(1);
    let within = tokio::spawn(async move { inside.both(ReceiverStream::new(queue)).await });
    eventually("both calls are there", || place.gateway.gateway.stats().calls == 2).await;
    let Place { gateway, backends, client } = place;

    let stopping = gateway.begin_stop();

    let end = ended(late).await;
    assert_eq!((end.code(), end.reason()), (14, ("SHUTTING_DOWN".into(), "NOT_SENT".into())));
    let within = timeout(PATIENCE, within).await.expect("an end").unwrap().unwrap_err();
    assert_eq!((within.code(), within.message()), (Code::Unavailable, "the gateway is shutting down"));
    drop((client, asks));
    timeout(PATIENCE, stopping).await.expect("an end").unwrap().unwrap();
    for backend in backends {
        backend.stop().await;
    }
}

#[tokio::test]
async fn a_call_whose_first_message_never_comes_ends_by_its_deadline_or_its_client() {
    let place = Place::new(&["a"]).await;
    let late = place.client.call(BOTH, &[("grpc-timeout", "100m")]).await.unwrap();
    let end = ended(late).await;
    assert_eq!((end.code(), end.reason()), (4, ("DEADLINE".into(), "NOT_SENT".into())));

    let mut begun = place.client.call(BOTH, &[]).await.unwrap();
    begun.request.send_data(frame(&of_customer("a")).slice(..3), false).unwrap();
    eventually("the call is there", || place.gateway.gateway.stats().calls == 1).await;
    begun.request.send_reset(h2::Reason::CANCEL);
    drop(begun);
    place.gateway.idle().await;

    // The same from inside of the process.
    let mut inside = ByFieldRouter::new(&place.gateway.gateway).typed_client();
    let (asks, queue) = tokio::sync::mpsc::channel::<Ask>(1);
    let mut request = Request::new(ReceiverStream::new(queue));
    request.set_timeout(Duration::from_millis(100));
    let late = inside.both(request).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    drop((asks, inside));
    place.end().await;
}
