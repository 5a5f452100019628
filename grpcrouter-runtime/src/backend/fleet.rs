//! Which gateways a backend keeps tunnels to: those that were set, and those that they name. One connector for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::seq::SliceRandom as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::connector::{Connector, Leaving};
use super::dial::Dialler;
use super::roster::{Members, Origin, Roster};
use super::{Live, Settings};

/// All connectors of one backend.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) settings: Arc<Settings>,
    pub(super) live: Arc<Live>,
}

impl Fleet {
    /// Runs until `stop`, and on until every tunnel has drained, all of them at the same time.
    ///
    /// # Cancel safety
    /// Dropping the future ends every tunnel at once.
    pub(super) async fn run(self, stop: CancellationToken) {
        let drain_timeout = self.settings.drain_timeout;
        let roster = Roster::new(self.settings.followed_by.clone());
        let mut members = roster.watch();
        // The connectors, and when each was told to be gone.
        let mut leaving: BTreeMap<Origin, watch::Sender<Option<Instant>>> = BTreeMap::new();
        let mut connectors = JoinSet::new();
        while !stop.is_cancelled() {
            let here = leaving.keys().cloned().collect();
            let chosen = chosen(&self.settings.gateways, &members.borrow_and_update(), &here);
            for (origin, leave) in &leaving {
                if !chosen.contains_key(origin) && leave.borrow().is_none() {
                    info!(gateway = origin, "no gateway names this one any more; what runs there finishes");
                    leave.send_replace(Some(Instant::now() + drain_timeout));
                }
            }
            for (origin, dialler) in chosen {
                leaving.entry(origin.clone()).or_insert_with(|| {
                    let (leave, told) = watch::channel(None);
                    let is_set = self.settings.gateways.iter().any(|set| set.gateway.origin() == origin);
                    let (settings, live) = (self.settings.clone(), self.live.clone());
                    let seat = Arc::new(roster.seat(dialler));
                    let connector = Connector { seat, is_set, settings, live, leaving: Leaving(told) };
                    connectors.spawn(async move {
                        connector.run().await;
                        origin
                    });
                    leave
                });
            }
            tokio::select! {
                () = stop.cancelled() => {}
                // The sender is in the roster, which is held here.
                _ = members.changed() => {}
                Some(ended) = connectors.join_next() => {
                    leaving.remove(&whole(ended));
                }
            }
        }
        let by = Instant::now() + drain_timeout;
        for leave in leaving.values() {
            leave.send_replace(Some(by));
        }
        while let Some(ended) = connectors.join_next().await {
            whole(ended);
        }
    }
}

/// A connector that broke breaks the backend, which says so and stops: it would be missed by nobody else.
fn whole(ended: Result<Origin, tokio::task::JoinError>) -> Origin {
    match ended {
        Ok(origin) => origin,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Nobody cancels one but who drops them all.
            Err(_) => Origin::new(),
        },
    }
}

/// The gateways to have tunnels to: `set`, and what is named by one of them, or by one that is named so, up to the limit.
/// Who is `here` stays.
fn chosen(set: &[Dialler], members: &Members, here: &BTreeSet<Origin>) -> BTreeMap<Origin, Dialler> {
    let mut chosen: BTreeMap<Origin, Dialler> = set.iter().map(|it| (it.gateway.origin(), it.clone())).collect();
    // From those that were set on: two that name nobody but each other are not kept by that.
    let mut seen: BTreeSet<Origin> = chosen.keys().cloned().collect();
    let mut tellers: Vec<Origin> = seen.iter().cloned().collect();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    while let Some(teller) = tellers.pop() {
        for (origin, dialler) in members.get(&teller).into_iter().flat_map(|member| &member.named) {
            if seen.insert(origin.clone()) {
                tellers.push(origin.clone());
                let kind = if here.contains(origin) { &mut old } else { &mut new };
                kind.push((origin.clone(), dialler.clone()));
            }
        }
    }
    // Where there are more than one instance can have, each of them gets its share of the instances.
    new.shuffle(&mut rand::rng());
    let room = MAX_TUNNELS.saturating_sub(chosen.len());
    chosen.extend(old.into_iter().chain(new).take(room));
    chosen
}

/// Tunnels of one backend, unless more gateways were set: each gateway has one to every instance, and each costs both a
/// connection and its windows.
const MAX_TUNNELS: usize = 5;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::backend::dial::WayOut;
    use crate::backend::roster::{Listing, Seat};

    fn dialler(name: &str) -> Dialler {
        WayOut::default().to(&format!("https://{name}"), |_| None).unwrap()
    }

    /// A roster in which each of these names those.
    fn named(lists: &[(&str, &[&str])]) -> (Arc<Roster>, Vec<Seat>) {
        let roster = Roster::new(Some(WayOut::default()));
        let seats = lists.iter().map(|(teller, names)| {
            let seat = roster.seat(dialler(teller));
            seat.named(&names.iter().map(|name| format!("https://{name}")).collect::<Vec<_>>(), Listing::Whole);
            seat
        });
        let seats = seats.collect();
        (roster, seats)
    }

    fn chosen_names(set: &[&str], lists: &[(&str, &[&str])], here: &[&str]) -> Vec<String> {
        let set: Vec<Dialler> = set.iter().map(|name| dialler(name)).collect();
        let here = here.iter().map(|name| dialler(name).gateway.origin()).collect();
        let (roster, _seats) = named(lists);
        let members = roster.watch();
        let chosen = chosen(&set, &members.borrow(), &here);
        chosen.values().map(|dialler| dialler.gateway.host().to_owned()).collect()
    }

    #[test]
    fn what_a_set_gateway_names_is_followed_and_what_that_one_names_as_well() {
        assert_eq!(chosen_names(&["a"], &[], &[]), ["a"]);
        assert_eq!(chosen_names(&["a"], &[("a", &["b", "a"]), ("b", &["c"])], &[]), ["a", "b", "c"]);
    }

    #[test]
    fn two_that_name_nobody_but_each_other_do_not_stay_for_that() {
        let lists: &[(&str, &[&str])] = &[("a", &[]), ("b", &["c"]), ("c", &["b"])];

        assert_eq!(chosen_names(&["a"], lists, &["a", "b", "c"]), ["a"]);
    }

    #[test]
    fn there_are_five_at_most_and_who_was_set_or_is_here_stays() {
        let lists: &[(&str, &[&str])] = &[("z", &["a", "b", "c", "d", "e", "f", "g"])];

        for _ in 0..20 {
            let chosen = chosen_names(&["z"], lists, &["f", "b"]);
            assert_eq!(chosen.len(), 5);
            assert!(["b", "f", "z"].iter().all(|name| chosen.iter().any(|it| it == name)), "{chosen:?}");
        }
        let many = ["g1", "g2", "g3", "g4", "g5", "g6"];
        assert_eq!(chosen_names(&many, &[("g1", &["b"])], &[]), many);
    }
}
