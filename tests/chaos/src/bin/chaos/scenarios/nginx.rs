//! A real proxy between the instances and the gateway, which cuts what is silent for five seconds: Debian's nginx.

use std::{fs, net::TcpListener, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{process::Command, time::sleep};

use super::{Stage, callers};
use crate::load::{Load, Shape};

pub(super) async fn nginx(stage: &Stage) -> anyhow::Result<String> {
    // All tunnels are idle and are cut at the same time: on a slow machine a call waits until one is back.
    let settings = stage.programs.work().join("gateway.toml");
    fs::write(&settings, "[any_service]\nwait_for_instance = true\n")?;
    let settings = settings.to_str().context("a folder for what is written has a plain name")?;
    let (gateway, address) = stage.programs.gateway("gateway", &["--config", settings]).await?;
    // nginx is not told a free port by the system: this one was free a moment ago.
    let proxy = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let work = stage.programs.work().display();
    let config = stage.programs.work().join("nginx.conf");
    fs::write(
        &config,
        format!(
            "daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/nginx-error.log info;
            events {{ }}
            http {{
                access_log {work}/nginx-access.log; client_body_temp_path {work}; proxy_temp_path {work};
                fastcgi_temp_path {work}; uwsgi_temp_path {work}; scgi_temp_path {work};
                server {{
                    listen {proxy} http2;
                    client_max_body_size 0;
                    location / {{ grpc_pass grpc://{address}; grpc_read_timeout 5s; }}
                }}
            }}"
        ),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).kill_on_drop(true);
    let mut nginx = command.spawn().context("nginx does not start: run 'make install-deps' first")?;
    while tokio::net::TcpStream::connect(proxy).await.is_err() {
        ensure!(
            nginx.try_wait()?.is_none(),
            "nginx ended: {}",
            fs::read_to_string(stage.programs.work().join("nginx-error.log"))?
        );
        sleep(Duration::from_millis(20)).await; // waits because nginx does not say when it listens
    }
    let instances = stage.instances(proxy, 3).await?;
    let callers = callers(address, 4).await?;
    let mut calls = 0;
    // Idle tunnels are cut after five seconds; so calls come to tunnels that were just cut, and go on in busy ones.
    for _ in 0..(stage.size.time.as_secs() / 6).max(1) {
        let load =
            Load::start(callers.clone(), Shape { pause: Duration::from_millis(1_500), first: calls, ..Shape::LASTING });
        sleep(Duration::from_secs(6)).await; // waits because nginx counts to five
        let sums = load.stop(|| stage.programs.executions()).await?;
        sums.none_failed()?;
        calls += sums.calls();
        sleep(Duration::from_secs(6)).await; // waits because nginx counts to five
    }
    let cuts = fs::read_to_string(stage.programs.work().join("nginx-error.log"))?.matches("timed out").count();
    for instance in instances {
        instance.stopped().await?;
    }
    gateway.stopped().await?;
    nginx.kill().await?;
    Ok(format!("{calls} calls, {calls} ok, 0 failed, {cuts} streams cut by nginx"))
}
