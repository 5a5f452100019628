//! `grpcrouter instances` and `grpcrouter services`: what a gateway knows, once or as it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde::Serialize;

use crate::admin::AdminArgs;
use crate::admin::proto::instance_event::Kind;
use crate::admin::proto::{Instance, ListInstancesRequest, WatchInstancesRequest};
use crate::output::{self, Format};

/// What `instances` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct InstancesArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only those that have this service, such as shop.Orders
    #[arg(long, value_name = "SERVICE", default_value = "", hide_default_value = true)]
    service: String,
    /// Go on, and print each change as it comes
    #[arg(long)]
    watch: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What `services` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Go on, and print them again when they change
    #[arg(long)]
    watch: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Lists instances.
///
/// # Errors
/// The gateway does not answer, or nobody reads what is printed.
pub(crate) async fn instances(args: InstancesArgs) -> anyhow::Result<ExitCode> {
    let mut client = args.admin.connect().await?;
    let failed = |status| args.admin.failed(&status);
    if !args.watch {
        let asked = ListInstancesRequest { service: args.service.clone() };
        let listed = client.list_instances(asked).await.map_err(failed)?.into_inner().instances;
        let shown: Vec<ShownInstance> = listed.iter().map(ShownInstance::of).collect();
        match args.output {
            Format::Json => output::json(&shown)?,
            Format::Table => {
                output::table(INSTANCE_COLUMNS, shown.iter().map(ShownInstance::row), "no instance is connected")?
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let asked = WatchInstancesRequest { service: args.service.clone() };
    let mut events = client.watch_instances(asked).await.map_err(failed)?.into_inner();
    while let Some(event) = events.message().await.map_err(failed)? {
        let (what, instance, why) = match event.kind {
            Some(Kind::Joined(instance)) => ("joined", instance, None),
            Some(Kind::Changed(instance)) => ("changed", instance, None),
            Some(Kind::Left(left)) => ("left", left.instance.unwrap_or_default(), Some(left.why)),
            Some(Kind::Reset(_) | Kind::Listed(_)) | None => continue,
        };
        let instance = ShownInstance::of(&instance);
        match args.output {
            Format::Json => output::line(serde_json::to_string(&ShownEvent { event: what, instance, why })?)?,
            Format::Table => {
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                output::line(format!("{what:8} {}{why}", instance.row().join("  ").trim_end()))?;
            }
        }
    }
    Err(anyhow::anyhow!("the gateway ended the watch; it is stopping, or a newer watcher took its place"))
}

/// Lists services.
///
/// # Errors
/// The gateway does not answer, or nobody reads what is printed.
pub(crate) async fn services(args: ServicesArgs) -> anyhow::Result<ExitCode> {
    let mut client = args.admin.connect().await?;
    let failed = |status| args.admin.failed(&status);
    if !args.watch {
        let listed =
            client.list_instances(ListInstancesRequest::default()).await.map_err(failed)?.into_inner().instances;
        print_services(&ShownService::all(listed.iter()), args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut events = client.watch_instances(WatchInstancesRequest::default()).await.map_err(failed)?.into_inner();
    let mut present: BTreeMap<(String, Vec<u8>), Instance> = BTreeMap::new();
    let mut is_listed = false;
    let mut printed = None;
    while let Some(event) = events.message().await.map_err(failed)? {
        match event.kind {
            Some(Kind::Joined(instance) | Kind::Changed(instance)) => {
                present.insert((instance.instance_id.clone(), instance.incarnation.clone()), instance);
            }
            Some(Kind::Left(left)) => {
                let instance = left.instance.unwrap_or_default();
                present.remove(&(instance.instance_id, instance.incarnation));
            }
            Some(Kind::Reset(_)) => {
                present.clear();
                is_listed = false;
            }
            Some(Kind::Listed(_)) => is_listed = true,
            None => {}
        }
        let now = ShownService::all(present.values());
        if is_listed && printed.as_ref() != Some(&now) {
            if printed.is_some() && args.output == Format::Table {
                output::line("")?;
            }
            match args.output {
                Format::Json => output::line(serde_json::to_string(&now)?)?,
                Format::Table => print_services(&now, Format::Table)?,
            }
            printed = Some(now);
        }
    }
    Err(anyhow::anyhow!("the gateway ended the watch; it is stopping"))
}

fn print_services(services: &[ShownService], format: Format) -> std::io::Result<()> {
    match format {
        Format::Json => output::json(&services),
        Format::Table => {
            let rows = services.iter().map(ShownService::row);
            output::table(SERVICE_COLUMNS, rows, "no instance is connected, so there are no services")
        }
    }
}

/// One instance as it is printed.
#[derive(Debug, Serialize)]
struct ShownInstance {
    instance_id: String,
    state: String,
    services: Vec<String>,
    software_version: String,
    principal: String,
    peer: String,
    weight: u32,
    labels: BTreeMap<String, String>,
    routing_keys: Vec<String>,
    load_permille: u32,
    open_calls: u64,
    calls: u64,
    connected_for_ms: u64,
}

/// One change as it is printed.
#[derive(Debug, Serialize)]
struct ShownEvent {
    event: &'static str,
    instance: ShownInstance,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

const INSTANCE_COLUMNS: [&str; 8] =
    ["INSTANCE", "STATE", "SERVICES", "VERSION", "PRINCIPAL", "PEER", "CALLS", "CONNECTED"];

impl ShownInstance {
    fn of(instance: &Instance) -> Self {
        Self {
            instance_id: instance.instance_id.clone(),
            state: instance.state().as_str_name().trim_start_matches("INSTANCE_STATE_").to_owned(),
            services: instance.services.clone(),
            software_version: instance.software_version.clone(),
            principal: instance.principal.clone(),
            peer: instance.peer.clone(),
            weight: instance.weight,
            labels: instance.labels.clone(),
            routing_keys: instance.routing_keys.clone(),
            load_permille: instance.load_permille,
            open_calls: instance.open_calls,
            calls: instance.calls,
            connected_for_ms: instance.connected_for_ms,
        }
    }

    fn row(&self) -> [String; 8] {
        [
            plain(&self.instance_id),
            self.state.clone(),
            plain(&self.services.join(", ")),
            plain(&self.software_version),
            plain(&self.principal),
            self.peer.clone(),
            format!("{} of {}", self.open_calls, self.calls),
            span(self.connected_for_ms / 1000),
        ]
    }
}

/// One service as it is printed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ShownService {
    service: String,
    instances: usize,
    ready: usize,
    versions: BTreeSet<String>,
    instance_ids: BTreeSet<String>,
}

const SERVICE_COLUMNS: [&str; 4] = ["SERVICE", "READY", "VERSIONS", "INSTANCES"];

impl ShownService {
    fn all<'a>(instances: impl Iterator<Item = &'a Instance>) -> Vec<Self> {
        let mut services: BTreeMap<&str, Self> = BTreeMap::new();
        for instance in instances {
            let shown = ShownInstance::of(instance);
            for name in &instance.services {
                let service = services.entry(name).or_insert_with(|| Self {
                    service: name.clone(),
                    instances: 0,
                    ready: 0,
                    versions: BTreeSet::new(),
                    instance_ids: BTreeSet::new(),
                });
                service.instances += 1;
                service.ready += usize::from(shown.state == "READY");
                service.instance_ids.insert(shown.instance_id.clone());
                if !shown.software_version.is_empty() {
                    service.versions.insert(shown.software_version.clone());
                }
            }
        }
        services.into_values().collect()
    }

    fn row(&self) -> [String; 4] {
        let several =
            |names: &BTreeSet<String>| plain(&names.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
        [
            plain(&self.service),
            format!("{} of {}", self.ready, self.instances),
            several(&self.versions),
            several(&self.instance_ids),
        ]
    }
}

/// What an instance says of itself may hold anything; a terminal gets no control characters.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_by_name_with_who_is_ready() {
        let instance = |id: &str, services: &[&str], state: i32, version: &str| Instance {
            instance_id: id.into(),
            services: services.iter().map(|name| (*name).into()).collect(),
            state,
            software_version: version.into(),
            ..Instance::default()
        };
        let all =
            [instance("b", &["x.X", "a.A"], 1, "2"), instance("a", &["x.X"], 2, "1"), instance("c", &["x.X"], 1, "")];

        let rows: Vec<_> = ShownService::all(all.iter()).iter().map(ShownService::row).collect();

        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        assert_eq!(rows, [row(["a.A", "1 of 1", "2", "b"]), row(["x.X", "2 of 3", "1, 2", "a, b, c"])]);
    }

    #[test]
    fn a_name_cannot_speak_to_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn spans_are_told_in_one_unit() {
        assert_eq!([0, 59, 60, 3_600, 172_799, 172_800].map(span), ["0 s", "59 s", "1 min", "1 h", "47 h", "2 d"]);
    }
}
