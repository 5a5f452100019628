//! Who may register, and as what. Everything that is checked of an instance beyond the shape of its Hello is checked here.

mod claims;
mod credentials;
mod entitlement;
mod failures;
mod policy;
mod refusal;
mod rules;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use grpcrouter_protocol::{Agreement, Hello, RejectReason, Rejected, agree};
use http::HeaderMap;
use tracing::warn;

use self::{
    claims::Claims,
    credentials::Proof,
    failures::{Failures, Try},
    policy::{LOOK_AGAIN, LOOK_EVERY, Policy},
    rules::Verified,
};
pub(super) use self::{
    entitlement::{Entitlement, Readmitted},
    refusal::Refusal,
};
use super::{
    GatewayCore,
    peer::{Peer, network},
    principal::Principal,
    registration::RegistrationPolicy,
};
use crate::{clock, error::ConfigError};

/// Who may register at one gateway, and who has done so.
#[derive(Debug)]
pub(crate) struct Admission {
    /// None: everybody may, and nobody is anybody.
    policy: Option<Policy>,
    claims: Arc<Mutex<Claims>>,
    failures: Mutex<Failures<IpAddr>>,
    /// Of resumes, by the principal that tried.
    wrong_resumes: Mutex<Failures<Principal>>,
}

impl Admission {
    pub(super) fn new(policy: Option<RegistrationPolicy>) -> Result<Self, ConfigError> {
        let policy = policy.map(|written| {
            let what = written.path().map_or_else(|| "rules".to_owned(), |path| path.display().to_string());
            Policy::new(written).map_err(|why| ConfigError::setting("registration", what, why))
        });
        Ok(Self {
            policy: policy.transpose()?,
            claims: Arc::default(),
            failures: Mutex::default(),
            wrong_resumes: Mutex::default(),
        })
    }

    /// Whether not everybody may register.
    pub(super) fn is_guarded(&self) -> bool {
        self.policy.is_some()
    }

    /// Looks at the credentials of a request to register, before anything else of it is read.
    ///
    /// # Cancel safety
    /// Dropping the future lets nobody in.
    pub(super) async fn authenticate(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Entry, Refusal> {
        let Some(policy) = &self.policy else { return Ok(Entry(None)) };
        let proof = Proof::read(headers, peer).map_err(|refusal| self.failed(refusal, peer))?;
        let judge = || policy.rules().borrow().judge(&proof, SystemTime::now());
        policy.refresh(LOOK_EVERY).await;
        let verified = match judge() {
            Ok(verified) => verified,
            Err(_) => {
                policy.refresh(LOOK_AGAIN).await;
                judge().map_err(|refusal| self.failed(refusal, peer))?
            }
        };
        Ok(Entry(Some((proof, verified))))
    }

    /// Counts a try with wrong credentials, and tells the log what the peer is not told.
    fn failed(&self, refusal: Refusal, peer: Option<&Peer>) -> Refusal {
        let one_more = self.one_more(peer);
        told("credentials refused", &refusal, peer, one_more);
        if one_more == Try::Told { refusal } else { Refusal::TooManyTries }
    }

    /// Counts a try to resume what is not one's own. The tunnel is not touched, and whoever has the right to it is not
    /// counted.
    pub(super) fn wrong_resume(&self, refusal: Refusal, peer: Option<&Peer>, principal: Option<&Principal>) -> Refusal {
        let of_address = self.one_more(peer);
        let mut by_principal = self.wrong_resumes.lock().unwrap_or_else(PoisonError::into_inner);
        let of_principal = principal.map(|it| by_principal.one_more(Some(it.clone()), clock::now()));
        drop(by_principal);
        let one_more = of_principal.filter(|it| *it != Try::Told).unwrap_or(of_address);
        told("a tunnel was not resumed", &refusal, peer, one_more);
        if one_more == Try::Told { refusal } else { Refusal::TooManyTries }
    }

    fn one_more(&self, peer: Option<&Peer>) -> Try {
        let from = peer.map(|peer| network(peer.address.ip()));
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).one_more(from, clock::now())
    }
}

/// Tells the log what the peer is not told.
fn told(what: &str, refusal: &Refusal, peer: Option<&Peer>, one_more: Try) {
    let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.address.to_string());
    if one_more != Try::TooMany {
        let more = (one_more == Try::FirstTooMany).then_some("there are too many: for a minute they are not told here");
        warn!(peer, detail = refusal.detail(), more, "{what}: {refusal}");
    }
}

/// Credentials that were right when they were shown; none where nobody asks for any.
#[derive(Debug)]
pub(super) struct Entry(Option<(Proof, Verified)>);

/// One that is let in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) agreement: Agreement,
    /// None where nobody asks for credentials.
    pub(super) entitlement: Option<Entitlement>,
}

