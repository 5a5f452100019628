//! A tunnel without a stream: what users see of it, and what becomes of new calls.

use grpcrouter_runtime::{InstanceChange, InstanceState};
use grpcrouter_tests::{
    by_hand::ByHand,
    lines::Lines,
    world::{PATIENCE, eventually},
};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

use super::{Place, answer, begin, end, started};

#[tokio::test]
async fn an_instance_that_lost_its_connection_is_shown_as_such_until_it_is_back() {
    let lines = Lines::default();
    let _listening = lines.listen(LevelFilter::INFO);
    let mut place = Place::new().await;
    let mut watch = place.gateway.gateway.watch();

    place.cut().await;
    let stats = place.gateway.gateway.stats();
    assert_eq!((stats.instances, stats.tunnels, stats.calls), (0, 1, 1));
    place.resume().await;

    for state in [InstanceState::Away, InstanceState::Ready] {
        match timeout(PATIENCE, watch.next()).await.unwrap() {
            Some(InstanceChange::Changed(instance)) => assert_eq!(instance.state, state),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(place.gateway.gateway.stats().instances, 1);
    assert_eq!(
        lines.with(&["instance lost its stream; it is kept", "instance=a", "calls=1", "kept_for=300s"]).len(),
        1
    );
    assert_eq!(lines.with(&["instance is back: its calls go on", "instance=a", "away_ms=", "calls=1"]).len(), 1);
    place.goes_on().await;
}

#[tokio::test]
async fn a_call_that_comes_a_moment_after_the_cut_waits_for_the_instance() {
    let mut place = Place::new().await;
    place.cut().await;

    let call = begin(&place.client, &[]).await;
    eventually("it waits", || place.gateway.gateway.stats().parked_calls == 1).await;
    place.resume().await;

    let id = started(&mut place.instance).await;
    place.instance.respond(id, answer("waited")).unwrap();
    assert_eq!(end(call).await.code(), 0);
    place.goes_on().await;
}

#[tokio::test]
async fn a_call_for_an_instance_that_is_not_back_soon_is_told_so_and_one_that_anybody_can_take_does_not_wait() {
    let mut place = Place::new().await;
    let mut other = ByHand::register(place.gateway.address, "b").await.unwrap();
    place.gateway.instances(2).await;
    place.cut().await;

    let to_a = begin(&place.client, &[("instanceid", "a")]).await;
    let to_nobody = begin(&place.client, &[("instanceid", "nobody")]).await;
    let to_any = begin(&place.client, &[]).await;

    let id = started(&mut other).await;
    other.respond(id, answer("b")).unwrap();
    assert_eq!(end(to_any).await.code(), 0);
    assert_eq!(end(to_nobody).await.code(), 14);
    // It is not asked again and again: it waits until the time is over in which an instance that lives comes back.
    let end = end(to_a).await;
    assert_eq!((end.code(), end.reason().1.as_str()), (14, "NOT_SENT"), "{end:?}");
    assert_eq!(place.gateway.gateway.stats().parked_calls, 0);
    place.resume().await;
    other.die();
    place.goes_on().await;
}

#[tokio::test]
async fn calls_wait_for_nobody_where_none_may_wait() {
    let mut place = Place::with(|builder| builder.resume_window(super::LONG).max_parked_calls(0)).await;
    place.cut().await;

    let end = end(begin(&place.client, &[]).await).await;

    assert_eq!((end.code(), end.reason().1.as_str()), (14, "NOT_SENT"), "{end:?}");
    place.resume().await;
    place.goes_on().await;
}
