//! Processes that are killed, stopped, and asked to end.

use std::time::{Duration, Instant};

use anyhow::ensure;
use grpcrouter_tests::relay::Relay;
use tokio::time::sleep;

use super::{NAMES, Stage, callers};
use crate::{
    load::{Load, Shape},
    programs::Signal,
};

pub(super) async fn sigkill(stage: &Stage) -> anyhow::Result<String> {
    let (gateway, address) = stage.programs.gateway("gateway", &[]).await?;
    let mut instances = stage.instances(address, 3).await?;
    let load = Load::start(callers(address, 4).await?, Shape::LASTING);
    let (mut kills, mut slowest) = (Vec::new(), Duration::ZERO);
    let began = Instant::now();
    while kills.is_empty() || began.elapsed() < stage.size.time {
        load.has_ended(load.ended() + 100).await;
        let known = gateway.logged(&LOST);
        let killed = Instant::now();
        instances.remove(0).killed().await?;
        gateway.logs(known + 1, &LOST).await?;
        kills.push((killed, Instant::now()));
        load.has_ended(load.ended() + 100).await;
        let id = NAMES[(kills.len() - 1) % 3];
        instances.push(stage.programs.backend(&format!("http://{address}"), id).await?);
    }
    let sums = load.stop(|| stage.programs.executions()).await?;
    sums.none_failed_but_in_doubt()?;
    // Who knows that an instance is lost gives it no call: each in doubt began before the gateway knew of some kill.
    for ended in &sums.in_doubt {
        let before = kills.iter().find(|(_, known)| ended.began <= *known);
        ensure!(before.is_some(), "began when the instance was known to be lost: {ended}");
    }
    for (killed, known) in &kills {
        slowest = slowest.max(*known - *killed);
    }
    for instance in instances {
        instance.stopped().await?;
    }
    gateway.stopped().await?;
    Ok(format!("{sums}, {} killed, new calls avoided it after {slowest:.0?} at most", kills.len()))
}

pub(super) async fn expiry(stage: &Stage) -> anyhow::Result<String> {
    let (gateway, address) = stage.programs.gateway("gateway", &[]).await?;
    let mut instances = stage.instances(address, 2).await?;
    let load = Load::start(callers(address, 4).await?, Shape::LASTING);
    load.has_ended(100).await;
    let killed = Instant::now();
    instances.remove(0).killed().await?;
    let sums = load.stop(|| stage.programs.executions()).await?;
    sums.none_failed_but_in_doubt()?;
    let longest = sums.in_doubt.iter().map(|ended| ended.ended - killed).max().unwrap_or_default();
    for instance in instances {
        instance.stopped().await?;
    }
    gateway.stopped().await?;
    Ok(format!("{sums}, the last of them {longest:.0?} after the kill"))
}

pub(super) async fn sigstop(stage: &Stage) -> anyhow::Result<String> {
    let (gateway, address) = stage.programs.gateway("gateway", &[]).await?;
    let instances = stage.instances(address, 3).await?;
    let load = Load::start(callers(address, 4).await?, Shape::LASTING);
    // The last one for longer than it takes to be missed, if there is the time.
    let still = [stage.size.time / 6, stage.size.time / 3];
    for time in still {
        for program in [&instances[0], &gateway] {
            load.has_ended(load.ended() + 100).await;
            program.signal(Signal::STOP)?;
            sleep(time).await; // waits because that is how long it stands still
            program.signal(Signal::CONT)?;
        }
    }
    load.has_ended(load.ended() + 100).await;
    let sums = load.stop(|| stage.programs.executions()).await?;
    sums.none_failed()?;
    for instance in instances {
        instance.stopped().await?;
    }
    gateway.stopped().await?;
    Ok(format!("{sums}, stood still for {:?} and {:?}", still[0], still[1]))
}

pub(super) async fn restarts(stage: &Stage) -> anyhow::Result<String> {
    let (gateway, address) = stage.programs.gateway("gateway", &[]).await?;
    let mut instances = stage.instances(address, 5).await?;
    let calls = stage.size.calls;
    let load = Load::start(callers(address, 4).await?, Shape::QUICK);
    for (number, id) in NAMES.iter().enumerate() {
        load.has_ended(calls * (number as u64 + 1) / 7).await;
        instances.remove(0).stopped().await?;
        instances.push(stage.programs.backend(&format!("http://{address}"), id).await?);
    }
    load.has_ended(calls.max(load.ended() + 100)).await;
    let sums = load.stop(|| stage.programs.executions()).await?;
    sums.none_failed()?;
    for instance in instances {
        instance.stopped().await?;
    }
    gateway.stopped().await?;
    Ok(format!("{sums}, 5 restarts"))
}

pub(super) async fn gateways(stage: &Stage) -> anyhow::Result<String> {
    let calls = stage.size.calls;
    // Where instances reach each of them, and clients whoever is there: the addresses stay when a process is another.
    let nowhere = ([127, 0, 0, 1], 9).into();
    let doors = [Relay::to(nowhere).await, Relay::to(nowhere).await];
    let front = Relay::to(nowhere).await;
    let peers = [doors[0].uri(), doors[1].uri()];
    let start = async |number: usize| {
        let own = doors[number].uri();
        let options = ["--advertise", &own, "--peer", &peers[0], "--peer", &peers[1]];
        let (program, address) = stage.programs.gateway(GATEWAYS[number], &options).await?;
        doors[number].aim(address);
        anyhow::Ok((program, address))
    };
    let mut running = vec![start(0).await?, start(1).await?];
    let instances = stage.instances(doors[0].address(), 3).await?;
    for (gateway, _) in &running {
        gateway.logs(3, &JOINED).await?;
    }
    front.aim(running[0].1);
    let mut followers = callers(front.address(), 4).await?;
    followers.iter_mut().for_each(|caller| caller.follows_goaway = true);
    let load = Load::start(followers, Shape::QUICK);
    for number in 0..2 {
        load.has_ended(calls * (number as u64 * 2 + 1) / 5).await;
        front.aim(running[1].1);
        let (gateway, _) = running.remove(0);
        let joined = gateway.logged(&JOINED);
        gateway.stopped().await?;
        let (gateway, address) = start(number).await?;
        gateway.logs(joined + 3, &JOINED).await?;
        running.push((gateway, address));
    }
    load.has_ended(calls.max(load.ended() + 100)).await;
    let sums = load.stop(|| stage.programs.executions()).await?;
    sums.none_failed()?;
    for instance in instances {
        instance.stopped().await?;
    }
    for (gateway, _) in running {
        gateway.stopped().await?;
    }
    Ok(format!("{sums}, 2 restarts, {} connections of clients", front.taken()))
}

const GATEWAYS: [&str; 2] = ["one", "two"];

/// What a gateway logs of an instance that came.
const JOINED: [&str; 1] = ["instance joined"];

/// What a gateway logs of an instance whose stream is gone.
const LOST: [&str; 1] = ["instance lost its stream"];
