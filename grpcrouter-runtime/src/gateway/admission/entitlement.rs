//! As whom an instance is here, for as long as it is: asked again whenever the rules change or a time is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use grpcrouter_protocol::{Hello, InstanceId};
use tokio::{sync::watch, time::sleep};

use super::{
    Admission,
    claims::Claims,
    credentials::Proof,
    refusal::Refusal,
    rules::{Rules, Verified},
};
use crate::{clock, gateway::principal::Principal};

/// What the next connection of an instance showed, which may have its tunnel; none where nobody asks.
#[derive(Debug)]
pub(in crate::gateway) struct Readmitted(pub(super) Option<Proof>);

/// What one instance was let in with. Gives its id back when it is dropped.
#[derive(Debug)]
pub(in crate::gateway) struct Entitlement {
    /// As its last connection showed it.
    proof: Mutex<Proof>,
    principal: Principal,
    id: InstanceId,
    services: Vec<String>,
    routing_keys: Vec<String>,
    /// How many instances the principal may have, when this one came.
    most: usize,
    claims: Arc<Mutex<Claims>>,
}

impl Entitlement {
    /// Lets the principal have what `hello` says, or says why not.
    pub(super) fn new(
        proof: Proof,
        verified: &Verified,
        hello: &Hello,
        claims: &Arc<Mutex<Claims>>,
    ) -> Result<Self, Refusal> {
        let Verified { principal, scope, .. } = verified;
        let services: Vec<String> = hello.services.iter().map(|offer| offer.name.clone()).collect();
        let keys = hello.routing_keys.iter().map(String::as_str);
        scope.allows(principal, &hello.instance_id, services.iter().map(String::as_str), keys)?;
        let most = scope.max_instances;
        let mut ids = claims.lock().unwrap_or_else(PoisonError::into_inner);
        ids.claim(principal, &hello.instance_id, &hello.routing_keys, most, clock::now())?;
        drop(ids);
        Ok(Self {
            proof: Mutex::new(proof),
            principal: principal.clone(),
            id: hello.instance_id.clone(),
            services,
            routing_keys: hello.routing_keys.clone(),
            most,
            claims: claims.clone(),
        })
    }

    pub(in crate::gateway) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// By what it is known, for logs.
    pub(in crate::gateway) fn proof(&self) -> String {
        self.last_proof().to_string()
    }

    /// A later connection of the same instance showed this.
    pub(in crate::gateway) fn renew(&self, Readmitted(proof): Readmitted) {
        if let Some(proof) = proof {
            *self.proof.lock().unwrap_or_else(PoisonError::into_inner) = proof;
        }
    }

    /// Whether it may be here with what its next connection shows.
    pub(super) fn check_with(&self, proof: &Proof, admission: &Admission) -> Result<(), Refusal> {
        match &admission.policy {
            Some(policy) => self.holds_with(proof, &policy.rules().borrow().clone(), SystemTime::now()).map(drop),
            None => Ok(()),
        }
    }

    fn last_proof(&self) -> Proof {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it still may be here.
    pub(in crate::gateway) fn check(&self, admission: &Admission) -> Result<(), Refusal> {
        self.check_with(&self.last_proof(), admission)
    }

    /// Done when it may not be here any more.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(in crate::gateway) async fn ended(&self, admission: &Admission) -> Refusal {
        let Some(policy) = &admission.policy else { return std::future::pending().await };
        tokio::select! {
            refusal = self.watch(policy.rules()) => refusal,
            never = policy.keep_fresh() => match never {},
        }
    }

    async fn watch(&self, mut rules: watch::Receiver<Arc<Rules>>) -> Refusal {
        loop {
            let now = SystemTime::now();
            let current = rules.borrow_and_update().clone();
            let until = match self.holds(&current, now) {
                Ok(until) => until,
                Err(refusal) => return refusal,
            };
            let rest = until.map_or(LONGEST_SLEEP, |at| at.duration_since(now).unwrap_or_default());
            tokio::select! {
                Ok(()) = rules.changed() => {}
                () = sleep(rest.min(LONGEST_SLEEP)) => {}
            }
        }
    }

    /// Whether these rules let it be here, and how long.
    fn holds(&self, rules: &Rules, now: SystemTime) -> Result<Option<SystemTime>, Refusal> {
        self.holds_with(&self.last_proof(), rules, now)
    }

    fn holds_with(&self, proof: &Proof, rules: &Rules, now: SystemTime) -> Result<Option<SystemTime>, Refusal> {
        let Verified { principal, scope, until } = rules.judge(proof, now)?;
        if principal != self.principal {
            return Err(Refusal::OtherPrincipal { before: self.principal.clone() });
        }
        let (services, keys) = (self.services.iter(), self.routing_keys.iter());
        scope.allows(&principal, &self.id, services.map(String::as_str), keys.map(String::as_str))?;
        let most = scope.max_instances;
        let ids = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.has_room(&principal, &self.id, most) { Ok(until) } else { Err(Refusal::TooMany { principal, most }) }
    }
}

impl Drop for Entitlement {
    fn drop(&mut self) {
        let mut ids = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        ids.give_back(&self.principal, &self.id, &self.routing_keys, self.most, clock::now());
    }
}

/// The machine's clock may be set: so often it is looked at again.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
