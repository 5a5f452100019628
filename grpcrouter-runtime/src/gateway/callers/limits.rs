//! How often callers may call, and how many of their calls run at once. Who is over a limit is told when to try again.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    mem,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, QuantaClock},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::StateStore,
};
use http::HeaderName;

use super::{caller::Caller, method::Methods};
use crate::{
    gateway::pass::{Asked, Held},
    status::Answer,
};

/// A limit on calls: how many in a time, how many at once, or both. Each key has its own share; a call that is over is
/// answered RESOURCE_EXHAUSTED with `RetryInfo`, and was not sent.
#[derive(Debug, Clone)]
pub struct RateLimit {
    calls: Option<(u32, Duration)>,
    burst: Option<u32>,
    concurrency: Option<usize>,
    key: By,
    methods: String,
    most_keys: usize,
}

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum By {
    /// Each caller's; those without credentials are told apart by address.
    Principal,
    /// Each address's; of IPv6 each network's of 64 bits, since one host has all of those. Looked at before credentials
    /// are, so it also keeps guessing down.
    Address,
    /// Those with the same value of this metadata entry; all without it. Looked at before credentials are. A client says
    /// what it likes, so this divides shares and protects nothing.
    Metadata(String),
    /// Those of each method.
    Method,
}

impl RateLimit {
    /// So many calls a second.
    pub fn per_second(calls: u32) -> Self {
        Self { calls: Some((calls, Duration::from_secs(1))), ..Self::none() }
    }

    /// So many calls a minute.
    pub fn per_minute(calls: u32) -> Self {
        Self { calls: Some((calls, Duration::from_secs(60))), ..Self::none() }
    }

    /// So many calls at once, however often.
    pub fn concurrent(calls: usize) -> Self {
        Self::none().concurrency(calls)
    }

    fn none() -> Self {
        let methods = "*".to_owned();
        Self { calls: None, burst: None, concurrency: None, key: By::Principal, methods, most_keys: MOST_KEYS }
    }

    /// How many may come at the same moment after a quiet time. Default as many as the limit's number.
    pub fn burst(mut self, calls: u32) -> Self {
        self.burst = Some(calls);
        self
    }

    /// How many may run at once, beside the limit in time.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = Some(calls);
        self
    }

    /// Whose calls are counted together. Default [`By::Principal`].
    pub fn key(mut self, key: By) -> Self {
        self.key = key;
        self
    }

    /// Which calls are counted: `package.Service/Method`, `package.Service/*`, `package.*` or `*`, the default.
    pub fn methods(mut self, methods: impl Into<String>) -> Self {
        self.methods = methods.into();
        self
    }

    /// How many keys are remembered. Default 100,000, some 5 MiB; those that were not seen for longest are forgotten, and
    /// then have a full share again.
    pub fn most_keys(mut self, keys: usize) -> Self {
        self.most_keys = keys;
        self
    }
}

/// All limits of a gateway.
#[derive(Debug)]
pub(super) struct Limits(Vec<Limit>);

#[derive(Debug)]
struct Limit {
    rate:
        Option<RateLimiter<u64, Recent, QuantaClock, NoOpMiddleware<<QuantaClock as governor::clock::Clock>::Instant>>>,
    running: Option<(usize, Arc<Running>)>,
    key: Key,
    methods: Methods,
    /// So that nobody can choose keys that fall together.
    hasher: RandomState,
    /// For the one who is over it.
    said: String,
}

#[derive(Debug)]
enum Key {
    Principal,
    Address,
    Metadata(HeaderName),
    Method,
}

/// When in the way of a call a limit is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Nobody knows yet who calls.
    BeforeCredentials,
    /// The call would be let in.
    After,
}

impl Limits {
    /// # Errors
    /// What was set, and why it cannot be used.
    pub(super) fn new(set: &[RateLimit]) -> Result<Self, (String, String)> {
        set.iter().map(Limit::new).collect::<Result<_, _>>().map(Self)
    }

    /// Counts a call in; what it holds while it runs goes to `held`.
    pub(super) fn take(
        &self,
        when: When,
        asked: &Asked<'_>,
        method: &str,
        caller: Option<&Caller>,
        held: &mut Held,
    ) -> Result<(), Answer> {
        for limit in self.0.iter().filter(|limit| limit.key.when() == when && limit.methods.hold(method)) {
            limit.take(limit.hash(asked, method, caller), held)?;
        }
        Ok(())
    }
}

