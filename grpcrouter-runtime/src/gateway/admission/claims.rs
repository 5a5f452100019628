//! Whose an instance id is: the principal's that has it, and for a while after it left. Pure: time is told.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use grpcrouter_protocol::{InstanceId, Time};

use super::{refusal::Refusal, rules::short};
use crate::gateway::principal::Principal;

/// Every instance id that somebody has, or had lately.
#[derive(Debug, Default)]
pub(super) struct Claims {
    ids: HashMap<InstanceId, Owner>,
    principals: HashMap<Principal, Held>,
    /// The routing keys of tunnels that are here, beside their ids: by whom, and of how many.
    keys: HashMap<String, HashMap<Principal, usize>>,
    /// So many ids are in order; above, those that are free are looked for.
    room: usize,
}

#[derive(Debug)]
struct Owner {
    principal: Principal,
    tunnels: usize,
    /// When it is anybody's again; counts while there is no tunnel.
    free_at: Time,
}

impl Owner {
    fn is_bound(&self, now: Time) -> bool {
        self.tunnels > 0 || now < self.free_at
    }
}

/// The ids of one principal.
#[derive(Debug, Default)]
struct Held {
    /// Those with a tunnel, in the order in which they came.
    here: Vec<InstanceId>,
    /// Those without, the one that left first at first.
    left: VecDeque<InstanceId>,
}

impl Claims {
    /// Gives `id` to `principal` for one tunnel more. Each must be [given back](Self::give_back).
    pub(super) fn claim(
        &mut self,
        principal: &Principal,
        id: &InstanceId,
        routing_keys: &[String],
        most: usize,
        now: Time,
    ) -> Result<(), Refusal> {
        let is_foreign = |id: &str| {
            let owner = InstanceId::parse(id).ok().and_then(|id| self.ids.get(&id));
            owner.is_some_and(|owner| owner.principal != *principal && owner.is_bound(now))
        };
        if is_foreign(id.as_str()) {
            return Err(Refusal::ForeignInstance { id: short(id.as_str()) });
        }
        // Who answers to the id of another would be sent its calls; so would who takes another's key for an id.
        if let Some(key) = routing_keys.iter().find(|key| is_foreign(key)) {
            return Err(Refusal::ForeignKey { key: short(key) });
        }
        if self.keys.get(id.as_str()).is_some_and(|by| by.keys().any(|other| other != principal)) {
            return Err(Refusal::ForeignInstance { id: short(id.as_str()) });
        }
        let here = self.principals.get(principal).map(|held| held.here.as_slice()).unwrap_or_default();
        if !here.contains(id) && here.len() >= most {
            return Err(Refusal::TooMany { principal: principal.clone(), most });
        }
        self.sweep(now);
        if self.ids.get(id).is_some_and(|owner| owner.principal != *principal) {
            self.forget(id);
        }
        let owner = Owner { principal: principal.clone(), tunnels: 0, free_at: now };
        let owner = self.ids.entry(id.clone()).or_insert(owner);
        owner.tunnels += 1;
        if owner.tunnels == 1 {
            let held = self.principals.entry(principal.clone()).or_default();
            held.left.retain(|other| other != id);
            held.here.push(id.clone());
        }
        for key in routing_keys {
            *self.keys.entry(key.clone()).or_default().entry(principal.clone()).or_default() += 1;
        }
        Ok(())
    }

    /// A tunnel of `id` is over; with the last one the id stays bound for a while.
    pub(super) fn give_back(
        &mut self,
        principal: &Principal,
        id: &InstanceId,
        routing_keys: &[String],
        most: usize,
        now: Time,
    ) {
        for key in routing_keys {
            let Some(by) = self.keys.get_mut(key) else { continue };
            if let Some(tunnels) = by.get_mut(principal) {
                *tunnels = tunnels.saturating_sub(1);
            }
            by.retain(|_, tunnels| *tunnels > 0);
            if by.is_empty() {
                self.keys.remove(key);
            }
        }
        let Some(owner) = self.ids.get_mut(id).filter(|owner| owner.principal == *principal) else { return };
        owner.tunnels = owner.tunnels.saturating_sub(1);
        if owner.tunnels > 0 {
            return;
        }
        owner.free_at = now + BOUND_FOR;
        let Some(held) = self.principals.get_mut(principal) else { return };
        held.here.retain(|other| other != id);
        held.left.push_back(id.clone());
        // One principal must not keep ever more ids from the others by coming under ever new ones.
        let forgotten = if held.left.len() > most { held.left.front().cloned() } else { None };
        forgotten.iter().for_each(|id| self.forget(id));
    }

    /// Whether `id` is among the first `most` that `principal` has here.
    pub(super) fn has_room(&self, principal: &Principal, id: &InstanceId, most: usize) -> bool {
        let here = self.principals.get(principal).map(|held| held.here.as_slice()).unwrap_or_default();
        here.iter().take(most).any(|other| other == id)
    }

    /// Forgets ids that are anybody's again, when there are twice as many as after the last time.
    fn sweep(&mut self, now: Time) {
        if self.ids.len() < self.room {
            return;
        }
        let free: Vec<_> =
            self.ids.iter().filter(|(_, owner)| !owner.is_bound(now)).map(|(id, _)| id.clone()).collect();
        free.iter().for_each(|id| self.forget(id));
        self.room = (self.ids.len() * 2).max(LEAST_ROOM);
    }

    fn forget(&mut self, id: &InstanceId) {
        let Some(owner) = self.ids.remove(id) else { return };
        if let Some(held) = self.principals.get_mut(&owner.principal) {
            held.left.retain(|other| other != id);
            if held.here.is_empty() && held.left.is_empty() {
                self.principals.remove(&owner.principal);
            }
        }
    }
}

