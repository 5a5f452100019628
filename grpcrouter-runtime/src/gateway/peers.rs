//! The other gateways that instances may go to, as they are told: written down, or looked up by a DNS name again and
//! again while this gateway is served.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, pending},
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// All gateways but this one, as far as it knows.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// How the others call this one: it is in no list that it tells.
    own: Option<PeerUri>,
    /// What is looked up; None: the list stays as it was written.
    name: Option<PeerUri>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    list: Vec<String>,
    /// When it was last looked up: several listeners share one answer.
    looked: Option<Instant>,
    /// The last look failed, and that was told.
    failed: bool,
}

impl Peers {
    /// This gateway is `own`; the others are `list`, or what `name` leads to.
    pub(super) fn new(own: Option<PeerUri>, list: &[PeerUri], name: Option<PeerUri>) -> Self {
        let peers = Self { own, name, state: Mutex::default() };
        peers.lock().list = peers.others(list.iter().map(ToString::to_string).collect());
        peers
    }

    /// The others now, in order and each once.
    pub(super) fn list(&self) -> Vec<String> {
        self.lock().list.clone()
    }

    /// Whether instances may ever have been told of others.
    pub(super) fn are_told(&self) -> bool {
        self.name.is_some() || !self.lock().list.is_empty()
    }

    /// Looks the name up now and again, and calls `changed` after each change.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the list as it is.
    pub(super) async fn keep(&self, changed: impl Fn()) -> Infallible {
        self.keep_by(async |address| Ok(tokio::net::lookup_host(address).await?.collect()), changed).await
    }

