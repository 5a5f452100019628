//! From settings to a gateway that runs: files are read, addresses bound, and one line says where.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use grpcrouter_runtime::{Gateway, GatewayBuilder, GatewayTls, RegistrationPolicy, shutdown_signal};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::watch;

use super::config::{Address, Config, Limits, Span, Tls};
use crate::output;

/// The gateway that the settings ask for, to listen at this address. Reads every file that they name.
///
/// # Errors
/// A file that cannot be read; what the builder refuses.
pub(super) fn build(config: &Config, at: &str) -> anyhow::Result<Gateway> {
    let mut builder = Gateway::builder().listen(at);
    for path in &config.descriptor_sets {
        let set = fs::read(path).with_context(|| format!("cannot read the descriptor set {}", path.display()))?;
        builder = builder.add_descriptors(set);
    }
    for (name, service) in &config.services {
        builder = builder.add_service(service.routes(name));
    }
    if let Some(any) = &config.any_service {
        builder = builder.any_service(any.routes());
    }
    if let Some(files) = &config.tls {
        builder = builder.tls(tls(files));
    }
    if config.register_listen.is_some() {
        builder = builder.register_elsewhere();
    }
    if let Some(files) = &config.register_tls {
        builder = builder.register_tls(tls(files));
    }
    if config.insecure == Some(true) {
        builder = builder.insecure();
    }
    if let Some(registration) = &config.registration {
        builder = builder.registration(RegistrationPolicy::file(&registration.file));
    }
    if let Some(callers) = &config.callers {
        builder = builder.callers(callers.callers());
    }
    if let Some(Span(time)) = config.drain_timeout {
        builder = builder.drain_timeout(time);
    }
    if let Some(own) = &config.advertise {
        builder = builder.advertise(own);
    }
    builder = builder.peers(&config.peers);
    if let Some(name) = &config.peers_dns {
        builder = builder.peers_dns(name);
    }
    if let Some(on) = config.health {
        builder = builder.health(on);
    }
    if let Some(on) = config.reflection {
        builder = builder.reflection(on);
    }
    if config.descriptor_sets.is_empty() && config.services.is_empty() && config.any_service.is_none() {
        bail!(
            "there is nothing to serve: give --descriptor-set FILE for services with the option (grpcrouter.routes_to), \
             --any-service for whatever backends register, or a --config FILE with either"
        );
    }
    Ok(limited(builder, &config.limits).build()?)
}

fn tls(files: &Tls) -> GatewayTls {
    let mut tls = GatewayTls::files(&files.cert, &files.key);
    if let Some(bundle) = &files.client_ca {
        tls = tls.client_ca(bundle);
    }
    if files.require_client_certificate {
        tls = tls.require_client_certificate();
    }
    if let Some(Span(every)) = files.reload_every {
        tls = tls.reload_every(every);
    }
    tls
}

fn limited(mut builder: GatewayBuilder, limits: &Limits) -> GatewayBuilder {
    if let Some(value) = limits.max_connections {
        builder = builder.max_connections(value);
    }
    if let Some(value) = limits.max_connections_per_address {
        builder = builder.max_connections_per_address(value);
    }
    if let Some(Span(time)) = limits.opening_timeout {
        builder = builder.opening_timeout(time);
    }
    if let Some(Span(time)) = limits.idle_timeout {
        builder = builder.idle_timeout(time);
    }
    if let Some(keepalive) = &limits.keepalive {
        builder = builder.keepalive(keepalive.every.0, keepalive.patience.0);
    }
    if let Some(value) = limits.max_calls {
        builder = builder.max_calls(value);
    }
    if let Some(value) = limits.max_open_calls {
        builder = builder.max_open_calls(value);
    }
    if let Some(Span(time)) = limits.resume_window {
        builder = builder.resume_window(time);
    }
    if let Some(value) = limits.max_message_size {
        builder = builder.max_message_size(value);
    }
    if let Some(value) = limits.max_parked_calls {
        builder = builder.max_parked_calls(value);
    }
    if let Some(value) = limits.window_memory {
        builder = builder.window_memory(value);
    }
    if let Some(value) = limits.max_health_watches {
        builder = builder.max_health_watches(value);
    }
    if let Some(value) = limits.eject_after {
        builder = builder.eject_after(value);
    }
    builder
}

