//! What a gateway and its instances hold before and after many calls. They run in one process of their own, which can
//! tell its tasks beside its memory and its file descriptors.

use std::{
    collections::BTreeMap, fs::OpenOptions, io::Write as _, net::SocketAddr, process::Stdio, sync::Arc, time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use grpcrouter_chaos::Worker;
use grpcrouter_runtime::{Backend, Gateway};
use myservice::proto::{my_service_router::MyServiceRouter, my_service_server::MyServiceServer};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::{Stage, callers};
use crate::{
    load::{Load, Shape},
    programs::PATIENCE,
};

pub(super) async fn memory(stage: &Stage) -> anyhow::Result<String> {
    let mut world = World::start(stage).await?;
    let calls = stage.size.calls;
    // What is made once, and grows to its size with the first calls, is no leak.
    let warm = world.load(stage, 0, calls / 2).await?;
    let before = world.at_rest().await?;
    let sums = world.load(stage, calls, calls).await?;
    let after = world.at_rest().await?;
    world.child.kill().await?;
    let drift = after.rss_kib.saturating_sub(before.rss_kib);
    let line = format!(
        "{sums}, {} KiB before ({warm}), {} KiB after, {} tasks, {} fds",
        before.rss_kib, after.rss_kib, after.tasks, after.fds
    );
    ensure!(after.calls == 0 && after.queued_bytes == 0, "calls are left: {after:?}");
    ensure!(after.tasks <= before.tasks, "tasks are left: {before:?}, then {after:?}");
    ensure!(after.fds <= before.fds, "file descriptors are left: {before:?}, then {after:?}");
    ensure!(drift <= MOST_DRIFT_KIB, "{drift} KiB more than before, at most {MOST_DRIFT_KIB}: {line}");
    Ok(line)
}

/// What the process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    rss_kib: u64,
    fds: u64,
    tasks: u64,
    calls: u64,
    queued_bytes: u64,
}

struct World {
    child: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    gateway: SocketAddr,
}

impl World {
    async fn start(stage: &Stage) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("world").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.current_dir(stage.programs.work()).spawn()?;
        let ask = child.stdin.take().context("it has an input")?;
        let mut answers = BufReader::new(child.stdout.take().context("it has an output")?).lines();
        let line = timeout(PATIENCE, answers.next_line()).await??.context("the world ended")?;
        Ok(Self { child, ask, answers, gateway: line.parse()? })
    }

    async fn load(&self, stage: &Stage, first: u64, calls: u64) -> anyhow::Result<String> {
        let shape = Shape { first, cancelled: 20, ..Shape::quick(calls) };
        let load = Load::start(callers(self.gateway, 4).await?, shape);
        let sums = load.finish(|| stage.programs.executions()).await?;
        sums.none_failed()?;
        Ok(sums.to_string())
    }

    /// What it holds when all calls are over at both ends.
    async fn at_rest(&mut self) -> anyhow::Result<Held> {
        let began = std::time::Instant::now();
        let mut last = self.held().await?;
        loop {
            sleep(Duration::from_millis(500)).await; // waits because what was cancelled is given back a little later
            let now = self.held().await?;
            if now.calls == 0 && now.tasks >= last.tasks && now.fds >= last.fds {
                return Ok(now);
            }
            ensure!(began.elapsed() < PATIENCE, "it does not come to rest: {now:?}");
            last = now;
        }
    }

    async fn held(&mut self) -> anyhow::Result<Held> {
        self.ask.write_all(b"\n").await?;
        let line = timeout(PATIENCE, self.answers.next_line()).await??.context("the world ended")?;
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [rss_kib, fds, tasks, calls, queued_bytes] = numbers[..] else { bail!("five numbers, not {line}") };
        Ok(Held { rss_kib, fds, tasks, calls, queued_bytes })
    }
}

/// The process itself: tells where it listens, and then what it holds for each line that it reads.
pub(crate) async fn world() -> anyhow::Result<()> {
    let gateway = Gateway::builder().add_router::<MyServiceRouter>().build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.serve(listener, std::future::pending::<()>()).await }
    });
    let mut backends = Vec::new();
    for id in ["a", "b"] {
        let journal = OpenOptions::new().create(true).append(true).open(format!("{id}.journal"))?;
        let worker = Worker::new(
            id,
            Arc::new(move |id| {
                let line = format!("{id}\n");
                (&journal).write_all(line.as_bytes()).expect("the journal can be written");
            }),
        );
        let service = MyServiceServer::new(worker);
        let backend =
            Backend::builder().gateway(format!("http://{address}")).instance_id(id).add_service(service).build()?;
        tokio::spawn(backend.serve(std::future::pending::<()>()));
        backend.ready().await;
        backends.push(backend);
    }
    println!("{address}");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        let stats = gateway.stats();
        let at_backends: usize = backends.iter().map(|backend| backend.stats().calls).sum();
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let fds = std::fs::read_dir("/proc/self/fd")?.count();
        println!("{} {fds} {tasks} {} {}", rss_kib()?, stats.calls + at_backends, stats.queued_bytes);
    }
    Ok(())
}

fn rss_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let values: BTreeMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let rss = values.get("VmRSS").and_then(|value| value.trim().strip_suffix(" kB")).context("VmRSS")?;
    Ok(rss.trim().parse()?)
}

/// What the allocator may keep of what it was given back.
const MOST_DRIFT_KIB: u64 = 8 * 1024;
