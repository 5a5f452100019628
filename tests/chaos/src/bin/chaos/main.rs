//! Breaks things under load, on real programs, and counts: one scenario for each thing that breaks. Each prints one line;
//! the exit code is 0 if every call came out as it must.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

mod load;
mod programs;
mod scenarios;

use std::{fs::OpenOptions, io::Write as _, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use grpcrouter_chaos::Worker;
use grpcrouter_runtime::Backend;
use myservice::{Shutdown, proto::my_service_server::MyServiceServer};

use scenarios::Scenario;

/// Breaks things under load and counts what becomes of the calls.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// What to break; everything, if not given.
    scenarios: Vec<String>,
    /// How long each scenario goes on, in seconds, where it has no end of its own.
    #[arg(long, env = "CHAOS_SECONDS", default_value_t = 6)]
    seconds: u64,
    /// How many calls there are where they are counted.
    #[arg(long, env = "CHAOS_CALLS", default_value_t = 4_000)]
    calls: u64,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Parts that scenarios start as processes of their own.
#[derive(Debug, Subcommand)]
enum Part {
    /// An instance that writes each call that it begins into a file.
    #[command(hide = true)]
    Backend {
        #[arg(long)]
        gateway: String,
        #[arg(long)]
        instance_id: String,
        #[arg(long)]
        journal: PathBuf,
    },
    /// The rest of a scenario, in a network namespace.
    #[command(hide = true)]
    Inside {
        #[arg(long)]
        site: String,
        #[arg(long)]
        seconds: u64,
    },
    /// A gateway and two backends, which tell what they hold for each line that they are sent.
    #[command(hide = true)]
    World,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { scenarios, seconds, calls, list, part } = Arguments::parse();
    let size = scenarios::Size { time: Duration::from_secs(seconds), calls };
    let done = match part {
        Some(Part::Backend { gateway, instance_id, journal }) => backend(&gateway, &instance_id, journal).await,
        Some(Part::Inside { site, seconds }) => scenarios::inside(&site, Duration::from_secs(seconds)).await,
        Some(Part::World) => scenarios::world().await,
        None if list => {
            Scenario::ALL.iter().for_each(|scenario| println!("{:<12} {}", scenario.name, scenario.about));
            Ok(())
        }
        None => scenarios::run(&scenarios, size).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn backend(gateway: &str, id: &str, journal: PathBuf) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    // What was appended stays when this process is killed.
    let journal = OpenOptions::new().create(true).append(true).open(journal).context("the journal")?;
    let worker = Worker::new(
        id,
        Arc::new(move |id| {
            let line = format!("{id}\n");
            (&journal).write_all(line.as_bytes()).expect("the journal can be written");
        }),
    );
    let backend = Backend::builder()
        .gateway(gateway)
        .instance_id(id)
        .add_service(MyServiceServer::new(worker).max_decoding_message_size(usize::MAX))
        .build()?;
    let shutdown = Shutdown::new()?;
    let serving = tokio::spawn(backend.serve(shutdown.requested()));
    tokio::spawn({
        let id = id.to_owned();
        async move {
            backend.ready().await;
            println!("chaos: {id} is ready");
        }
    });
    Ok(serving.await??)
}
