//! What the connectors of one backend tell each other: which gateway has a tunnel, which drains, and which others each
//! names.

use std::collections::BTreeMap;
use std::sync::Arc;

use grpcrouter_protocol::TunnelId;
use tokio::sync::watch;
use tracing::{info, warn};

use super::dial::{Dialler, WayOut};

/// Scheme, host and port: what tells two gateways apart before anything is dialled.
pub(super) type Origin = String;

/// What is known of each gateway that a connector looks after.
pub(super) type Members = BTreeMap<Origin, Member>;

/// Told by each connector, watched by all.
#[derive(Debug)]
pub(super) struct Roster {
    /// How gateways are dialled that a gateway names. None: they are not followed.
    followed_by: Option<WayOut>,
    members: watch::Sender<Members>,
}

/// One gateway.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// The gateways that it named last.
    pub(super) named: BTreeMap<Origin, Dialler>,
    tunnel: Option<Standing>,
}

/// A gateway that has a tunnel.
#[derive(Debug, Clone, Copy)]
struct Standing {
    process: GatewayProcess,
    is_draining: bool,
    /// A stream carries it now.
    is_attached: bool,
}

impl Standing {
    fn takes_calls(self) -> bool {
        self.is_attached && !self.is_draining
    }
}

/// Tells two processes apart that are reached by different names, or finds them to be one.
///
/// Gateways begin the ids of all their tunnels with the same random bytes. One that does not seems another each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GatewayProcess([u8; 8]);

impl GatewayProcess {
    pub(super) fn of(tunnel: TunnelId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = tunnel.0;
        Self([a, b, c, d, e, f, g, h])
    }
}

/// What a gateway's list is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// These and no others.
    Whole,
    /// Where to go instead; naming none, it takes back nothing.
    Hint,
}

impl Roster {
    /// `followed_by` is the way to gateways that are named by others; None: nobody follows them.
    pub(super) fn new(followed_by: Option<WayOut>) -> Arc<Self> {
        Arc::new(Self { followed_by, members: watch::Sender::default() })
    }

    pub(super) fn watch(&self) -> watch::Receiver<Members> {
        self.members.subscribe()
    }

    /// The connector to a gateway begins.
    pub(super) fn seat(self: &Arc<Self>, dialler: Dialler) -> Seat {
        let origin = dialler.gateway.origin();
        self.members.send_modify(|members| {
            members.insert(origin.clone(), Member::default());
        });
        Seat { roster: self.clone(), dialler, origin }
    }

    /// Those of `gateways` that may be dialled because `teller` named them.
    fn usable(&self, teller: &Dialler, gateways: &[String]) -> Option<BTreeMap<Origin, Dialler>> {
        let way_out = self.followed_by.as_ref()?;
        let usable = |uri: &String| {
            let shown = crate::status::shown(uri);
            let dialler = match way_out.to(uri, |name| std::env::var(name).ok()) {
                Ok(dialler) => dialler,
                Err(error) => {
                    warn!(gateway = %teller.gateway, named = shown, "a gateway that it names is not followed: {error}");
                    return None;
                }
            };
            if teller.gateway.server_name().is_some() && dialler.gateway.server_name().is_none() {
                warn!(
                    gateway = %teller.gateway, named = shown,
                    "a gateway that it names is not followed, for it is without TLS and this one is not; let the gateways \
                     advertise https:// addresses"
                );
                return None;
            }
            Some((dialler.gateway.origin(), dialler))
        };
        Some(gateways.iter().take(MAX_NAMED).filter_map(usable).collect())
    }
}

/// A connector's place in the roster, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Arc<Roster>,
    pub(super) dialler: Dialler,
    origin: Origin,
}

impl Seat {
    /// The gateway named these.
    pub(super) fn named(&self, gateways: &[String], listing: Listing) {
        if gateways.is_empty() && listing == Listing::Hint {
            return;
        }
        let Some(named) = self.roster.usable(&self.dialler, gateways) else { return };
        self.change(|member| {
            let is_news = !member.named.keys().eq(named.keys());
            if is_news {
                let names: Vec<&str> = named.keys().map(String::as_str).collect();
                info!(gateway = %self.dialler.gateway, gateways = names.join(", "), "the gateway names the others");
                member.named = named;
            }
            is_news
        });
    }

    /// There is a tunnel.
    pub(super) fn up(&self, process: GatewayProcess) {
        self.change(|member| {
            member.tunnel = Some(Standing { process, is_draining: false, is_attached: true });
            true
        });
    }

    /// The gateway takes no new call for here.
    pub(super) fn draining(&self) {
        self.change(|member| {
            member.tunnel.as_mut().is_some_and(|tunnel| !std::mem::replace(&mut tunnel.is_draining, true))
        });
    }

    /// A stream carries the tunnel, or none does.
    pub(super) fn attached(&self, is_attached: bool) {
        self.change(|member| {
            member.tunnel.as_mut().is_some_and(|it| std::mem::replace(&mut it.is_attached, is_attached) != is_attached)
        });
    }

    pub(super) fn is_attached(&self) -> bool {
        self.tunnel(&self.roster.members.borrow()).is_some_and(|tunnel| tunnel.is_attached)
    }

    /// There is no tunnel any more.
    pub(super) fn down(&self) {
        self.change(|member| member.tunnel.take().is_some());
    }

    /// Waits until the gateway drains.
    pub(super) async fn drains(&self) {
        self.wait(|members| self.tunnel(members).is_some_and(|tunnel| tunnel.is_draining)).await;
    }

    pub(super) fn is_draining(&self) -> bool {
        self.tunnel(&self.roster.members.borrow()).is_some_and(|tunnel| tunnel.is_draining)
    }

