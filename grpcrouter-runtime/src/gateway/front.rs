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
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    GatewayCore,
    arrivals::Place,
    connection::{self, Door, Stop},
    doors::{Guard, Serves, missing},
    peers::beside,
    stats::Calling,
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
    let certificates = async {
        match &door.tls {
            Some(tls) => tls.keep().await,
            None => pending().await,
        }
    };
    let peers = core.peers.keep(|| core.registry.tell_peers(&core.peers.list()));
    let mut keep = pin!(beside(certificates, peers));
    core.counts.set_stopping(false);
    core.registry.parking.open();
    let mut accepting = Accepting::new(core, listener, &door);
    // Dropped before the connections are.
    let _serving = Serving::new(core);
    tokio::select! {
        biased;
        _ = &mut shutdown => {}
        broken = accepting.run() => return Err(broken),
        never = &mut keep => match never {},
    }
    let _stopping = Stopping::new(core);
    let began = Instant::now();
    accepting.stop.begins.cancel();
    if door.serves == Serves::Clients {
        // Whom no instance knows is better told at once, by nobody at the door, to look elsewhere.
        accepting.close();
    }
    let finished = async {
        tokio::select! {
            biased;
            () = others_may_go(core, &door) => {}
            broken = accepting.run() => warn!("while it stops, the gateway accepts nobody any more: {broken}"),
        }
        // Before the last look: who came by then is still served.
        accepting.close();
        quiet(core).await;
    };
    in_time(core, began, finished).await;
    accepting.close();
    end(core, &mut accepting.connections, began).await;
    Ok(())
}

/// A listener and those who came by it. Dropped, it ends every connection.
struct Accepting<'a> {
    core: &'a Arc<GatewayCore>,
    /// None: nobody comes any more.
    listener: Option<TcpListener>,
    door: Arc<Door>,
    connections: JoinSet<()>,
    /// Told to each connection when it is to end.
    stop: Stop,
    failures: AcceptFailures,
    log: AcceptLog,
}

impl<'a> Accepting<'a> {
    fn new(core: &'a Arc<GatewayCore>, listener: TcpListener, door: &Arc<Door>) -> Self {
        Self {
            core,
            listener: Some(listener),
            door: door.clone(),
            connections: JoinSet::new(),
            stop: Stop::default(),
            failures: AcceptFailures::default(),
            log: AcceptLog::default(),
        }
    }

