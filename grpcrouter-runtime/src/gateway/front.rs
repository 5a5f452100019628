//! Accepts connections, and ends them: the gateway's own listener.

use std::{
    future::{Future, pending},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use grpcrouter_protocol::CloseCode;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    GatewayCore,
    arrivals::Place,
    connection::{self, Door},
    doors::{Guard, Serves, missing},
};
use crate::{accept_log::AcceptLog, error::ServeError};

/// Serves until `shutdown` is done, then drains.
pub(super) async fn serve(
    core: &Arc<GatewayCore>,
    listener: TcpListener,
    shutdown: impl Future,
) -> Result<(), ServeError> {
    let serves = if core.doors.register_elsewhere { Serves::Clients } else { Serves::All };
    let door = Door { tls: core.tls.clone(), serves };
    serve_at(core, listener, door, shutdown).await
}

/// The same, for instances alone.
pub(super) async fn serve_register(
    core: &Arc<GatewayCore>,
    listener: TcpListener,
    shutdown: impl Future,
) -> Result<(), ServeError> {
    let tls = core.doors.register_tls.as_ref().or(core.tls.as_ref()).cloned();
    serve_at(core, listener, Door { tls, serves: Serves::Instances }, shutdown).await
}

/// Serves like this, whoever the listener is for.
async fn serve_at(
    core: &Arc<GatewayCore>,
    listener: TcpListener,
    door: Door,
    shutdown: impl Future,
) -> Result<(), ServeError> {
    if let Ok(address) = listener.local_addr() {
        may_listen(core, address, &door)?;
    }
    let mut shutdown = pin!(shutdown);
    let door = Arc::new(door);
    let keep = async {
        match &door.tls {
            Some(tls) => tls.keep().await,
            None => pending().await,
        }
    };
    let mut keep = pin!(keep);
    core.counts.set_stopping(false);
    core.registry.parking.open();
    // Dropped with this future, and with it every connection.
    let mut connections = JoinSet::new();
    let stop = CancellationToken::new();
    let mut failures = AcceptFailures::default();
    let mut log = AcceptLog::default();
    loop {
        tokio::select! {
            biased;
            _ = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            never = &mut keep => match never {},
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    failures = AcceptFailures::default();
                    log.works();
                    if let Some(place) = Place::take(core, peer) {
                        let serve = connection::serve(core.clone(), door.clone(), stream, peer, stop.clone(), place);
                        connections.spawn(serve);
                    }
                }
                Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection was gone before it was accepted"),
                Err(error) => {
                    if failures.one_more(connections.len()) {
                        let address = listener.local_addr().map_or_else(|_| "its address".to_owned(), |it| it.to_string());
                        return Err(ServeError::Accept { address, error });
                    }
                    log.failed(&error);
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let _stopping = Stopping::new(core);
    drain(core, &mut connections, &stop).await;
    Ok(())
}

/// Whether a door may be at an address that others reach.
fn may_listen(core: &GatewayCore, address: SocketAddr, door: &Door) -> Result<(), ServeError> {
    let guard = Guard { has_tls: door.tls.is_some(), has_policy: core.admission.is_guarded() };
    match missing(address, door.serves, guard) {
        Some(why) if !core.doors.may_be_exposed => Err(ServeError::Exposed { address: address.to_string(), why }),
        _ => Ok(()),
    }
}

/// The gateway lets nobody in any more; over when the gateway has stopped, for it may be served again.
struct Stopping<'a>(&'a GatewayCore);

impl<'a> Stopping<'a> {
    fn new(core: &'a GatewayCore) -> Self {
        core.counts.set_stopping(true);
        Self(core)
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.counts.set_stopping(false);
    }
}

/// Ends a gateway that was never served here, but by another server. It lets nobody in again before it is served.
pub(super) async fn drain_mounted(core: &GatewayCore) {
    let began = Instant::now();
    core.counts.set_stopping(true);
    finish_calls(core, began).await;
    core.registry.parking.close();
    core.registry.close_all(CloseCode::Shutdown, "the gateway stops");
    end_tunnels(core).await;
    info!(took = ?began.elapsed(), "stopped");
}

/// Lets running calls finish, for so long; then ends them, the tunnels and the connections.
async fn drain(core: &GatewayCore, connections: &mut JoinSet<()>, stop: &CancellationToken) {
    let began = Instant::now();
    stop.cancel();
    finish_calls(core, began).await;
    core.registry.parking.close();
    core.registry.close_all(CloseCode::Shutdown, "the gateway stops");
    // The answers of the calls that ended here, and the tunnels' last words.
    let flushed = async { while connections.join_next().await.is_some() {} };
    if timeout(LAST_WORDS, flushed).await.is_err() {
        debug!(connections = connections.len(), "closing connections that did not end by themselves");
    }
    connections.shutdown().await;
    // Also those that came through another server.
    end_tunnels(core).await;
    info!(took = ?began.elapsed(), "stopped");
}

/// Waits until no call runs, or they have had their time.
async fn finish_calls(core: &GatewayCore, began: Instant) {
    // Nobody is let in whom they could wait for.
    core.registry.parking.wake_all();
    info!(calls = core.counts.calls(), "stopping: running calls finish");
    let hard = sleep_until(began + core.limits.drain_timeout);
    let quiet = async {
        // Clients may still send calls for about a round trip after they were told not to.
        sleep(LAST_CALLS.min(core.limits.drain_timeout)).await;
        // Who calls from inside of this process is told by the answer, or it would go on for ever.
        core.counts.close();
        while core.counts.calls() > 0 {
            sleep(DRAIN_LOOK).await;
        }
        // A call is over when h2 has its answer; a slow client has it only when its connection has ended.
        while core.counts.connections() > core.registry.tunnels().len() {
            sleep(DRAIN_LOOK).await;
        }
    };
    tokio::select! {
        () = quiet => {}
        () = hard => warn!(calls = core.counts.calls(), "running calls did not finish in time: they end now"),
    }
}

/// Waits until the tunnels that were closed are gone.
async fn end_tunnels(core: &GatewayCore) {
    let ended = async {
        while !core.registry.tunnels().is_empty() {
            sleep(DRAIN_LOOK).await;
        }
    };
    if timeout(LAST_WORDS, ended).await.is_err() {
        debug!("a tunnel did not end in time");
    }
}

/// How often in a row nothing could be accepted, mostly for want of file descriptors.
#[derive(Debug, Default)]
struct AcceptFailures(u32);

impl AcceptFailures {
    /// Whether to give up. Never while anybody is connected: they stay served, and give descriptors back in time.
    fn one_more(&mut self, connections: usize) -> bool {
        self.0 += u32::from(connections == 0);
        self.0 >= ACCEPT_TRIES
    }
}

/// Whether accepting failed because of who wanted to connect.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Out of file descriptors, most often: time for some to come back, without spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Half a minute of nothing but failures: somebody has to look.
const ACCEPT_TRIES: u32 = 600;

/// A round trip over a long way: after it no client sends calls on a connection that is ending.
const LAST_CALLS: Duration = Duration::from_millis(250);

/// How often the number of running calls is looked at while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// For what is written but not yet sent when everything has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_only_fails_is_given_up_after_half_a_minute() {
        let mut failures = AcceptFailures::default();

        let tries = (1..).find(|_| failures.one_more(0));

        assert_eq!(tries, Some(600));
        assert_eq!(ACCEPT_PAUSE * ACCEPT_TRIES, Duration::from_secs(30));
    }

    #[test]
    fn a_gateway_out_of_descriptors_is_not_given_up_while_anybody_is_connected() {
        let mut failures = AcceptFailures::default();

        assert!((0..10_000).all(|_| !failures.one_more(1)));
        assert!((0..599).all(|_| !failures.one_more(0)));
        assert!(failures.one_more(0));
    }
}
