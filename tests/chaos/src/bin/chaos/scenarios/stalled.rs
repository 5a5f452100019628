//! One call whose client does not read, among 99 that are busy, all through one connection and to one instance.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use grpcrouter_chaos::{Kind, Work};
use tokio::time::sleep;

use super::{Stage, callers};
use crate::load::{Load, Shape};

pub(super) async fn stalled(stage: &Stage) -> anyhow::Result<String> {
    let (gateway, address) = stage.programs.gateway("gateway", &[]).await?;
    let instances = stage.instances(address, 1).await?;
    let callers = callers(address, 1).await?;
    let shape = Shape { workers: 99, ..Shape::quick(stage.size.calls) };
    let among = async |first: u64| {
        let began = Instant::now();
        let load = Load::start(callers.clone(), Shape { first, ..shape });
        let sums = load.finish(|| stage.programs.executions()).await?;
        sums.none_failed()?;
        ensure!(sums.ok == stage.size.calls, "{} of {} calls were made", sums.ok, stage.size.calls);
        anyhow::Ok((sums, began.elapsed()))
    };
    let (alone, took_alone) = among(0).await?;

    // Its client waits this long before each message: until all others have made their calls.
    let mut slow = callers[0].clone();
    slow.dawdle = Duration::from_secs(3_600);
    let work = Work { id: u64::MAX >> 3, kind: Kind::Down, messages: 200, size: 100_000, pause: Duration::ZERO };
    let stalled = tokio::spawn(async move { slow.perform(&work).await });
    while !stage.programs.executions()?.contains_key(&work.id) {
        sleep(Duration::from_millis(5)).await; // waits because a file is asked, which does not tell
    }
    let (beside, took_beside) = among(stage.size.calls).await?;
    if stalled.is_finished() {
        bail!("the stalled call has ended: {:?}", stalled.await?);
    }
    stalled.abort();
    for instance in instances {
        instance.stopped().await?;
    }
    gateway.stopped().await?;
    Ok(format!(
        "{alone} in {took_alone:.1?} alone; {beside} in {took_beside:.1?} beside a call of 20 MB that nobody reads"
    ))
}
