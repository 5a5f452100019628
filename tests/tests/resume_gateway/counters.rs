//! What a resume says that cannot be, and what is said twice or on a stream that has lost the tunnel.

use grpcrouter_protocol::{CloseCode, Event, RejectReason, ResponsePart, Seq, Trailers};
use grpcrouter_tests::{
    by_hand::{ByHand, Stream},
    world::PATIENCE,
};
use tokio::time::timeout;

use super::{Place, answer, begin, end, is, started};

#[tokio::test]
async fn impossible_counters_end_the_tunnel_on_both_streams_and_the_instance_comes_anew() {
    let mut place = Place::new().await;
    // It is attached: both streams must hear.
    let mut asked = place.instance.asks().unwrap();
    asked.resume.as_mut().unwrap().rx_next = Seq::new(1_000);

    let told = timeout(PATIENCE, Stream::open(place.gateway.address, &[], &asked)).await.unwrap().unwrap_err();

    let told = format!("{told:#}");
    assert!(told.contains("the batch that is expected"), "{told}");
    Place::is_lost(place.call).await;
    let now = grpcrouter_protocol::Time::default();
    place.instance.tunnel.thaw(now);
    let close = loop {
        if let Event::Closed(close) = timeout(PATIENCE, place.instance.event()).await.unwrap().unwrap() {
            break close;
        }
    };
    assert_eq!(close.code, CloseCode::ProtocolError);
    let mut again = ByHand::hello(place.gateway.address, &place.instance.hello).await.unwrap();
    place.gateway.instances(1).await;
    place.call = begin(&place.client, &[]).await;
    place.id = started(&mut again).await;
    place.instance = again;
    place.goes_on().await;
}

#[tokio::test]
async fn a_hello_that_is_said_again_changes_nothing() {
    let mut place = Place::new().await;
    let asked = place.instance.asks().unwrap();
    place.instance.tunnel.thaw(grpcrouter_protocol::Time::default());
    let old = place.instance.resume(place.gateway.address).await.unwrap();

    // Somebody on the way kept it. The gateway takes its token until it has heard the instance on the new stream.
    let refused = place.refused(&asked).await;

    assert!(matches!(refused.reason, RejectReason::Invalid | RejectReason::PermissionDenied), "{refused:?}");
    old.die();
    place.goes_on().await;
}

#[tokio::test]
async fn what_comes_on_a_stream_that_has_lost_the_tunnel_is_not_read() {
    let mut place = Place::new().await;
    // A batch that would end the call, kept back.
    let trailers = Some(Trailers { status: 13, ..Trailers::default() });
    place.instance.tunnel.respond(place.id, ResponsePart { trailers, ..ResponsePart::default() }, now());
    let wrong = place.instance.tunnel.poll_transmit(grpcrouter_protocol::Epoch::FIRST, now()).unwrap();
    let mut twin = place.instance.resume(place.gateway.address).await.unwrap();

    // The instance has sent it on the new stream; once more on the old one.
    let _ = twin.write(&wrong[5..]);

    let end = end(place.call).await;
    assert_eq!(end.code(), 13);
    // Had it been taken twice, that would have been the end of the tunnel.
    place.call = begin(&place.client, &[]).await;
    place.id = started(&mut place.instance).await;
    twin.die();
    place.goes_on().await;
}

#[tokio::test]
async fn a_batch_that_is_said_twice_on_one_stream_is_the_end_of_it() {
    let mut place = Place::new().await;
    place.cut().await;
    place.instance.resume(place.gateway.address).await.unwrap();
    place.instance.tunnel.respond(place.id, answer("once"), now());
    let at = place.instance.tunnel.epoch();
    let batch = place.instance.tunnel.poll_transmit(at, now()).unwrap();

    place.instance.write(&batch[5..]).unwrap();
    assert_eq!(end(place.call).await.code(), 0);
    place.instance.write(&batch[5..]).unwrap();

    is(&place.gateway, "a", None).await;
    place.instance = ByHand::hello(place.gateway.address, &place.instance.hello).await.unwrap();
    place.gateway.instances(1).await;
    place.call = begin(&place.client, &[]).await;
    place.id = started(&mut place.instance).await;
    place.goes_on().await;
}

fn now() -> grpcrouter_protocol::Time {
    grpcrouter_protocol::Time::default()
}