impl Limit {
    fn new(set: &RateLimit) -> Result<Self, (String, String)> {
        let wrong = |value: &dyn std::fmt::Debug, why: &str| (format!("{value:?}"), why.to_owned());
        let methods = Methods::parse(&set.methods).map_err(|why| (set.methods.clone(), why))?;
        let key = match &set.key {
            By::Principal => Key::Principal,
            By::Address => Key::Address,
            By::Method => Key::Method,
            By::Metadata(name) => Key::Metadata(
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| wrong(name, "it is no name of a metadata entry"))?,
            ),
        };
        if set.most_keys == 0 {
            return Err(wrong(&set.most_keys, "nobody could be counted: use most_keys of 1 or more"));
        }
        let mut said = Vec::new();
        let rate = match set.calls {
            None if set.burst.is_some() => return Err(wrong(&set.burst, "a burst needs a limit in time beside it")),
            None => None,
            Some((calls, time)) => {
                let burst = NonZeroU32::new(set.burst.unwrap_or(calls));
                let each = NonZeroU32::new(calls).and_then(|calls| time.checked_div(calls.get()));
                let quota = each.and_then(Quota::with_period).zip(burst);
                let Some((quota, burst)) = quota else {
                    return Err(wrong(&calls, "nobody could call: use 1 or more, and a burst of 1 or more"));
                };
                said.push(format!("{calls} calls per {}", if time.as_secs() == 1 { "second" } else { "minute" }));
                let state = Recent::new(set.most_keys);
                Some(RateLimiter::new(quota.allow_burst(burst), state, QuantaClock::default()))
            }
        };
        let running = match set.concurrency {
            Some(0) => return Err(wrong(&0, "nobody could call: use a concurrency of 1 or more")),
            Some(most) => {
                said.push(format!("{most} calls at once"));
                Some((most, Arc::default()))
            }
            None => None,
        };
        let whose = match &set.key {
            By::Principal => "for each caller".to_owned(),
            By::Address => "for each address".to_owned(),
            By::Method => "for each method".to_owned(),
            By::Metadata(name) => format!("for each {name:?}"),
        };
        let said = format!("{} {whose} to {methods}", said.join(" and "));
        Ok(Self { rate, running, key, methods, hasher: RandomState::new(), said })
    }

    /// Who a call is counted to. 64 bits that nobody can choose: two who share them would share a share.
    fn hash(&self, asked: &Asked<'_>, method: &str, caller: Option<&Caller>) -> u64 {
        match &self.key {
            Key::Principal => match caller {
                Some(caller) => self.hasher.hash_one(caller.principal.bytes()),
                None => self.hasher.hash_one(asked.address.map(network)),
            },
            Key::Address => self.hasher.hash_one(asked.address.map(network)),
            Key::Metadata(name) => self.hasher.hash_one(asked.headers.get(name).map(http::HeaderValue::as_bytes)),
            Key::Method => self.hasher.hash_one(method),
        }
    }

    fn take(&self, key: u64, held: &mut Held) -> Result<(), Answer> {
        // First what is given back: a call that is over in time takes no place.
        let place = match &self.running {
            Some((most, running)) => match Running::enter(running, key, *most) {
                Some(place) => Some(place),
                None => return Err(Answer::rate_limited(&self.said, A_CALL)),
            },
            None => None,
        };
        if let Some(rate) = &self.rate
            && let Err(until) = rate.check_key(&key)
        {
            return Err(Answer::rate_limited(&self.said, until.wait_time_from(rate.clock().now())));
        }
        held.extend(place.map(|place| Box::new(place) as _));
        Ok(())
    }
}

impl Key {
    fn when(&self) -> When {
        match self {
            Self::Address | Self::Metadata(_) => When::BeforeCredentials,
            Self::Principal | Self::Method => When::After,
        }
    }
}

/// The part of an address that tells hosts apart.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()) | 1 << 63,
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or_default(),
    }
}

/// When each key may call next, as governor counts it, of those that were seen lately: two generations, of which the
/// older is forgotten when the younger is full.
#[derive(Debug)]
struct Recent {
    keys: Mutex<Generations>,
    /// Of one generation.
    most: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Nanos>,
    old: HashMap<u64, Nanos>,
}