    /// Accepts until that is no use any more, and tells why.
    ///
    /// # Cancel safety
    /// Dropping the future loses nobody; it can be called again.
    async fn run(&mut self) -> ServeError {
        loop {
            let Self { listener, connections, .. } = self;
            let accepted = async {
                match listener {
                    Some(listener) => listener.accept().await,
                    None => pending().await,
                }
            };
            let accepted = tokio::select! {
                biased;
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.failures = AcceptFailures::default();
                    self.log.works();
                    self.take(stream, peer);
                }
                Err(error) if is_of_one_connection(&error) => {
                    debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    if self.failures.one_more(self.connections.len()) {
                        let address = self.listener.as_ref().and_then(|listener| listener.local_addr().ok());
                        let address = address.map_or_else(|| "its address".to_owned(), |it| it.to_string());
                        return ServeError::Accept { address, error };
                    }
                    self.log.failed(&error);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Accepting<'_> {
    fn take(&mut self, stream: TcpStream, peer: SocketAddr) {
        if let Some(place) = Place::take(self.core, peer) {
            let (core, door, stop) = (self.core.clone(), self.door.clone(), self.stop.clone());
            self.connections.spawn(connection::serve(core, door, stream, peer, stop, place));
        }
    }

    /// Nobody comes any more. Who has connected already is taken in: closed with the listener, a client would lose the
    /// call that it has just sent. Clients are told to go that have sent none yet.
    fn close(&mut self) {
        let Some(listener) = self.listener.take().and_then(|listener| listener.into_std().ok()) else { return };
        while let Ok((stream, peer)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.take(stream, peer);
            }
        }
        self.stop.is_over.cancel();
    }
}

/// Waits until those clients have gone that were here when the gateway was told to stop. Until then who comes is served
/// and told to go too, and instances get their tunnels back; after it clients had better find nobody here, and go to
/// another gateway, than come again and again and keep this one from its end. No client comes by the door of instances:
/// it is open to the end.
async fn others_may_go(core: &GatewayCore, door: &Door) {
    last_calls(core).await;
    if door.serves == Serves::Instances {
        return quiet(core).await;
    }
    while core.counts.calling(Calling::Early) > 0 {
        sleep(DRAIN_LOOK).await;
    }
}

/// Waits out the calls that clients sent before they knew, for about a round trip.
async fn last_calls(core: &GatewayCore) {
    sleep(LAST_CALLS.min(core.limits.drain_timeout)).await;
    // Who calls from inside of this process is told by the answer, or it would go on for ever.
    core.counts.close();
}

/// Waits until no call runs. A call is over when h2 has its answer; a slow client has it only when its connection has
/// ended.
async fn quiet(core: &GatewayCore) {
    let counts = &core.counts;
    while counts.calls() + counts.calling(Calling::Early) + counts.calling(Calling::Late) > 0 {
        sleep(DRAIN_LOOK).await;
    }
}

/// Whether a door may be at an address that others reach.
fn may_listen(core: &GatewayCore, address: SocketAddr, door: &Door) -> Result<(), ServeError> {
    let guard = Guard { has_tls: door.tls.is_some(), has_policy: core.admission.is_guarded() };
    match missing(address, door.serves, guard) {
        Some(why) if !core.doors.may_be_exposed => Err(ServeError::Exposed { address: address.to_string(), why }),
        _ => Ok(()),
    }
}

/// A listener serves the gateway. With the last one all tunnels end: those whose streams are cut off with it are not to
/// be waited for.
struct Serving<'a>(&'a GatewayCore);

impl<'a> Serving<'a> {
    fn new(core: &'a GatewayCore) -> Self {
        core.counts.serve_began();
        Self(core)
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if self.0.counts.serve_ended() {
            self.0.registry.close_all(CloseCode::Shutdown, "the gateway stops");
        }
    }
}

/// The gateway lets nobody in any more; over when the gateway has stopped, for it may be served again.
struct Stopping<'a>(&'a GatewayCore);

impl<'a> Stopping<'a> {
    fn new(core: &'a GatewayCore) -> Self {
        core.counts.stop_began();
        Self(core)
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.counts.stop_ended();
    }
}

/// Ends a gateway that was never served here, but by another server. It lets nobody in again before it is served.
pub(super) async fn drain_mounted(core: &GatewayCore) {
    let began = Instant::now();
    core.counts.set_stopping(true);
    let finished = async {
        last_calls(core).await;
        quiet(core).await;
    };
    in_time(core, began, finished).await;
    core.registry.parking.close();
    core.registry.close_all(CloseCode::Shutdown, "the gateway stops");
    end_tunnels(core).await;
    info!(took = ?began.elapsed(), "stopped");
}

/// Ends what still runs, the tunnels and the connections.
async fn end(core: &GatewayCore, connections: &mut JoinSet<()>, began: Instant) {
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

/// Tells everybody that the gateway stops, and lets that which runs finish as long as it may.
async fn in_time(core: &GatewayCore, began: Instant, finished: impl Future<Output = ()>) {
    // Nobody is let in whom they could wait for.
    core.registry.parking.wake_all();
    let gateways = core.peers.list();
    core.registry.drain_all(&gateways);
    info!(calls = core.counts.calls(), gateways = gateways.join(", "), "stopping: running calls finish");
    tokio::select! {
        () = finished => {}
        () = sleep_until(began + core.limits.drain_timeout) => {
            warn!(calls = core.counts.calls(), "running calls did not finish in time: they end now");
        }
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
