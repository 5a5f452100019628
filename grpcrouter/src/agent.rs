//! `grpcrouter agent`: brings the services of an unmodified gRPC server to a gateway, by dialling out.

use std::process::ExitCode;
use std::time::Duration;

use clap::ArgAction;
use clap::builder::FalseyValueParser;
use grpcrouter_runtime::{Agent, Backend, BackendBuilder, Upstream};

use crate::dial::DialArgs;
use crate::output;
use crate::values::{duration, pair};

/// What `agent` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Such as:
  grpcrouter agent --gateway https://gateway.example.com --token-file token --upstream localhost:50051

The services and their descriptors come from the server's reflection, unless they are named with --service. The proxy is
taken from https_proxy and no_proxy, unless --proxy names one.

SIGTERM or ctrl-c: running calls finish, then the agent ends with code 0. A second signal ends it at once.")]
pub(crate) struct Args {
    #[command(flatten)]
    dial: DialArgs,
    /// The gRPC server to bring there: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", env = "GRPCROUTER_UPSTREAM")]
    upstream: String,
    /// A service that the server has, such as shop.Orders, instead of asking its reflection; again for another one
    #[arg(long, value_name = "SERVICE", env = "GRPCROUTER_SERVICE", value_delimiter = ',')]
    service: Vec<String>,
    /// The name that a routing key must have to reach this instance [default: this host's name and chance]
    #[arg(long, value_name = "ID", env = "GRPCROUTER_INSTANCE_ID")]
    instance_id: Option<String>,
    /// A routing key that it answers beside its id, such as a tenant; again for another one
    #[arg(long, value_name = "KEY", env = "GRPCROUTER_ROUTING_KEY", value_delimiter = ',')]
    routing_key: Vec<String>,
    /// A label, for people and policies; again for another one
    #[arg(long, value_name = "NAME=VALUE", env = "GRPCROUTER_LABEL", value_delimiter = ',', value_parser = pair)]
    label: Vec<(String, String)>,
    /// Its share of the calls where the gateway weighs
    #[arg(long, value_name = "N", env = "GRPCROUTER_WEIGHT", default_value_t = 1)]
    weight: u32,
    /// The version of the server's software, shown where instances are listed and used where calls are split
    #[arg(long, visible_alias = "version", value_name = "VERSION", env = "GRPCROUTER_SOFTWARE_VERSION")]
    software_version: Option<String>,
    /// Calls that may be open at once; what is beyond goes to other instances
    #[arg(long, value_name = "N", env = "GRPCROUTER_MAX_CALLS", default_value_t = 1024)]
    max_calls: u32,
    /// Go to the gateways of --gateway alone, and not to those too that they name as their peers
    #[arg(long, env = "GRPCROUTER_NO_FOLLOW_GATEWAYS", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    no_follow_gateways: bool,
    /// How long calls may go on after a signal, such as 30s
    #[arg(long, value_name = "TIME", env = "GRPCROUTER_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration)]
    drain_timeout: Duration,
}

/// Serves until a signal comes.
///
/// # Errors
/// The flags cannot be used, or the server does not tell its services.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.dial.readable()?;
    let shutdown = grpcrouter_runtime::shutdown_signal("grpcrouter")?;
    let upstream = args.service.iter().fold(Upstream::new(&args.upstream), |upstream, name| upstream.service(name));
    let settings = args.clone();
    let agent = Agent::new(upstream, move || settings.builder())?;
    let ready = async {
        agent.ready().await;
        let (gateways, id) = (args.dial.gateways(), agent.instance_id());
        // Nobody may be reading any more; that is no reason to stop.
        let _ = output::line(format!("grpcrouter: registered at {gateways} as {id}: {}", agent.services().join(", ")));
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        ended = agent.serve(shutdown) => ended?,
        never = ready => match never {},
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn builder(&self) -> BackendBuilder {
        let mut builder = Backend::builder()
            .weight(self.weight)
            .max_calls(self.max_calls)
            .follow_gateways(!self.no_follow_gateways)
            .drain_timeout(self.drain_timeout)
            .software_version(self.software_version.as_deref().unwrap_or_default());
        builder = self.routing_key.iter().fold(builder, BackendBuilder::routing_key);
        builder = self.label.iter().fold(builder, |builder, (name, value)| builder.label(name, value));
        if let Some(id) = &self.instance_id {
            builder = builder.instance_id(id);
        }
        self.dial.applied_to(builder)
    }
}