impl Recent {
    fn new(most: usize) -> Self {
        Self { keys: Mutex::default(), most: most.div_ceil(2) }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for Recent {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut keys = self.lock();
        let before = keys.young.get(key).or_else(|| keys.old.get(key)).copied();
        let (said, after) = f(before)?;
        if keys.young.len() >= self.most && !keys.young.contains_key(key) {
            keys.old = mem::take(&mut keys.young);
        }
        keys.young.insert(*key, after);
        Ok(said)
    }
}

/// How many calls of each key run. Holds no key without one.
#[derive(Debug, Default)]
struct Running(Mutex<HashMap<u64, usize>>);

/// A call that runs.
#[derive(Debug)]
struct Place {
    running: Arc<Running>,
    key: u64,
}

impl Running {
    fn enter(this: &Arc<Self>, key: u64, most: usize) -> Option<Place> {
        let mut running = this.lock();
        let count = running.entry(key).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(running);
        Some(Place { running: this.clone(), key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(count) = running.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.key);
            }
        }
    }
}

/// When to try again if calls must end first: nobody knows, so soon.
const A_CALL: Duration = Duration::from_millis(100);

const MOST_KEYS: usize = 100_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap is a failed test")]
    use http::HeaderMap;

    use super::*;

    fn limits(set: RateLimit) -> Limits {
        Limits::new(&[set]).unwrap()
    }

    /// Who of these gets in, all at the same moment.
    fn let_in(limits: &Limits, addresses: &[&str]) -> Vec<bool> {
        let headers = HeaderMap::new();
        let mut held = Held::new();
        let mut take = |address: &&str| {
            let asked = Asked { path: "/a.B/C", headers: &headers, address: Some(address.parse().unwrap()) };
            limits.take(When::BeforeCredentials, &asked, "a.B/C", None, &mut held).is_ok()
        };
        addresses.iter().map(&mut take).collect()
    }

    #[test]
    fn each_key_has_a_share_of_its_own() {
        let limits = limits(RateLimit::per_minute(1).burst(2).key(By::Address));

        let seen = let_in(&limits, &["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1"]);

        assert_eq!(seen, [true, true, false, true, false]);
    }

    #[test]
    fn one_network_of_ipv6_is_one_key() {
        let limits = limits(RateLimit::per_minute(1).key(By::Address));

        assert_eq!(let_in(&limits, &["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]), [true, false, true]);
    }

    #[test]
    fn a_flood_of_keys_is_forgotten_and_does_not_grow() {
        let limits = limits(RateLimit::per_minute(1).key(By::Address).most_keys(100));
        let flood: Vec<String> = (0..10_000_u32).map(|n| std::net::Ipv4Addr::from_bits(n).to_string()).collect();
        let flood: Vec<&str> = flood.iter().map(String::as_str).collect();

        assert!(let_in(&limits, &flood).iter().all(|seen| *seen));

        let keys = limits.0[0].rate.as_ref().unwrap();
        assert_eq!(let_in(&limits, &[flood[9_999], flood[9_960], flood[0]]), [false, false, true]);
        let state = format!("{keys:?}").matches("Nanos(").count();
        assert!(state <= 2 * 51 + 3, "{state}");
    }

    #[test]
    fn a_place_is_given_back_when_its_call_is_over() {
        let running = Arc::new(Running::default());

        let first = Running::enter(&running, 7, 1);
        assert!(
            first.is_some() && Running::enter(&running, 7, 1).is_none() && Running::enter(&running, 8, 1).is_some()
        );
        drop(first);

        assert!(Running::enter(&running, 7, 1).is_some());
        assert!(running.lock().is_empty(), "no key without a call stays");
    }

    #[test]
    fn a_call_that_is_over_the_limit_in_time_takes_no_place() {
        let limits = limits(RateLimit::per_minute(1).burst(1).concurrency(5).key(By::Address));

        assert_eq!(let_in(&limits, &["10.0.0.1", "10.0.0.1"]), [true, false]);

        assert!(limits.0[0].running.as_ref().unwrap().1.lock().is_empty(), "both gave their place back");
    }

    #[test]
    fn a_limit_that_cannot_be_meant_is_told() {
        for set in [
            RateLimit::per_second(0),
            RateLimit::per_second(1).burst(0),
            RateLimit::concurrent(0),
            RateLimit::concurrent(1).burst(1),
            RateLimit::per_second(1).methods("shop*"),
            RateLimit::per_second(1).key(By::Metadata("a b".to_owned())),
            RateLimit::per_second(1).most_keys(0),
        ] {
            assert!(Limits::new(std::slice::from_ref(&set)).is_err(), "{set:?}");
        }
    }
}
