//! The listener of the gateway's owner: a few connections, on which one service answers.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    error::ServeError,
    gateway::{GatewayCore, bridge, own::OwnService},
    status::Answer,
};

/// Serves until `shutdown` is done; what runs then has a moment to end.
pub(super) async fn serve(
    core: &Arc<GatewayCore>,
    service: OwnService,
    listener: TcpListener,
    shutdown: impl Future,
) -> Result<(), ServeError> {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "answering the owner");
    }
    let mut shutdown = pin!(shutdown);
    // Dropped with this future, and with it every connection.
    let mut connections = JoinSet::new();
    let stop = CancellationToken::new();
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            _ = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    failures = 0;
                    if connections.len() >= MAX_CONNECTIONS {
                        warn!(%peer, limit = MAX_CONNECTIONS, "connection refused: the owner has too many");
                        continue;
                    }
                    let (core, service, stop) = (core.clone(), service.clone(), stop.clone());
                    connections.spawn(async move {
                        if let Err(error) = connection(core, service, stream, stop).await {
                            debug!(%peer, %error, "connection broke");
                        }
                    });
                }
                Err(error) => {
                    failures += 1;
                    if failures >= ACCEPT_TRIES {
                        let address = listener.local_addr().map_or_else(|_| "its address".to_owned(), |it| it.to_string());
                        return Err(ServeError::Accept { address, error });
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.cancel();
    let ended = async { while connections.join_next().await.is_some() {} };
    // A watch has no end of its own.
    if timeout(LAST_WORDS, ended).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(
    core: Arc<GatewayCore>,
    service: OwnService,
    stream: TcpStream,
    stop: CancellationToken,
) -> Result<(), h2::Error> {
    let _ = stream.set_nodelay(true);
    let handshake = h2::server::Builder::new().max_concurrent_streams(MAX_STREAMS).handshake(stream);
    let Ok(h2) = timeout(HANDSHAKE_DUE, handshake).await else { return Ok(()) };
    let mut h2 = h2?;
    let mut stopping = false;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                h2.graceful_shutdown();
                continue;
            }
            accepted = h2.accept() => accepted,
        };
        let Some(accepted) = accepted else { return Ok(()) };
        let (request, mut respond) = accepted?;
        if service.is_called_by(request.uri().path()) {
            tokio::spawn(bridge::carry_own(core.clone(), service.clone(), request, respond));
        } else if let Err(error) = respond.send_response(elsewhere(&request), true) {
            debug!(%error, "a call was gone before it was answered");
        }
    }
}

/// What is asked for is not here.
fn elsewhere<B>(request: &Request<B>) -> Response<()> {
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    Answer::unknown_service(service, Some("grpcrouter.Admin")).into_http()
}

/// An owner has a few tools, and each of them one or two connections.
const MAX_CONNECTIONS: usize = 64;

/// Questions and watches at once on one connection.
const MAX_STREAMS: u32 = 64;

/// As at the front.
const HANDSHAKE_DUE: Duration = Duration::from_secs(10);

/// Out of file descriptors, most often: time for some to come back, without spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Half a minute of nothing but failures: somebody has to look.
const ACCEPT_TRIES: u32 = 600;

/// For answers that are on their way.
const LAST_WORDS: Duration = Duration::from_secs(1);
