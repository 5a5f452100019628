//! What is broken, one scenario each, and how they are run: one after the other, each with programs of its own.

mod line;
mod memory;
mod network;
mod nginx;
mod processes;
mod stalled;

use std::{net::SocketAddr, pin::Pin, time::Duration};

use anyhow::{Context as _, bail};
use grpcrouter_chaos::Caller;
use tonic::transport::Endpoint;

pub(crate) use self::{line::inside, memory::world};
use crate::programs::{Program, Programs};

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) time: Duration,
    pub(crate) calls: u64,
}

/// What a scenario works with.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) programs: Programs,
    pub(crate) size: Size,
}

/// Something that breaks.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    run: for<'a> fn(&'a Stage) -> Playing<'a>,
}

/// A scenario under way. It gives the line of its counts.
type Playing<'a> = Pin<Box<dyn Future<Output = anyhow::Result<String>> + 'a>>;

impl Scenario {
    const fn new(name: &'static str, about: &'static str, run: for<'a> fn(&'a Stage) -> Playing<'a>) -> Self {
        Self { name, about, run }
    }

    pub(crate) const ALL: [Self; 13] = [
        Self::new("cuts", "connections of instances are cut, by reset and by an orderly end", |stage| {
            Box::pin(network::cuts(stage))
        }),
        Self::new("stalls", "connections carry nothing for a while, one way or the other", |stage| {
            Box::pin(network::stalls(stage))
        }),
        Self::new("half-closes", "one way of a connection ends, the other goes on", |stage| {
            Box::pin(network::half_closes(stage))
        }),
        Self::new("half-open", "connections carry nothing any more, and nobody is told", |stage| {
            Box::pin(network::half_open(stage))
        }),
        Self::new("sigkill", "an instance is killed and started again", |stage| Box::pin(processes::sigkill(stage))),
        Self::new("sigstop", "an instance, and then the gateway, stand still for a while", |stage| {
            Box::pin(processes::sigstop(stage))
        }),
        Self::new("restarts", "each of five instances is asked to stop and started again", |stage| {
            Box::pin(processes::restarts(stage))
        }),
        Self::new("gateways", "each of two gateways is asked to stop and started again", |stage| {
            Box::pin(processes::gateways(stage))
        }),
        Self::new("nginx", "nginx with grpc_read_timeout 5s between the instances and the gateway", |stage| {
            Box::pin(nginx::nginx(stage))
        }),
        Self::new("line", "50 ms and 1 % loss between two network namespaces, and a line that goes down", |stage| {
            Box::pin(line::line(stage))
        }),
        Self::new(
            "memory",
            "what a gateway and its instances hold after many calls, a fifth of them cancelled",
            |stage| Box::pin(memory::memory(stage)),
        ),
        Self::new("stalled", "one call that nobody reads among 99 that are busy", |stage| {
            Box::pin(stalled::stalled(stage))
        }),
        Self::new("expiry", "an instance that is killed and does not come back within the window", |stage| {
            Box::pin(processes::expiry(stage))
        }),
    ];
}

/// Runs those of these names, or all.
pub(crate) async fn run(names: &[String], size: Size) -> anyhow::Result<()> {
    let known = || Scenario::ALL.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = names.iter().find(|name| Scenario::ALL.iter().all(|scenario| scenario.name != **name)) {
        bail!("there is no scenario {unknown}; there are {}", known());
    }
    let mut failed = Vec::new();
    for scenario in Scenario::ALL.iter().filter(|it| names.is_empty() || names.iter().any(|name| name == it.name)) {
        let began = std::time::Instant::now();
        let stage = Stage { programs: Programs::beside_this_one()?, size };
        let (told, verdict) = match (scenario.run)(&stage).await {
            Ok(told) => (told, "passed"),
            Err(error) => (format!("{error:#}"), "FAILED"),
        };
        println!("chaos: {}: {told} ({:.0?}): {verdict}", scenario.name, began.elapsed());
        if verdict != "passed" {
            failed.push(scenario.name);
            let again = format!("chaos --seconds {} --calls {} {}", size.time.as_secs(), size.calls, scenario.name);
            println!("chaos: again: {again}; its logs: {}", stage.programs.keep().display());
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

impl Stage {
    /// So many instances, named a, b, c, …, that dial this address.
    pub(crate) async fn instances(&self, gateway: SocketAddr, count: usize) -> anyhow::Result<Vec<Program>> {
        let mut programs = Vec::new();
        for id in NAMES.iter().take(count) {
            programs.push(self.programs.backend(&format!("http://{gateway}"), id).await?);
        }
        Ok(programs)
    }
}

/// So many connections of tonic's client.
pub(crate) async fn callers(gateway: SocketAddr, count: usize) -> anyhow::Result<Vec<Caller>> {
    let mut callers = Vec::new();
    for _ in 0..count {
        let endpoint = Endpoint::from_shared(format!("http://{gateway}"))?;
        callers.push(Caller::new(endpoint.connect().await.context("the gateway listens")?));
    }
    Ok(callers)
}

/// What instances are called.
pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
