//! How an instance gets its tunnel back on another stream: it must be the one that has it, and know its token. Whoever is
//! not changes nothing for the one who is.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use dashmap::DashMap;
use grpcrouter_protocol::{
    Close, CloseCode, FreshToken, Hello, RejectReason, Rejected, Resume, ResumeError, Resumed, TokenHash, TunnelId,
};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::registered::Registration;
use crate::gateway::{
    GatewayCore,
    admission::{self, Entitlement, Entry, Refusal},
    peer::Peer,
};

/// The tunnels of one gateway by the name that a resume gives.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Resumable {
    by_id: DashMap<TunnelId, Weak<Registration>>,
}

impl Resumable {
    pub(super) fn add(&self, id: TunnelId, registration: &Arc<Registration>) {
        self.by_id.insert(id, Arc::downgrade(registration));
    }

    pub(super) fn remove(&self, id: &TunnelId) {
        self.by_id.remove(id);
    }

    fn find(&self, id: &TunnelId) -> Option<Arc<Registration>> {
        // The last holder gives its entry back: it must not do so while this holds the place.
        let found = self.by_id.get(id).map(|weak| weak.clone());
        found?.upgrade()
    }
}

/// Why a tunnel is not resumed, as the answer to Hello.
pub(super) enum NotResumed {
    Rejected(Rejected),
    /// The two sides cannot go on together.
    Closed(Close),
}

impl From<Refusal> for NotResumed {
    fn from(refusal: Refusal) -> Self {
        Self::Rejected(refusal.rejected())
    }
}

/// Gives the tunnel that `resume` names to the stream on which `hello` was said. Everything is checked before the tunnel
/// hears of it.
pub(super) fn resume(
    core: &GatewayCore,
    hello: &Hello,
    resume: &Resume,
    entry: Entry,
    from: Option<&Peer>,
) -> Result<(Resumed, Arc<Registration>), NotResumed> {
    let unknown = || {
        NotResumed::Rejected(admission::rejected(
            RejectReason::Unknown,
            "this gateway holds no such tunnel any more: say a plain Hello".to_owned(),
        ))
    };
    let registration = core.resumable.find(&resume.tunnel_id).ok_or_else(unknown)?;
    let instance = &registration.instance;
    let readmitted = admission::readmit(core, entry, registration.entitlement.as_ref(), from)?;
    let principal = registration.entitlement.as_ref().map(Entitlement::principal);
    let wrong = |refusal: Refusal| core.admission.wrong_resume(refusal, from, principal);
    if (&instance.id, &instance.incarnation) != (&hello.instance_id, &hello.incarnation) {
        return Err(wrong(Refusal::ForeignTunnel).into());
    }
    if registration.is_superseded() {
        // It would lose the tunnel with its old stream, of which this gateway only has not heard yet.
        return Err(unknown());
    }
    match instance.tunnel.resume(resume, hash(&resume.token), fresh_token()) {
        Ok(resumed) => {
            let peer = from.map_or_else(|| "unknown".to_owned(), |peer| peer.address.to_string());
            registration.is_back(&peer, readmitted);
            Ok((resumed, registration))
        }
        Err(ResumeError::WrongToken) => Err(wrong(Refusal::WrongResumeToken).into()),
        Err(ResumeError::Impossible(error)) => {
            warn!(instance = %instance.id, %error, "an instance resumes what cannot be; its tunnel ends");
            let close =
                Close { code: CloseCode::ProtocolError, reason: error.to_string(), retry_after: Duration::ZERO };
            Err(NotResumed::Closed(close))
        }
        Err(error @ ResumeError::OldEpoch { .. }) => {
            Err(NotResumed::Rejected(admission::rejected(RejectReason::Invalid, error.to_string())))
        }
        // It is over.
        Err(_) => Err(unknown()),
    }
}

/// What nobody can guess.
pub(super) fn fresh_token() -> FreshToken {
    let token = Bytes::copy_from_slice(&rand::random::<[u8; 32]>());
    FreshToken { hash: hash(&token), token }
}

fn hash(token: &[u8]) -> TokenHash {
    TokenHash(Sha256::digest(token).into())
}