/// Runs it until a signal comes and running calls are done.
///
/// # Errors
/// It cannot be built, or cannot listen.
///
/// # Cancel safety
/// Dropping the future ends everything at once.
pub(super) async fn serve(config: &Config, dev: bool) -> anyhow::Result<()> {
    // First: a series is made where its part of the gateway is.
    if let Some(address) = &config.metrics_listen {
        let at = resolved(address).await?;
        let export = PrometheusBuilder::new().with_http_listener(at);
        export.install().with_context(|| format!("cannot answer Prometheus at {address}; is the address in use?"))?;
    }
    let (listener, at) = bound(address(config)).await?;
    if dev && !at.ip().is_loopback() {
        bail!(
            "--dev is for this machine alone, and {at} is reached from others: listen at 127.0.0.1 or leave out --dev"
        );
    }
    // Of a name it is known only now whether others reach it.
    let gateway = build(config, &at.to_string())?;
    let register = bound_if(config.register_listen.as_ref()).await?;
    let admin = bound_if(config.admin_listen.as_ref()).await?;
    if let Some((_, at)) = admin.as_ref().filter(|(_, at)| !at.ip().is_loopback()) {
        bail!(
            "admin_listen {at} cannot be used: it asks for no credentials; use a loopback address, and reach it from \
             elsewhere through ssh -L or kubectl port-forward"
        );
    }
    // Before the line: whoever reads it may send a signal at once.
    let signal = shutdown_signal("grpcrouter gateway")?;
    let mut line = format!("grpcrouter gateway: listening on {at}");
    if let Some((_, register)) = &register {
        line += &format!(", backends register on {register}");
    }
    if let Some((_, admin)) = &admin {
        line += &format!(", admin on {admin}");
    }
    if let Some(metrics) = &config.metrics_listen {
        line += &format!(", metrics on {metrics}");
    }
    // Nobody may be reading any more; that is no reason to stop.
    let _ = output::line(line);

    let stop = watch::Sender::new(false);
    let all = async {
        let admin = async {
            match admin {
                Some((listener, _)) => gateway.serve_admin(listener, stopped(&stop)).await,
                None => Ok(()),
            }
        };
        let register = async {
            match register {
                Some((listener, _)) => gateway.serve_register(listener, stopped(&stop)).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(gateway.serve(listener, stopped(&stop)), register, admin)
    };
    let mut all = std::pin::pin!(all);
    tokio::select! {
        ended = &mut all => ended?,
        () = signal => {
            stop.send_replace(true);
            all.await?
        }
    };
    Ok(())
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + use<> {
    let mut told = stop.subscribe();
    async move {
        // Without the sender nobody runs any more.
        let _ = told.wait_for(|stop| *stop).await;
    }
}

async fn bound(address: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let why = || format!("cannot listen at {address}; is it an address of this machine, free, and allowed to you?");
    let listener = TcpListener::bind(address).await.with_context(why)?;
    let at = listener.local_addr().with_context(why)?;
    Ok((listener, at))
}

async fn bound_if(address: Option<&Address>) -> anyhow::Result<Option<(TcpListener, SocketAddr)>> {
    match address {
        Some(address) => bound(address.as_str()).await.map(Some),
        None => Ok(None),
    }
}

async fn resolved(address: &Address) -> anyhow::Result<SocketAddr> {
    let found = lookup_host(address.as_str()).await.with_context(|| format!("cannot find the address {address}"))?;
    found.into_iter().next().with_context(|| format!("{address} is no address of this machine"))
}

/// Where it listens.
pub(super) fn address(config: &Config) -> &str {
    config.listen.as_ref().map_or(DEFAULT_ADDRESS, Address::as_str)
}

/// Loopback: a gateway is open to others only where somebody asked for it.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";
