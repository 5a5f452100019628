//! Many calls at once, answered in any order; many messages on one stream.

use futures_util::FutureExt as _;
use grpcrouter_protocol::{Event, Headers, ResponsePart, Trailers};
use grpcrouter_tests::{
    by_hand::ByHand,
    raw::{RawClient, frame},
    world::{PATIENCE, TestBackend, TestGateway},
};
use myservice::proto::{Method1Request, Method1Response, Method2Request, Method3Request, StreamRequest};
use prost::Message as _;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

use super::KINDS;

const CALLS: usize = 1_000;
const MESSAGES: u32 = 100_000;

#[tokio::test]
async fn a_thousand_calls_at_once_that_are_answered_in_shuffled_order_get_each_its_own_answer_in_that_order() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let gateway = TestGateway::start().await;
    let hello = ByHand::introduction("by hand", CALLS as u64).unwrap();
    let mut instance = ByHand::hello(gateway.address, &hello).await.unwrap();
    gateway.instances(1).await;
    let mut clients = Vec::new();
    let mut waiting = Vec::new();
    for index in 0..CALLS {
        // A connection has 256 calls at most.
        if index % 250 == 0 {
            clients.push(RawClient::connect(gateway.address).await.unwrap());
        }
        let path = KINDS[index % 4].path;
        let mut call = clients[index / 250].0.call(path, &[]).await.unwrap();
        call.request.send_data(frame(&Method1Request { text: index.to_string() }), true).unwrap();
        waiting.push(Some(call));
    }
    let mut open = Vec::new();
    while open.len() < CALLS {
        let event = timeout(PATIENCE, instance.event()).await.unwrap().unwrap();
        let Event::Started { call, data, half_close, .. } = event else { panic!("{event:?}") };
        assert!(half_close);
        open.push((call, Method1Request::decode(&data[5..]).unwrap().text));
        instance.transmit().unwrap();
    }
    assert_eq!(gateway.gateway.stats().calls, CALLS);

    open.shuffle(&mut StdRng::seed_from_u64(seed));

    let left = |waiting: &[Option<_>]| waiting.iter().flatten().count();
    for (answered, (call, text)) in open.into_iter().enumerate() {
        let message = Method1Response { text: format!("answer {text}"), instance_id: String::new() };
        let part = ResponsePart {
            headers: Some(Headers::default()),
            data: frame(&message),
            trailers: Some(Trailers::default()),
        };
        instance.respond(call, part).unwrap();
        // What the gateway says meanwhile is read, as every instance does.
        while instance.receive().now_or_never().is_some() {}
        let call = waiting[text.parse::<usize>().unwrap()].take().unwrap();
        let end = timeout(PATIENCE, call.end()).await.unwrap().unwrap();
        assert_eq!((end.code(), Method1Response::decode(&end.body[5..]).unwrap()), (0, message));
        assert_eq!(left(&waiting), CALLS - answered - 1);
    }
    instance.die();
    clients.into_iter().for_each(|(_, connection)| connection.abort());
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_hundred_thousand_messages_of_a_server_stream_arrive_in_order() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;

    let request = Method2Request { text: "m".to_owned(), count: MESSAGES };
    let mut answers = client.method2(request).await.unwrap().into_inner();

    for index in 0..MESSAGES {
        assert_eq!(timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap().index, index);
    }
    assert!(answers.message().await.unwrap().is_none());
    drop((client, answers));
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_hundred_thousand_messages_of_an_upload_arrive_in_order() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;

    let texts = (0..MESSAGES).map(|index| Method3Request { text: index.to_string() });
    let answer = client.method3(tokio_stream::iter(texts)).await.unwrap().into_inner();

    assert_eq!(answer.count, MESSAGES);
    assert!(answer.text.split(' ').enumerate().all(|(index, text)| text == index.to_string()));
    drop(client);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_hundred_thousand_messages_each_way_on_one_stream_are_echoed_in_order() {
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;

    let texts = (0..MESSAGES).map(|index| StreamRequest { text: index.to_string() });
    let mut answers = client.stream_method(tokio_stream::iter(texts)).await.unwrap().into_inner();

    let mut count = 0;
    while let Some(answer) = timeout(PATIENCE, answers.next()).await.unwrap() {
        assert_eq!(answer.unwrap().text, count.to_string());
        count += 1;
    }
    assert_eq!(count, MESSAGES);
    drop((client, answers));
    gateway.stop(vec![backend]).await;
}
