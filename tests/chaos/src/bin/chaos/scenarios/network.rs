//! Faults of the network between instances and their gateway, played by a relay.

use std::time::Duration;

use grpcrouter_tests::relay::{Cut, Relay, Way};
use tokio::time::{Instant, sleep};

use super::{NAMES, Stage, callers};
use crate::load::{Load, Shape};

pub(super) async fn cuts(stage: &Stage) -> anyhow::Result<String> {
    // Each instance every two seconds over a minute; a short run has as many cuts in less time.
    let every = (stage.size.time / 30).clamp(Duration::from_millis(400), Duration::from_secs(2));
    troubled(stage, every, |relay, turn| match turn % 4 {
        0 => relay.cut(Cut::Reset),
        1 => relay.cut_after(Way::Out, 5_000 + turn * 997, Cut::Reset),
        2 => relay.cut(Cut::Finish),
        _ => relay.cut_after(Way::Back, 5_000 + turn * 997, Cut::Finish),
    })
    .await
}

pub(super) async fn stalls(stage: &Stage) -> anyhow::Result<String> {
    troubled(stage, Duration::from_millis(700), |relay, turn| match turn % 4 {
        0 => relay.hold(Way::Out),
        2 => relay.hold(Way::Back),
        _ => relay.release(),
    })
    .await
}

pub(super) async fn half_closes(stage: &Stage) -> anyhow::Result<String> {
    let ways = [Way::Out, Way::Back];
    troubled(stage, Duration::from_millis(500), |relay, turn| {
        relay.half_close(ways[usize::try_from(turn % 2).unwrap_or(0)]);
    })
    .await
}

pub(super) async fn half_open(stage: &Stage) -> anyhow::Result<String> {
    // One after the other: it takes until the heartbeat misses the answers, twelve seconds, to see it.
    troubled(stage, 3 * MISSED, |relay, _| relay.strand()).await
}

/// Load while something is done to the connections of one of three instances in its turn, every so often.
async fn troubled(stage: &Stage, every: Duration, mut trouble: impl FnMut(&Relay, u64)) -> anyhow::Result<String> {
    let (gateway, address) = stage.programs.gateway("gateway", &[]).await?;
    let (mut relays, mut instances) = (Vec::new(), Vec::new());
    for id in NAMES.iter().take(3) {
        let relay = Relay::to(address).await;
        instances.push(stage.programs.backend(&relay.uri(), id).await?);
        relays.push(relay);
    }
    let load = Load::start(callers(address, 4).await?, Shape::LASTING);
    load.has_ended(100).await;
    let (began, mut turns) = (Instant::now(), 0);
    for relay in relays.iter().cycle() {
        trouble(relay, turns);
        turns += 1;
        sleep(every / 3).await; // waits because calls have to go on in between
        // On a slow machine too somebody is there for new calls: the next one is not troubled before this is back.
        while relay.open() == 0 {
            sleep(Duration::from_millis(5)).await; // waits because it dials again when it likes
        }
        if began.elapsed() >= stage.size.time {
            break;
        }
    }
    relays.iter().for_each(Relay::release);
    let connections: u64 = relays.iter().map(Relay::taken).sum();
    let sums = load.stop(|| stage.programs.executions()).await?;
    sums.none_failed()?;
    for instance in instances {
        instance.stopped().await?;
    }
    gateway.stopped().await?;
    Ok(format!("{sums}, {turns} faults, {connections} connections of 3 instances"))
}

/// How long a silent connection may go unnoticed: three pings after three seconds without a word, and a little.
const MISSED: Duration = Duration::from_secs(14);
