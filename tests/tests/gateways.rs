//! A gateway that stops, and the others: instances hear where to go, clients are told in time, and no call is lost that
//! can be finished.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "gateways/drain.rs"]
mod drain;
#[path = "gateways/list.rs"]
mod list;

use grpcrouter_protocol::{Event, Headers, ResponsePart, Trailers};
use grpcrouter_tests::{by_hand::ByHand, world::PATIENCE};
use tokio::time::timeout;

const METHOD1: &str = "/myservice.MyService/Method1";

/// The next event of an instance.
async fn heard(instance: &mut ByHand) -> Event {
    timeout(PATIENCE, instance.event()).await.expect("an event").unwrap()
}

/// The end of a call that was answered with nothing but OK.
fn ok() -> ResponsePart {
    ResponsePart { headers: Some(Headers::default()), trailers: Some(Trailers::default()), ..Default::default() }
}
