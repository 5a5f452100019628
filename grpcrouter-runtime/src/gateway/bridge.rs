//! From an h2 stream to an HTTP body and back, for what is not on the forward path. A task for each call is fine here.

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response};
use http_body::Body as _;
use tracing::debug;

use super::{GatewayCore, own::OwnService, pass::Asked, peer::Peer, register::register};
use crate::{
    h2_body::{PumpError, RecvBody, pump},
    health::Whole,
};

/// Carries one `Register` stream from its first byte to its last.
pub(super) async fn carry_register(
    core: Arc<GatewayCore>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: Peer,
) {
    let mut request = request.map(RecvBody::new);
    request.extensions_mut().insert(peer);
    let (response, stream) = register(core, request).await;
    let (head, body) = response.into_parts();
    // Trailers-only: a status in headers that do not end the stream is none.
    let over = body.is_end_stream();
    let sending = match respond.send_response(Response::from_parts(head, ()), over) {
        Ok(_) if over => return,
        Ok(sending) => sending,
        Err(error) => return debug!(%error, "a Register stream was gone before it was answered"),
    };
    let write = pump(body, sending);
    let Some(stream) = stream else {
        return report(write.await);
    };
    let mut write = std::pin::pin!(write);
    let mut carry = std::pin::pin!(stream.carry());
    tokio::select! {
        written = &mut write => {
            report(written);
            carry.await;
        }
        () = &mut carry => {
            // What the tunnel said last may still be on its way; a peer that does not read cannot keep it here.
            if let Ok(written) = tokio::time::timeout(LAST_WORDS, write).await {
                report(written);
            }
        }
    }
}

/// Carries one call of a client to a service of the gateway's own, if the client may call it.
pub(super) async fn carry_own_of(
    peer: Peer,
    core: Arc<GatewayCore>,
    service: OwnService,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let asked = Asked { path: request.uri().path(), headers: request.headers(), address: Some(peer.address.ip()) };
    match core.gate.as_ref().map(|gate| gate.check(&asked)).transpose() {
        Ok(pass) => {
            carry_own(core, service, request, respond).await;
            // What the call holds, it holds until here.
            drop(pass);
        }
        Err(answer) => {
            debug!(peer = %peer.address, code = ?answer.code, reason = answer.reason.as_str(), "call refused");
            if let Err(error) = respond.send_response(answer.into_http::<()>(), true) {
                debug!(%error, "a call was gone before it was refused");
            }
        }
    }
}

/// Carries one call of a service of the gateway's own. Ends by itself when the client, its connection or the gateway is
/// gone, whatever the service does and whether the client reads or not.
pub(super) async fn carry_own(
    core: Arc<GatewayCore>,
    service: OwnService,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let response = tokio::select! {
        response = service.answer(&core, request.map(RecvBody::new)) => response,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let (head, body) = response.into_parts();
    // Trailers-only, as above.
    let over = body.is_end_stream();
    let sending = match respond.send_response(Response::from_parts(head, ()), over) {
        Ok(_) if over => return,
        Ok(sending) => sending,
        Err(error) => return debug!(%error, "a call was gone before it was answered"),
    };
    let mut whole = core.counts.whole();
    tokio::select! {
        written = pump(body, sending) => if let Err(error) = written {
            debug!(%error, "the answer of a service of the gateway's own ended early");
        },
        () = async {
            let _ = whole.wait_for(|whole| *whole == Whole::Over).await;
            tokio::time::sleep(LAST_WORDS).await;
        } => {}
    }
}

fn report(written: Result<(), PumpError>) {
    if let Err(error) = written {
        debug!(%error, "the writing side of a Register stream ended early");
    }
}

/// A round trip and some: the last batch of a tunnel is small.
const LAST_WORDS: Duration = Duration::from_secs(1);
