//! A long and bad line between two network namespaces: 50 ms there and back, and one packet of a hundred lost. Nothing of
//! this machine's own network is touched.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{Stage, callers};
use crate::{
    load::{Load, Shape},
    programs::{PATIENCE, Programs},
    scenarios::Size,
};

/// Makes the namespaces and the line, and runs the rest inside of one of them.
pub(super) async fn line(stage: &Stage) -> anyhow::Result<String> {
    ensure!(rustix::process::geteuid().is_root(), "network namespaces need root: run it as root, or with sudo");
    let number = std::process::id();
    let (site, world) =
        (Namespace::new(format!("chaos-site-{number}")).await?, Namespace::new(format!("chaos-world-{number}")).await?);
    let _line = bad_line(&site.0, &world.0).await?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &world.0]).arg(std::env::current_exe()?);
    command.args(["inside", "--site", &site.0, "--seconds", &stage.size.time.as_secs().to_string()]);
    let done = command.kill_on_drop(true).stdin(Stdio::null()).output().await?;
    let (said, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if !done.status.success() {
        bail!("{}", errors.trim());
    }
    Ok(said.trim().to_owned())
}

/// The gateway and the clients, on one side of the line; the instances are on the other.
pub(crate) async fn inside(site: &str, time: Duration) -> anyhow::Result<()> {
    let stage = Stage { programs: Programs::beside_this_one()?, size: Size { time, calls: 0 } };
    let (gateway, address) = stage.programs.gateway_at("gateway", &format!("{WORLD}:0"), &["--insecure"]).await?;
    let mut instances = Vec::new();
    for id in ["a", "b", "c"] {
        instances.push(stage.programs.backend_in(site, &format!("http://{address}"), id).await?);
    }
    let load = Load::start(callers(address, 4).await?, Shape::LASTING);
    sleep(time / 2).await; // waits because that is how long it is to go on
    // The line is down for a moment: nobody is told, and what is sent is lost.
    ip(&["-n", site, "link", "set", "line", "down"]).await?;
    sleep((time / 6).min(DOWN)).await; // waits because that is how long it is down
    ip(&["-n", site, "link", "set", "line", "up"]).await?;
    let so_far = load.ended();
    load.has_ended(so_far + 200).await;
    let sums = load.stop(|| stage.programs.executions()).await?;
    sums.none_failed()?;
    for instance in instances {
        instance.stopped().await?;
    }
    gateway.stopped().await?;
    println!("{sums}, {} TCP segments sent again", sent_again()?);
    Ok(())
}

/// How often TCP had to send something again, in this namespace.
fn sent_again() -> anyhow::Result<u64> {
    let counters = std::fs::read_to_string("/proc/net/snmp")?;
    let mut tcp = counters.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = tcp.next().zip(tcp.next()).context("TCP has counters")?;
    let mut both = names.split(' ').zip(values.split(' '));
    let (_, value) = both.find(|(name, _)| *name == "RetransSegs").context("TCP counts what it sends again")?;
    Ok(value.parse()?)
}

/// A network namespace, gone when it is dropped.
struct Namespace(String);

impl Namespace {
    async fn new(name: String) -> anyhow::Result<Self> {
        ip(&["netns", "add", &name]).await.context("the kernel gives no network namespaces here")?;
        ip(&["-n", &name, "link", "set", "lo", "up"]).await?;
        Ok(Self(name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A line between both, carried by a program, since not every kernel can delay and lose by itself.
async fn bad_line(site: &str, world: &str) -> anyhow::Result<Child> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("line.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["--ends", site, world, "--delay-ms", "25", "--loss-percent", "1"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("python3 does not start: run 'make install-deps' first")?;
    let mut lines = BufReader::new(child.stdout.take().context("it has an output")?).lines();
    let said = timeout(PATIENCE, lines.next_line()).await??;
    ensure!(said.as_deref() == Some("ready"), "the line between the namespaces cannot be made: it said so above");
    for (namespace, address, peer) in [(site, SITE, WORLD), (world, WORLD, SITE)] {
        ip(&["-n", namespace, "addr", "add", address, "peer", peer, "dev", "line"]).await?;
        ip(&["-n", namespace, "link", "set", "line", "up"]).await?;
    }
    Ok(child)
}

async fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("ip").args(arguments).output().await.context("ip: run 'make install-deps' first")?;
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "ip {}: {}", arguments.join(" "), errors.trim());
    Ok(())
}

/// The addresses of the two ends, of those that are for documentation.
const SITE: &str = "192.0.2.2";
const WORLD: &str = "192.0.2.1";

/// Long enough to be missed at every retry, short enough not to be given up.
const DOWN: Duration = Duration::from_secs(3);
