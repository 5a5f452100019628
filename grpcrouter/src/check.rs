//! `grpcrouter check`: why can a gateway not be reached from here? Each step of the way is taken once; at the first that
//! fails it says what to do.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Style};
use grpcrouter_runtime::{Backend, BackendBuilder, CheckedStep, GatewayCheck};
use serde_json::{Value, json};

use crate::dial::DialArgs;
use crate::output::{self, Format};

/// What `check` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Such as:
  grpcrouter check --gateway https://gateway.example.com --token-file token --service shop.Orders --instance-id site-a-1

With --service it registers in the end, as an instance that gets no call and replaces nobody: that shows whether the token
is good for that service. Without, it stops where a gateway answers. The proxy is taken from https_proxy and no_proxy,
unless --proxy names one.

Exit code 0: every step went well. 1: one did not.")]
pub(crate) struct Args {
    #[command(flatten)]
    dial: DialArgs,
    /// A service to register, such as shop.Orders; again for another one
    #[arg(long, value_name = "SERVICE", env = "GRPCROUTER_SERVICE", value_delimiter = ',')]
    service: Vec<String>,
    /// The instance id to ask for, with -check put behind it [default: check- and chance]
    #[arg(long, value_name = "ID", env = "GRPCROUTER_INSTANCE_ID")]
    instance_id: Option<String>,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Takes the steps and prints them.
///
/// # Errors
/// The flags cannot be used.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let found = args.builder().check(args.service.iter().cloned()).await?;
    match args.output {
        Format::Json => output::json(&found.iter().map(as_json).collect::<Vec<_>>())?,
        Format::Table => found.iter().try_for_each(|check| print(check, args.service.is_empty()))?,
    }
    Ok(if found.iter().all(GatewayCheck::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    fn builder(&self) -> BackendBuilder {
        let builder = match &self.instance_id {
            Some(id) => Backend::builder().instance_id(id),
            None => Backend::builder(),
        };
        self.dial.applied_to(builder)
    }
}

fn print(check: &GatewayCheck, without_service: bool) -> io::Result<()> {
    let way = check.proxy.as_ref().map_or_else(|| "directly".to_owned(), |proxy| format!("through {proxy}"));
    output::line(format!("{BOLD}{}{BOLD:#}, {way}", check.gateway))?;
    for (index, step) in check.steps.iter().enumerate() {
        let CheckedStep { step: name, target, took, found, .. } = step;
        let number = index + 1;
        if step.is_ok {
            output::line(format!("{number:>2} {GOOD}ok{GOOD:#}     {name:<9} {target}: {found} ({})", shown(*took)))?;
        } else {
            output::line(format!("{number:>2} {BAD}FAILED{BAD:#} {name:<9} {target}"))?;
            output::line(format!("   {found}"))?;
        }
    }
    if check.is_ok() && without_service {
        output::line(
            "   It was not asked whether it lets an instance in: add --service SERVICE and --instance-id ID, and the \
             --token-file that the instance has.",
        )?;
    }
    Ok(())
}

fn as_json(check: &GatewayCheck) -> Value {
    let milliseconds = |took: Duration| took.as_secs_f64() * 1_000.0;
    json!({
        "gateway": check.gateway,
        "ok": check.is_ok(),
        "proxy": check.proxy,
        "peer": check.peer,
        "tls": check.tls.as_ref().map(|tls| json!({
            "version": tls.version,
            "subject": tls.subject,
            "names": tls.names,
            "issuer": tls.issuer,
            "expires": tls.expires,
        })),
        "round_trip_ms": check.round_trip.map(milliseconds),
        "registered": check.welcome.as_ref().map(|welcome| json!({
            "version": welcome.version,
            "max_calls": welcome.max_calls,
            "heartbeat_ms": milliseconds(welcome.heartbeat),
        })),
        "steps": check.steps.iter().map(|step| json!({
            "step": step.step.as_str(),
            "target": step.target,
            "ok": step.is_ok,
            "found": step.found,
            "took_ms": milliseconds(step.took),
        })).collect::<Vec<_>>(),
    })
}

fn shown(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