    /// Waits until another gateway has a tunnel that takes new calls.
    pub(super) async fn elsewhere(&self) {
        self.wait(|members| self.others(members).any(Standing::takes_calls)).await;
    }

    /// Whether no other gateway is looked after.
    pub(super) fn is_alone(&self) -> bool {
        self.roster.members.borrow().len() == 1
    }

    /// Waits until `process` has another tunnel, under another name.
    pub(super) async fn twin_comes(&self, process: GatewayProcess) {
        self.wait(|members| self.others(members).any(|tunnel| tunnel.process == process)).await;
    }

    /// Waits until it has none.
    pub(super) async fn twin_goes(&self, process: GatewayProcess) {
        self.wait(|members| !self.others(members).any(|tunnel| tunnel.process == process)).await;
    }

    fn tunnel(&self, members: &Members) -> Option<Standing> {
        members.get(&self.origin).and_then(|member| member.tunnel)
    }

    fn others<'a>(&'a self, members: &'a Members) -> impl Iterator<Item = Standing> + 'a {
        members.iter().filter(|(origin, _)| **origin != self.origin).filter_map(|(_, member)| member.tunnel)
    }

    async fn wait(&self, until: impl FnMut(&Members) -> bool) {
        // The sender lives as long as the roster, which is held here.
        let _ = self.roster.members.subscribe().wait_for(until).await;
    }

    fn change(&self, change: impl FnOnce(&mut Member) -> bool) {
        self.roster.members.send_if_modified(|members| members.get_mut(&self.origin).is_some_and(change));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.members.send_modify(|members| {
            members.remove(&self.origin);
        });
    }
}

/// How many of the gateways that one names are looked at: far more than there will be tunnels.
const MAX_NAMED: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::backend::dial::{Hidden, Token};

    fn named(way_out: Option<WayOut>, teller: &str, gateways: &[&str]) -> Vec<String> {
        let teller = WayOut { is_insecure: true, ..WayOut::default() }.to(teller, |_| None).unwrap();
        let roster = Roster::new(way_out);
        let seat = roster.seat(teller);
        seat.named(&gateways.iter().map(ToString::to_string).collect::<Vec<_>>(), Listing::Whole);
        let members = roster.watch();
        let members = members.borrow();
        members.values().next().unwrap().named.keys().cloned().collect()
    }

    #[test]
    fn a_gateway_that_was_reached_over_tls_names_only_others_with_tls() {
        let listed = ["https://b", "http://c:80", "https://B.:443", "no uri", "https://d:8443/path"];

        assert_eq!(named(Some(WayOut::default()), "https://a", &listed), ["https://b:443"]);
        assert_eq!(named(Some(WayOut::default()), "http://a:1", &listed), ["http://c:80", "https://b:443"]);
        assert!(named(None, "http://a:1", &listed).is_empty());
    }

    #[test]
    fn the_token_goes_to_a_named_gateway_only_where_it_would_go_to_one_that_was_set() {
        let with_token = WayOut { token: Token::Text(Hidden("grt_1_secret".to_owned())), ..WayOut::default() };

        let listed = ["http://far:80", "http://127.0.0.1:2", "https://b"];

        assert_eq!(named(Some(with_token), "http://localhost:1", &listed), ["http://127.0.0.1:2", "https://b:443"]);
    }

    #[test]
    fn a_hint_without_names_takes_nothing_back_and_a_list_without_names_does() {
        let roster = Roster::new(Some(WayOut::default()));
        let seat = roster.seat(WayOut::default().to("https://a", |_| None).unwrap());
        let names = || roster.watch().borrow().values().next().unwrap().named.len();

        seat.named(&["https://b".to_owned()], Listing::Hint);
        assert_eq!(names(), 1);
        seat.named(&[], Listing::Hint);
        assert_eq!(names(), 1);
        seat.named(&[], Listing::Whole);
        assert_eq!(names(), 0);
    }

    #[tokio::test]
    async fn two_names_of_one_process_are_found_to_be_one_until_the_other_goes() {
        let roster = Roster::new(None);
        let [one, two] =
            ["https://a", "https://b"].map(|uri| roster.seat(WayOut::default().to(uri, |_| None).unwrap()));
        let process = |own: u8| GatewayProcess::of(TunnelId([7, 7, 7, 7, 7, 7, 7, 7, own, 0, 0, 0, 0, 0, 0, 0]));

        one.up(process(1));
        one.twin_goes(process(1)).await;
        two.up(process(2));
        one.twin_comes(process(1)).await;
        assert!(!one.is_alone());

        drop(two);
        one.twin_goes(process(1)).await;
        assert!(one.is_alone());
    }

    #[tokio::test]
    async fn elsewhere_is_a_gateway_that_has_a_tunnel_with_a_stream_and_does_not_drain() {
        let roster = Roster::new(None);
        let [one, two] =
            ["https://a", "https://b"].map(|uri| roster.seat(WayOut::default().to(uri, |_| None).unwrap()));
        let elsewhere = |seat: &Seat| seat.others(&roster.watch().borrow()).any(Standing::takes_calls);

        one.up(GatewayProcess([1; 8]));
        assert!(!elsewhere(&one));
        two.up(GatewayProcess([2; 8]));
        assert!(elsewhere(&one));
        two.attached(false);
        assert!(!elsewhere(&one));
        two.attached(true);
        assert!(elsewhere(&one));
        two.draining();
        assert!(!elsewhere(&one));
        two.drains().await;

        drop(two);
        assert_eq!(roster.watch().borrow().len(), 1);
    }
}
