//! Books that a test writes, and those who watch them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use tokio_stream::StreamExt as _;

use super::*;
use ServingStatus::{NotServing, ServiceUnknown, Serving};

/// A book with one service, a.A, and who may write in it.
struct Desk {
    whole: watch::Sender<Whole>,
    service: watch::Sender<bool>,
    health: HealthService,
}

fn desk() -> Desk {
    let (whole, service) = (watch::Sender::new(Whole::Serving), watch::Sender::new(true));
    let services = HashMap::from([("a.A".to_owned(), service.subscribe())]);
    let book = Book { whole: whole.subscribe(), services: watch::Sender::new(services).subscribe() };
    Desk { whole, service, health: HealthService { book, room: Arc::new(Semaphore::new(2)), most: 2 } }
}

impl Desk {
    async fn watch(&self, service: &str) -> Watching {
        let request = Request::new(HealthCheckRequest { service: service.to_owned() });
        self.health.watch(request).await.unwrap().into_inner()
    }
}

async fn next(watching: &mut Watching) -> Result<ServingStatus, tonic::Code> {
    let next = watching.next().await.unwrap();
    next.map(|answer| answer.status()).map_err(|status| status.code())
}

#[tokio::test]
async fn a_service_serves_only_in_a_process_that_does() {
    let desk = desk();
    let mut watching = desk.watch("a.A").await;
    let mut told = vec![next(&mut watching).await.unwrap()];

    desk.whole.send_replace(Whole::NotServing);
    told.push(next(&mut watching).await.unwrap());
    // Nothing that this service has to tell.
    desk.service.send_replace(false);
    desk.whole.send_replace(Whole::Serving);
    desk.service.send_replace(true);
    told.push(next(&mut watching).await.unwrap());

    assert_eq!(told, [Serving, NotServing, Serving]);
}

#[tokio::test]
async fn changes_that_nobody_read_are_one_and_those_that_cancel_out_are_none() {
    let desk = desk();
    let mut watching = desk.watch("a.A").await;
    assert_eq!(next(&mut watching).await, Ok(Serving));

    for number in 0..1_000 {
        desk.service.send_replace(number % 2 == 0);
    }
    assert_eq!(next(&mut watching).await, Ok(NotServing));

    desk.service.send_replace(true);
    desk.service.send_replace(false);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Pin::new(&mut watching).poll_next(&mut cx).is_pending());
}

#[tokio::test]
async fn when_all_is_over_a_watch_says_so_and_ends() {
    let desk = desk();
    let (mut known, mut unknown) = (desk.watch("a.A").await, desk.watch("b.B").await);
    assert_eq!((next(&mut known).await, next(&mut unknown).await), (Ok(Serving), Ok(ServiceUnknown)));

    desk.whole.send_replace(Whole::Over);

    assert_eq!(next(&mut known).await, Ok(NotServing));
    assert_eq!(next(&mut known).await, Err(tonic::Code::Unavailable));
    assert_eq!(next(&mut unknown).await, Err(tonic::Code::Unavailable));
    assert!(known.next().await.is_none() && unknown.next().await.is_none());
}

#[tokio::test]
async fn a_watch_of_a_process_that_is_gone_ends() {
    let Desk { whole, service, health } = desk();
    let question = Request::new(HealthCheckRequest { service: "a.A".to_owned() });
    let mut watching = health.watch(question).await.unwrap().into_inner();
    assert_eq!(next(&mut watching).await, Ok(Serving));

    drop((whole, service));

    assert_eq!(next(&mut watching).await, Err(tonic::Code::Unavailable));
}

#[tokio::test]
async fn there_are_so_many_watches_and_no_more() {
    let desk = desk();
    let first = desk.watch("").await;
    let _second = desk.watch("b.B").await;
    let question = || Request::new(HealthCheckRequest::default());
    assert_eq!(desk.health.watch(question()).await.unwrap_err().code(), tonic::Code::ResourceExhausted);

    drop(first);

    assert!(desk.health.watch(question()).await.is_ok());
}