/// Lets an instance in, or says why not.
pub(super) fn admit(core: &GatewayCore, hello: &Hello, entry: Entry) -> Result<Admitted, Rejected> {
    if core.counts.is_stopping() {
        let rejected = rejected(RejectReason::Draining, "this gateway is about to stop".to_owned());
        return Err(Rejected { retry_after: RETRY_AFTER_STOP, gateways: core.peers.list(), ..rejected });
    }
    if hello.services.is_empty() {
        return Err(rejected(RejectReason::Invalid, "the instance names no service that it answers".to_owned()));
    }
    let names = hello.services.iter().map(|offer| &offer.name).chain(&hello.routing_keys);
    if let Some(name) = names.into_iter().find(|name| name.is_empty() || name.len() > MAX_NAME) {
        let why = format!(
            "a name of {} bytes: services and routing keys have 1 to {MAX_NAME}, beginning with {:?}",
            name.len(),
            name.chars().take(32).collect::<String>()
        );
        return Err(rejected(RejectReason::Invalid, why));
    }
    for (what, count) in [("services", hello.services.len()), ("routing keys", hello.routing_keys.len())] {
        if count > MAX_NAMES {
            let why = format!("{count} {what}: an instance may name {MAX_NAMES}");
            return Err(rejected(RejectReason::ResourceExhausted, why));
        }
    }
    if core.registry.tunnel_count() >= MAX_TUNNELS {
        let why = format!("this gateway holds {MAX_TUNNELS} tunnels and takes no more");
        let rejected = rejected(RejectReason::ResourceExhausted, why);
        return Err(Rejected { gateways: core.peers.list(), ..rejected });
    }
    let agreement = agree(hello, &core.limits.tunnel)?;
    let entitlement = match entry.0 {
        Some((proof, verified)) => {
            let verified = judged_again(core, &proof, verified).map_err(|refusal| refusal.rejected())?;
            let entitlement = Entitlement::new(proof, &verified, hello, &core.admission.claims);
            Some(entitlement.map_err(|refusal| refusal.rejected())?)
        }
        None => None,
    };
    // Last: it counts, and only one who would be let in.
    core.registry.may_take(hello).map_err(|retry_after| Rejected {
        retry_after,
        ..rejected(RejectReason::Flapping, format!("processes push each other out of the instance id {:?}: give each its own .instance_id(..); the one that is here stays", hello.instance_id.as_str()))
    })?;
    Ok(Admitted { agreement, entitlement })
}

/// Whether the one who comes may have back what was let in as `before`, as far as credentials tell.
pub(super) fn readmit(
    core: &GatewayCore,
    entry: Entry,
    before: Option<&Entitlement>,
    from: Option<&Peer>,
) -> Result<Readmitted, Refusal> {
    let (Some((proof, verified)), Some(before)) = (entry.0, before) else { return Ok(Readmitted(None)) };
    let verified = judged_again(core, &proof, verified)?;
    if verified.principal != *before.principal() {
        return Err(core.admission.wrong_resume(Refusal::ForeignTunnel, from, Some(&verified.principal)));
    }
    before.check_with(&proof, &core.admission)?;
    Ok(Readmitted(Some(proof)))
}

/// The rules and the time may have changed while Hello was waited for.
fn judged_again(core: &GatewayCore, proof: &Proof, verified: Verified) -> Result<Verified, Refusal> {
    let Some(policy) = &core.admission.policy else { return Ok(verified) };
    let rules = policy.rules().borrow().clone();
    rules.judge(proof, SystemTime::now())
}

pub(super) fn rejected(reason: RejectReason, message: String) -> Rejected {
    Rejected { reason, message, retry_after: Duration::ZERO, gateways: Vec::new(), versions: None }
}

/// Long enough that a gateway that stops is not dialled in a hurry, short enough to find its successor at once.
const RETRY_AFTER_STOP: Duration = Duration::from_secs(1);

/// Bytes of a service's name or of a routing key. They are looked up and logged.
const MAX_NAME: usize = 256;

/// Names of one kind in one Hello: each costs an entry in a snapshot.
const MAX_NAMES: usize = 1024;

/// Tunnels of one gateway: an idle one costs about 30 KiB, so these cost 500 MiB.
const MAX_TUNNELS: usize = 16_384;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::gateway::{registry::hello, tests::gateway};

    fn answer(hello: &Hello) -> Result<Agreement, RejectReason> {
        let gateway = gateway();
        admit(gateway.core(), hello, Entry(None)).map(|it| it.agreement).map_err(|rejected| rejected.reason)
    }

    #[test]
    fn an_instance_with_a_service_is_let_in() {
        let agreement = answer(&hello("a", "shop.Orders")).unwrap();

        assert_eq!((agreement.version, agreement.max_open_calls), (1, 100));
    }

    #[test]
    fn a_hello_that_cannot_be_is_rejected_with_the_reason() {
        let mut nothing = hello("a", "shop.Orders");
        nothing.services.clear();
        let mut long = hello("a", "shop.Orders");
        long.routing_keys = vec!["k".repeat(257)];
        let mut many = hello("a", "shop.Orders");
        many.routing_keys = vec!["k".to_owned(); 1025];
        let mut later = hello("a", "shop.Orders");
        later.versions = 2..=3;

        assert_eq!(answer(&nothing), Err(RejectReason::Invalid));
        assert_eq!(answer(&long), Err(RejectReason::Invalid));
        assert_eq!(answer(&many), Err(RejectReason::ResourceExhausted));
        assert_eq!(answer(&later), Err(RejectReason::Version));
    }

    #[test]
    fn nobody_is_let_in_while_the_gateway_stops() {
        let gateway = gateway();
        gateway.core().counts.set_stopping(true);

        let rejected = admit(gateway.core(), &hello("a", "shop.Orders"), Entry(None)).unwrap_err();

        assert_eq!(rejected.reason, RejectReason::Draining);
        assert_eq!(rejected.retry_after, Duration::from_secs(1));
    }
}