    async fn keep_by(
        &self,
        look_up: impl AsyncFn(String) -> io::Result<Vec<SocketAddr>>,
        changed: impl Fn(),
    ) -> Infallible {
        let Some(name) = &self.name else { return pending().await };
        loop {
            let looked = self.lock().looked;
            // Another listener of this gateway may just have done it.
            if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                self.lock().looked = Some(Instant::now());
                let found = look_up(name.address()).await;
                if self.found(name, found) {
                    changed();
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Takes an answer; says if it changed the list. A name that cannot be found now is no reason to give up gateways that
    /// may well be there.
    fn found(&self, name: &PeerUri, found: io::Result<Vec<SocketAddr>>) -> bool {
        let mut state = self.lock();
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                if !std::mem::replace(&mut state.failed, true) {
                    warn!(
                        name = %name.address(), %error, kept = state.list.join(", "),
                        "the other gateways cannot be looked up: instances keep the list that they have; check the name of \
                         .peers_dns(..) [--peers-dns]; it is tried every 30 s, and told when it works again"
                    );
                }
                return false;
            }
        };
        if std::mem::take(&mut state.failed) {
            info!(name = %name.address(), "the other gateways can be looked up again");
        }
        let list = self.others(found.into_iter().map(|address| name.at(address)).collect());
        if list == state.list {
            return false;
        }
        info!(gateways = list.join(", "), before = state.list.join(", "), "the list of the other gateways changed");
        state.list = list;
        true
    }

    fn others(&self, mut list: Vec<String>) -> Vec<String> {
        let own = self.own.as_ref().map(ToString::to_string);
        list.sort_unstable();
        list.dedup();
        list.retain(|gateway| Some(gateway) != own.as_ref());
        list.truncate(MAX_PEERS);
        list
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where instances reach a gateway, checked and written in one way: `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerUri {
    scheme: &'static str,
    /// With brackets, if it is an IPv6 address.
    host: String,
    port: u16,
}

impl PeerUri {
    /// # Errors
    /// Why it cannot be meant, and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| format!("it is no URI; {WRITE}"))?;
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => "https",
            Some(scheme) if *scheme == Scheme::HTTP => "http",
            Some(_) => return Err(format!("its scheme is neither https nor http; {WRITE}")),
            None => return Err(format!("it has no scheme; {WRITE}")),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("it holds a user or a password, which every instance would be told; leave it out".to_owned());
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("a gateway has no path; {WRITE}"));
        }
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        if host.is_empty() {
            return Err(format!("it has no host; {WRITE}"));
        }
        let port = match uri.port_u16() {
            Some(0) => return Err("nobody can be reached at port 0; write the gateway's port".to_owned()),
            Some(port) => port,
            None if scheme == "https" => HTTPS_PORT,
            None => return Err(format!("it has no port; write http://{host}:8080 if that is the gateway's")),
        };
        Ok(Self { scheme, host, port })
    }

    /// What is looked up.
    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The gateway at one address behind this name.
    fn at(&self, address: SocketAddr) -> String {
        format!("{}://{address}", self.scheme)
    }
}

impl fmt::Display for PeerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// Runs two that are never done.
pub(super) async fn beside(
    one: impl Future<Output = Infallible>,
    other: impl Future<Output = Infallible>,
) -> Infallible {
    tokio::select! {
        never = one => never,
        never = other => never,
    }
}

const WRITE: &str = "write https://HOST or http://HOST:PORT";

const HTTPS_PORT: u16 = 443;

/// As long as answers of DNS are usually kept; a gateway that comes or goes is known to all instances in this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Instances keep tunnels to a few of them; a list of more is a mistake, and each Welcome carries it.
pub(super) const MAX_PEERS: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::*;

    fn uri(text: &str) -> PeerUri {
        PeerUri::parse(text).unwrap()
    }

    #[test]
    fn a_uri_is_written_in_one_way_whatever_was_said() {
        for (said, written) in [
            ("https://Gate.Example", "https://gate.example:443"),
            ("https://gate.example:443/", "https://gate.example:443"),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080"),
        ] {
            assert_eq!(uri(said).to_string(), written, "{said}");
        }
    }

    #[test]
    fn a_uri_that_cannot_be_meant_says_what_to_write() {
        for (said, why) in [
            ("gate.example:443", "it has no scheme; write https://HOST or http://HOST:PORT"),
            ("grpc://gate.example", "its scheme is neither https nor http"),
            ("http://gate.example", "it has no port; write http://gate.example:8080"),
            ("https://gate.example:0", "nobody can be reached at port 0"),
            ("https://gate.example/api", "a gateway has no path"),
            ("https://me:secret@gate.example", "it holds a user or a password"),
            ("https://a b", "it is no URI"),
        ] {
            let told = PeerUri::parse(said).unwrap_err();
            assert!(told.starts_with(why), "{said}: {told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn the_list_holds_each_other_gateway_once_and_not_this_one() {
        let list = ["https://b", "https://a:443/", "https://c", "https://b:443"].map(uri);

        let peers = Peers::new(Some(uri("https://a")), &list, None);

        assert_eq!(peers.list(), ["https://b:443", "https://c:443"]);
        assert_eq!(Peers::default().list(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_every_30_s_and_a_failure_changes_nothing() {
        let peers = Peers::new(Some(uri("http://10.0.0.1:80")), &[], Some(uri("http://gateways:80")));
        let answers: [Result<&[&str], ()>; 5] = [
            Ok(&["10.0.0.2:80", "10.0.0.1:80", "[2001:db8::1]:80"]),
            Err(()),
            Ok(&["[2001:db8::1]:80", "10.0.0.2:80"]),
            Ok(&["10.0.0.3:80"]),
            Ok(&["10.0.0.1:80"]),
        ];
        let (asked, changes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let look_up = async |name: String| {
            assert_eq!(name, "gateways:80");
            let answer = answers.get(asked.fetch_add(1, Ordering::Relaxed)).unwrap();
            answer
                .map(|found| found.iter().map(|at| at.parse().unwrap()).collect())
                .map_err(|()| io::Error::other("no"))
        };
        let mut keep = Box::pin(peers.keep_by(look_up, || {
            changes.fetch_add(1, Ordering::Relaxed);
        }));

        for (seconds, list, changed) in [
            (1, &["http://10.0.0.2:80", "http://[2001:db8::1]:80"][..], 1),
            (30, &["http://10.0.0.2:80", "http://[2001:db8::1]:80"], 1),
            (30, &["http://10.0.0.2:80", "http://[2001:db8::1]:80"], 1),
            (30, &["http://10.0.0.3:80"], 2),
            (30, &[], 3),
        ] {
            assert!(timeout(Duration::from_secs(seconds), keep.as_mut()).await.is_err());
            assert_eq!(
                (peers.list(), changes.load(Ordering::Relaxed)),
                (list.iter().map(ToString::to_string).collect(), changed)
            );
        }
        assert_eq!(asked.load(Ordering::Relaxed), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn two_listeners_look_the_name_up_once_between_them() {
        let peers = Peers::new(None, &[], Some(uri("http://gateways:80")));
        let asked = AtomicUsize::new(0);
        let look_up = async |_: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(Vec::new())
        };

        let both = beside(peers.keep_by(&look_up, || ()), peers.keep_by(&look_up, || ()));

        assert!(timeout(Duration::from_secs(89), both).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_real_name_is_found() {
        let peers = Peers::new(None, &[], Some(uri("http://localhost:8080")));

        let found = tokio::net::lookup_host("localhost:8080").await.map(Iterator::collect);

        assert!(peers.found(&uri("http://localhost:8080"), found));
        assert!(peers.list().iter().all(|gateway| gateway.starts_with("http://") && gateway.ends_with(":8080")));
    }
}
