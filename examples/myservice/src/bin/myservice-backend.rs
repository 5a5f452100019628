//! The backend of the example: it dials out to a gateway, listens for direct calls, or both. The service is the same.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use grpcrouter_runtime::Backend;
use myservice::proto::my_service_server::MyServiceServer;
use myservice::{MyServiceImpl, Shutdown};
use tracing_subscriber::EnvFilter;

/// Serves MyService until SIGTERM or ctrl-c; then running calls finish. A second signal ends it at once.
#[derive(Debug, Parser)]
#[command(
    name = "myservice-backend",
    version,
    after_help = "Environment:\n  GRPCROUTER_LOG  what is logged, such as info (the default) or debug"
)]
struct Arguments {
    /// How calls come in: through the gateway, directly, or both ways.
    #[arg(long, value_enum, default_value_t = Mode::Router)]
    mode: Mode,
    /// The gateway to dial, in the modes router and both.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    gateway: String,
    /// Where to listen, in the modes direct and both; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    listen: String,
    /// The name that clients can ask for, by the metadata key instanceid [default: backend-PID].
    #[arg(long, value_name = "ID")]
    instance_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// It listens; there is no gateway.
    Direct,
    /// It only dials out.
    Router,
    /// It listens and dials out.
    Both,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myservice-backend: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let filter = std::env::var("GRPCROUTER_LOG").unwrap_or_else(|_| "info".into());
    let filter = EnvFilter::try_new(filter).context("GRPCROUTER_LOG is not a filter such as info or debug")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();

    let Arguments { mode, gateway, listen, instance_id } = arguments;
    let id = instance_id.unwrap_or_else(|| format!("backend-{}", std::process::id()));
    let mut builder = Backend::builder().instance_id(&id).add_service(MyServiceServer::new(MyServiceImpl::new(&id)));
    if mode != Mode::Direct {
        builder = builder.gateway(&gateway);
    }
    if mode != Mode::Router {
        builder = builder.listen(listen);
    }
    let backend = builder.build()?;

    let shutdown = Shutdown::new().context("the system gives no signals")?;
    let serving = tokio::spawn(backend.serve(shutdown.requested()));
    let announcing = tokio::spawn(async move {
        backend.ready().await;
        let mut ways = Vec::new();
        if mode != Mode::Direct {
            ways.push(format!("registered at {gateway}"));
        }
        if let Some(address) = backend.local_addr() {
            ways.push(format!("listening on {address}"));
        }
        println!("myservice-backend: {id} is {}", ways.join(" and "));
    });
    let served = serving.await.context("the backend broke");
    announcing.abort();
    Ok(served??)
}
