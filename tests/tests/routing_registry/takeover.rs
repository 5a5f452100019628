//! Several processes with one instance id.

use grpcrouter_protocol::{CloseCode, Event, Headers, ResponsePart, Trailers};
use grpcrouter_runtime::InstanceState;
use grpcrouter_tests::{
    by_hand::ByHand,
    world::{TestBackend, TestGateway, eventually, no_task_left},
};

use super::*;

#[tokio::test]
async fn processes_that_push_each_other_out_stop_at_the_fourth_time_and_the_one_that_is_here_goes_on() {
    let gateway = TestGateway::of(balanced(LoadBalancing::RoundRobin)).await;
    let mut hands = Vec::new();
    for _ in 0..4 {
        hands.push(ByHand::register(gateway.address, "a").await.unwrap());
    }

    let refused = ByHand::register(gateway.address, "a").await.unwrap_err().to_string();

    for part in ["Flapping", "retry_after: 60s", "\\\"a\\\"", ".instance_id(..)"] {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    // Each that was pushed out is told so, and may dial again at once.
    for hand in &mut hands[..3] {
        let close = loop {
            if let Event::Closed(close) = hand.event().await.unwrap() {
                break close;
            }
        };
        assert_eq!((close.code, close.retry_after), (CloseCode::Replaced, Duration::ZERO));
    }
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.method1(request(Some("a"), "t")).await });
    let (id, _) = hands[3].started().await.unwrap();
    let trailers = Some(Trailers { status: 3, ..Trailers::default() });
    hands[3].respond(id, ResponsePart { headers: Some(Headers::default()), trailers, ..Default::default() }).unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code(), tonic::Code::InvalidArgument);

    hands.into_iter().for_each(ByHand::die);
    gateway.begin_stop().await.unwrap().unwrap();
    no_task_left().await;
}

#[tokio::test]
async fn calls_go_on_while_one_process_takes_over_from_another() {
    let gateway = TestGateway::of(balanced(LoadBalancing::RoundRobin)).await;
    let mut backends = vec![TestBackend::start(&gateway, "a").await];
    let mut client = gateway.client().await;
    let calls = tokio::spawn(async move {
        let mut done = 0_u32;
        loop {
            client.method1(request(Some("a"), "t")).await.map_err(|status| (done, status))?;
            done += 1;
            if done == 600 {
                return Ok::<_, (u32, tonic::Status)>(());
            }
        }
    });

    for _ in 0..2 {
        let next = TestBackend::dial(&gateway.uri(), "a");
        eventually("the next one has a tunnel", || next.backend.stats().tunnels == 1).await;
        eventually("the one before it is replaced", || {
            let ready = |state| gateway.gateway.instances().iter().filter(|one| one.state == state).count();
            ready(InstanceState::Ready) == 1 && ready(InstanceState::Replaced) == 0
        })
        .await;
        // It would dial again and take the id back.
        backends.pop().unwrap().kill().await;
        backends.push(next);
    }

    calls.await.unwrap().unwrap();
    gateway.stop(backends).await;
}
