//! Calls of all four kinds, cut in the middle again and again.

use grpcrouter_tests::{
    lines::Lines,
    relay::Way,
    world::{PATIENCE, eventually},
};
use myservice::proto::{Method1Request, Method2Request, Method3Request, StreamRequest};
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tracing_subscriber::filter::LevelFilter;

use super::world::{Road, how, text};

/// How often each call is cut.
const CUTS: usize = 20;

/// The log of a test that runs on one thread.
fn listen() -> (Lines, impl Drop) {
    let lines = Lines::default();
    let listening = lines.listen(LevelFilter::INFO);
    (lines, listening)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unary_calls_that_are_cut_in_the_middle_of_request_or_answer_succeed_and_run_once() {
    let road = Road::start().await;
    let mut client = road.client().await;

    for round in 0..CUTS {
        let before = road.relay.taken();
        let sent = text(round, 200_000);
        // Somewhere within the message, on its way there or back.
        let way = if round < CUTS / 2 { Way::Back } else { Way::Out };
        road.relay.cut_after(way, 150 + 19_000 * (round as u64 % 10), how(round));

        let answer = client.method1(Method1Request { text: sent.clone() });

        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap().into_inner();
        assert!(answer.text == sent, "round {round}: {} bytes came back", answer.text.len());
        assert_eq!(road.relay.taken(), before + 1, "round {round}: it was cut");
    }

    assert_eq!(road.backend.probe.times("method1 begins"), CUTS);
    assert_eq!(road.backend.probe.times("method1 done"), CUTS);
    drop(client);
    road.end().await;
}

#[tokio::test]
async fn a_stream_of_answers_goes_on_through_twenty_cuts() {
    const ANSWERS: usize = 400;
    let (lines, _listening) = listen();
    let road = Road::start().await;
    let mut client = road.client().await;
    // More than waits on its way between one cut and the next.
    let sent = text(2, 100_000);

    let request = Method2Request { text: sent.clone(), count: ANSWERS as u32 };
    let mut answers = timeout(PATIENCE, client.method2(request)).await.unwrap().unwrap().into_inner();
    for index in 0..ANSWERS {
        if index % (ANSWERS / CUTS) == 3 {
            road.cut(how(index), &lines).await;
        }
        let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().expect("an answer");
        assert_eq!(answer.index, index as u32);
        assert!(answer.text == sent, "answer {index}");
    }

    assert_eq!(timeout(PATIENCE, answers.message()).await.unwrap().unwrap(), None);
    assert_eq!(road.relay.taken(), 1 + CUTS as u64);
    assert_eq!((road.backend.probe.times("method2 begins"), road.backend.probe.times("method2 done")), (1, 1));
    drop((client, answers));
    road.end().await;
}

#[tokio::test]
async fn an_upload_of_many_messages_goes_on_through_twenty_cuts() {
    const MESSAGES: usize = 200;
    let (lines, _listening) = listen();
    let road = Road::start().await;
    let mut client = road.client().await;
    let (sender, messages) = mpsc::channel(1);
    let call = tokio::spawn(async move { client.method3(ReceiverStream::new(messages)).await });

    let mut sent = Vec::new();
    for index in 0..MESSAGES {
        if index % (MESSAGES / CUTS) == 3 {
            road.cut(how(index), &lines).await;
        }
        let text = text(index, 10_000);
        sent.push(text.clone());
        timeout(PATIENCE, sender.send(Method3Request { text })).await.unwrap().unwrap();
    }
    drop(sender);

    let answer = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap().into_inner();
    assert_eq!(answer.count, MESSAGES as u32);
    assert!(answer.text == sent.join(" "));
    assert_eq!(road.relay.taken(), 1 + CUTS as u64);
    assert_eq!(road.backend.probe.times("method3 begins"), 1);
    assert_eq!(road.backend.probe.times("method3 clean end"), 1);
    road.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_goes_on_through_twenty_cuts() {
    let road = Road::start().await;
    let mut client = road.client().await;
    let (sender, messages) = mpsc::channel(1);
    let call = client.stream_method(ReceiverStream::new(messages));
    let mut answers = timeout(PATIENCE, call).await.unwrap().unwrap().into_inner();

    for round in 0..CUTS {
        let taken = road.relay.taken();
        // In the middle of the question or of its answer.
        let way = if round < CUTS / 2 { Way::Back } else { Way::Out };
        road.relay.cut_after(way, 100 + 2_500 * (round as u64 % 10), how(round));
        for index in 2 * round..2 * round + 2 {
            let text = text(index, 40_000);
            timeout(PATIENCE, sender.send(StreamRequest { text: text.clone() })).await.unwrap().unwrap();
            let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().expect("an answer");
            assert_eq!(answer.index, index as u32);
            assert!(answer.text == text, "answer {index}");
        }
        assert_eq!(road.relay.taken(), taken + 1, "round {round}: it was cut");
    }
    drop(sender);

    assert_eq!(timeout(PATIENCE, answers.message()).await.unwrap().unwrap(), None);
    assert_eq!(road.backend.probe.times("stream begins"), 1);
    assert_eq!(road.backend.probe.times("stream clean end"), 1);
    drop((client, answers));
    road.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_mebibytes_in_one_message_arrive_whole_though_the_connection_is_cut_on_their_way() {
    const LENGTH: usize = 16 * 1024 * 1024;
    const PART: u64 = 3 * 1024 * 1024;
    let road = Road::start().await;
    let mut client = road.client().await;
    let sent = text(16, LENGTH);
    let expected = Sha256::digest(&sent);

    road.relay.cut_after(Way::Back, PART, how(0));
    let call = tokio::spawn(async move { client.method1(Method1Request { text: sent }).await });
    for round in 1..5 {
        road.is_back(1 + round).await;
        road.relay.cut_after(Way::Back, PART, how(round as usize));
    }

    let answer = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap().into_inner();
    assert_eq!((answer.text.len(), Sha256::digest(&answer.text)), (LENGTH, expected));
    assert!(road.relay.taken() >= 5);
    assert_eq!(road.backend.probe.times("method1 begins"), 1);
    road.end().await;
}

#[tokio::test]
async fn a_tunnel_that_is_cut_while_nothing_runs_goes_on_and_the_log_says_so() {
    let (lines, _listening) = listen();
    let road = Road::start().await;
    let mut client = road.client().await;
    let tunnels = || (road.gateway.gateway.stats().tunnels, road.backend.backend.stats().tunnels);

    for round in 0..3 {
        road.cut(how(round), &lines).await;

        let answer = client.method1(Method1Request { text: "x".to_owned() });
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().into_inner().instance_id, "a");
        // It is the same one, not a second one beside it.
        eventually("one tunnel", || tunnels() == (1, 1)).await;
    }

    let of_the_backend = |text: &str| lines.with(&["grpcrouter_runtime::backend", text]).len();
    assert_eq!(of_the_backend("the tunnel was lost: the connection was lost"), 3);
    assert_eq!(of_the_backend("the tunnel is resumed"), 3);
    assert_eq!(of_the_backend("registered"), 1);
    drop(client);
    road.end().await;
}
