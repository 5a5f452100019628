//! What is said of a request before anybody looks at what it calls: whether it is gRPC at all, and whether its caller
//! may call it.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

use super::{
    GatewayCore,
    pass::{Asked, Origin, Pass},
    registry::Instance,
    way,
};
use crate::{metadata, status::Answer};

/// A request that is answered here.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not gRPC.
    Http(StatusCode),
    /// With a status.
    Answer(Answer),
}

impl Refusal {
    /// Of a call whose method is not known yet.
    pub(super) fn tell(&self, core: &GatewayCore) {
        if let Self::Answer(answer) = self {
            way::refused(core, None, answer);
        }
    }
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// Whether this is a call at all.
pub(super) fn check(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if !metadata::is_grpc(headers) {
        return Err(Refusal::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if method != Method::POST {
        return Err(Refusal::Http(StatusCode::METHOD_NOT_ALLOWED));
    }
    if path.len() > MAX_PATH {
        return Err(Answer::too_large("the path", path.len(), MAX_PATH).into());
    }
    Ok(())
}

/// Whether whoever calls may, and the instance that is to have the call, if that is chosen.
pub(super) fn let_in(
    core: &GatewayCore,
    path: &str,
    headers: &HeaderMap,
    origin: Origin<'_>,
) -> Result<(Pass, Option<Arc<Instance>>), Answer> {
    match (origin, &core.gate) {
        (Origin::Client(_), None) => Ok((Pass::default(), None)),
        (Origin::Client(peer), Some(gate)) => {
            let pass = gate.check(&Asked { path, headers, address: Some(peer.address.ip()) })?;
            Ok((pass, None))
        }
        (Origin::Inside { pinned, vouched }, _) => Ok((Pass { vouched, ..Pass::default() }, pinned)),
    }
}

/// Bytes of a path: longer than any `/package.Service/Method`, short enough to name in a message.
const MAX_PATH: usize = 512;
