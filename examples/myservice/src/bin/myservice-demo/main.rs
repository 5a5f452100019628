//! The demo: a gateway, three backends that only dial out, and calls of all four kinds, on this machine alone, while
//! backends are stopped, cut off and killed. Its last line counts the calls; its exit code is 0 if none failed.

mod calls;
mod line;
mod programs;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use calls::{Caller, Kind, Tally};
use line::Line;
use programs::{Program, Programs};

#[tokio::main]
async fn main() -> ExitCode {
    let tally = Arc::new(Tally::default());
    let told = tell(&tally).await;
    if let Err(error) = &told {
        println!("demo: {error:#}");
    }
    let (calls, ok, failed, in_doubt) = (tally.calls(), tally.ok(), tally.failed(), tally.in_doubt());
    println!("demo: {calls} calls, {ok} ok, {failed} failed, {in_doubt} in doubt (backend killed)");
    if told.is_ok() && tally.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn tell(tally: &Arc<Tally>) -> anyhow::Result<()> {
    let programs = Programs::beside_this_one()?;
    let (gateway, address) = programs.gateway().await?;
    println!("demo: a gateway listens on {address}");
    let line = Line::to(&address).await?;
    let mut backends = Vec::new();
    for id in INSTANCES {
        backends.push(programs.backend(&line.address(), id).await?);
    }
    println!("demo: the backends {} have dialled out to it; none of them listens", INSTANCES.join(", "));
    let caller = Caller::connect(&address).await?;

    println!("demo: 1. all four kinds, with the key instanceid and without");
    every_kind(&caller, tally).await;
    println!("{}", tally.table(&INSTANCES));

    println!("demo: 2. a backend is stopped and started again while calls go on");
    let load = Load::start(&caller, tally);
    tokio::time::sleep(WHILE).await;
    let stopped = backends.pop().context("there is no backend to stop")?;
    let id = stopped.id().to_owned();
    tally.count(Kind::Stream, Some(&id), talk_while_it_stops(&caller, &stopped).await);
    stopped.ended().await?;
    println!("demo: {id} got SIGTERM while it had a stream, answered it to its end, and ended with code 0");
    tokio::time::sleep(WHILE).await;
    let before = tally.answered_by(&id);
    backends.push(programs.backend(&line.address(), &id).await?);
    println!("demo: {id} is back");
    tokio::time::sleep(WHILE).await;
    load.stop().await;
    ensure!(tally.answered_by(&id) > before, "{id} came back and was given no call");
    every_kind(&caller, tally).await;
    println!("{}", tally.table(&INSTANCES));

    println!("demo: 3. all connections of the backends are cut, {CUTS} times, in the middle of calls of every kind");
    let before = tally.calls();
    for _ in 0..CUTS {
        let mut calls = in_the_middle(&caller, tally, &INSTANCES, &line).await?;
        line.cut();
        while calls.join_next().await.is_some() {}
    }
    println!("demo: {} calls were cut off, and went on when the backends had dialled again", tally.calls() - before);

    let killed = backends.pop().context("there is no backend to kill")?;
    let id = killed.id().to_owned();
    println!(
        "demo: 4. {id} is killed in the middle of calls of every kind; what it had may have been executed, or not"
    );
    let load = Load::start(&caller, tally);
    let mut calls = in_the_middle(&caller, tally, &[&id], &line).await?;
    tally.killed(&id);
    killed.kill().await?;
    line.cut();
    backends.push(programs.backend(&line.address(), &id).await?);
    while calls.join_next().await.is_some() {}
    load.stop().await;
    tally.mended();
    println!("demo: {id} is back; {} calls ended in doubt, and no other was touched", tally.in_doubt());
    every_kind(&caller, tally).await;

    drop(caller);
    for program in backends.into_iter().chain([gateway]) {
        program.terminate()?;
        program.ended().await?;
    }
    println!("demo: every program has ended with code 0");
    Ok(())
}

/// A stream that is open when its backend is asked to end, and goes on.
async fn talk_while_it_stops(caller: &Caller, backend: &Program) -> anyhow::Result<String> {
    let mut talk = caller.talk(Some(backend.id())).await?;
    talk.say().await?;
    backend.terminate()?;
    for _ in 0..MESSAGES_WHILE_IT_STOPS {
        tokio::time::sleep(PAUSE).await;
        talk.say().await?;
    }
    talk.end().await
}

/// Calls of every kind to these instances, under way over a line that is held. Each ends when the line is cut.
async fn in_the_middle(
    caller: &Caller,
    tally: &Arc<Tally>,
    instances: &[&str],
    line: &Line,
) -> anyhow::Result<JoinSet<()>> {
    let mut calls = JoinSet::new();
    // A stream that has been answered before, and is in its middle as no other.
    let mut talks = Vec::new();
    for id in instances {
        let mut talk = caller.talk(Some(id)).await?;
        talk.say().await?;
        talks.push(((*id).to_owned(), talk));
    }
    line.hold();
    for (id, mut talk) in talks {
        let tally = tally.clone();
        calls.spawn(async move {
            let end = match talk.say().await {
                Ok(()) => talk.end().await,
                Err(error) => Err(error),
            };
            tally.count(Kind::Stream, Some(&id), end);
        });
    }
    for kind in Kind::ALL {
        for id in instances {
            let (caller, tally, id) = (caller.clone(), tally.clone(), (*id).to_owned());
            calls.spawn(async move { tally.count(kind, Some(&id), caller.call(kind, Some(&id)).await) });
        }
    }
    tokio::time::sleep(ON_THEIR_WAY).await;
    Ok(calls)
}

/// Each kind, to each instance by its key, and as often without a key.
async fn every_kind(caller: &Caller, tally: &Tally) {
    for kind in Kind::ALL {
        for id in INSTANCES {
            tally.count(kind, Some(id), caller.call(kind, Some(id)).await);
            tally.count(kind, None, caller.call(kind, None).await);
        }
    }
}

/// Calls that go on in the background, of every kind, without a key or for an instance that stays.
struct Load {
    enough: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl Load {
    fn start(caller: &Caller, tally: &Arc<Tally>) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            let (caller, tally, enough) = (caller.clone(), tally.clone(), enough.clone());
            let key = if number % 4 == 0 { Some(STAYS) } else { None };
            callers.spawn(async move {
                for kind in Kind::ALL.into_iter().cycle().skip(number) {
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                    tally.count(kind, key, caller.call(kind, key).await);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { enough, callers }
    }

    /// Lets each caller finish the call that it is in.
    async fn stop(mut self) {
        self.enough.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
    }
}

const INSTANCES: [&str; 3] = ["a", "b", "c"];

/// The instance that is called by its key all the time; the last one is stopped.
const STAYS: &str = "a";

/// How many calls are under way at once while a backend comes and goes: enough to meet every moment of it.
const CALLERS: usize = 16;

/// Between two calls of one caller, so that the demo shows more than how busy a machine can be.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the calls go on before, between and after the steps of the second part.
const WHILE: Duration = Duration::from_secs(1);

/// How often every connection is cut.
const CUTS: usize = 5;

/// For calls to be sent, on any machine: those that are not are cut off before they are.
const ON_THEIR_WAY: Duration = Duration::from_millis(200);

/// So that some come long after the signal.
const MESSAGES_WHILE_IT_STOPS: usize = 100;

const _: () = assert!(CALLERS > 4, "some callers must be without a key");