/// Longer than a machine takes to start again: until then nobody else gets the id of one that is only away.
pub(super) const BOUND_FOR: Duration = Duration::from_secs(5 * 60);

/// Below that it is not worth looking.
const LEAST_ROOM: usize = 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    fn claim(claims: &mut Claims, principal: &str, id: &str, most: usize, secs: u64) -> Result<(), Refusal> {
        claims.claim(&Principal::new(principal), &InstanceId::parse(id).unwrap(), &[], most, at(secs))
    }

    fn give_back(claims: &mut Claims, principal: &str, id: &str, secs: u64) {
        claims.give_back(&Principal::new(principal), &InstanceId::parse(id).unwrap(), &[], 2, at(secs));
    }

    #[test]
    fn an_id_is_its_principals_while_it_is_here_and_five_minutes_more() {
        let mut claims = Claims::default();
        let foreign = Err(Refusal::ForeignInstance { id: "x".to_owned() });
        claim(&mut claims, "a", "x", 2, 0).unwrap();
        // A second tunnel takes over, and the first one ends.
        claim(&mut claims, "a", "x", 2, 0).unwrap();
        give_back(&mut claims, "a", "x", 1);

        assert_eq!(claim(&mut claims, "b", "x", 2, 10_000), foreign);
        give_back(&mut claims, "a", "x", 10_000);
        assert_eq!(claim(&mut claims, "b", "x", 2, 10_299), foreign);
        assert_eq!(claim(&mut claims, "b", "x", 2, 10_300), Ok(()));
        assert_eq!(claim(&mut claims, "a", "x", 2, 10_300), foreign);
    }

    #[test]
    fn nobody_may_answer_to_the_id_of_another_principals_instance() {
        let mut claims = Claims::default();
        claim(&mut claims, "a", "x", 2, 0).unwrap();
        let keys = ["k".to_owned(), "x".to_owned()];
        let mut with_key =
            |principal| claims.claim(&Principal::new(principal), &InstanceId::parse("y").unwrap(), &keys, 2, at(0));

        assert_eq!(with_key("b"), Err(Refusal::ForeignKey { key: "x".to_owned() }));
        assert_eq!(with_key("a"), Ok(()));
    }

    #[test]
    fn nobody_may_take_the_routing_key_of_another_principals_instance_for_an_id() {
        let mut claims = Claims::default();
        let (a, x, key) = (Principal::new("a"), InstanceId::parse("x").unwrap(), ["k".to_owned()]);
        claims.claim(&a, &x, &key, 2, at(0)).unwrap();

        let foreign = Err(Refusal::ForeignInstance { id: "k".to_owned() });
        assert_eq!(claim(&mut claims, "b", "k", 2, 0), foreign);
        assert_eq!(claim(&mut claims, "a", "k", 2, 0), Ok(()));
        give_back(&mut claims, "a", "k", 0);
        claims.give_back(&a, &x, &key, 2, at(0));
        assert!(claims.keys.is_empty());
        assert_eq!(claim(&mut claims, "b", "k", 2, 300), Ok(()));
    }

    #[test]
    fn only_so_many_ids_of_one_principal_are_here_and_a_second_tunnel_of_one_is_none_more() {
        let mut claims = Claims::default();
        claim(&mut claims, "a", "x", 2, 0).unwrap();
        claim(&mut claims, "a", "y", 2, 0).unwrap();
        let full = Err(Refusal::TooMany { principal: Principal::new("a"), most: 2 });

        assert_eq!(claim(&mut claims, "a", "z", 2, 0), full);
        assert_eq!(claim(&mut claims, "a", "x", 2, 0), Ok(()));
        assert_eq!(claim(&mut claims, "b", "q", 2, 0), Ok(()));
        give_back(&mut claims, "a", "x", 0);
        assert_eq!(claim(&mut claims, "a", "z", 2, 0), full);
        give_back(&mut claims, "a", "x", 0);
        assert_eq!(claim(&mut claims, "a", "w", 2, 0), Ok(()));
    }

    #[test]
    fn of_more_than_may_be_the_first_have_room() {
        let mut claims = Claims::default();
        claim(&mut claims, "a", "x", 2, 0).unwrap();
        claim(&mut claims, "a", "y", 2, 0).unwrap();
        let has_room = |id, most| claims.has_room(&Principal::new("a"), &InstanceId::parse(id).unwrap(), most);

        assert!(has_room("y", 2));
        assert!(has_room("x", 1));
        assert!(!has_room("y", 1));
    }

    #[test]
    fn who_comes_under_ever_new_ids_keeps_few_of_them() {
        let mut claims = Claims::default();
        for nth in 0..5_000 {
            let id = format!("id-{nth}");
            claim(&mut claims, "a", &id, 2, 0).unwrap();
            give_back(&mut claims, "a", &id, 0);
        }

        assert_eq!((claims.ids.len(), claims.principals.len()), (2, 1));
        assert_eq!(claim(&mut claims, "b", "id-0", 2, 0), Ok(()));
        assert!(claim(&mut claims, "b", "id-4999", 2, 0).is_err());
    }

    #[test]
    fn principals_that_are_gone_for_good_are_forgotten() {
        let mut claims = Claims::default();
        for nth in 0..5_000 {
            let name = format!("p-{nth}");
            claim(&mut claims, &name, &name, 2, nth * 10).unwrap();
            give_back(&mut claims, &name, &name, nth * 10);
        }

        assert!(claims.ids.len() <= 1024, "{}", claims.ids.len());
        assert_eq!(claims.ids.len(), claims.principals.len());
    }
}
