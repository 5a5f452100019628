//! Which of several answers a call. A balancer thinks when the set changes and makes a picker; a picker looks, once for
//! each call, without a lock. One file for each value of the option `load_balancing`.

mod chance;
mod consistent_hash;
mod least_request;
mod peak_ewma;
mod random;
mod round_robin;
mod two_choices;
mod weighted;

use std::{fmt::Debug, sync::Arc};

pub(super) use self::{chance::Dice, consistent_hash::hash, peak_ewma::Latency};
use self::{
    consistent_hash::ConsistentHash, least_request::LeastRequest, peak_ewma::PeakEwma, random::Random,
    round_robin::RoundRobin, weighted::Weighted,
};
use super::strategy::RoutingKey;
use crate::codegen::LoadBalancing;

/// One that can be picked, as far as balancers know it. Asked once or twice for each call, so every answer is a look at
/// what is there: no lock.
pub(super) trait Candidate: Debug + Send + Sync + 'static {
    /// The same after a restart and at every gateway.
    fn name(&self) -> &str;
    /// Its share of the calls, 1 to [`MAX_WEIGHT`]. Read when the set changes.
    fn weight(&self) -> u32;
    /// The calls that it has now.
    fn open_calls(&self) -> usize;
    /// How long it takes to answer, in nanoseconds, as [`Latency`] reckons now; `None` if it never answered yet.
    fn latency(&self) -> Option<f32>;
}

/// Makes pickers. Kept from one set to the next, so that it can remember.
pub(super) trait Balancer<T>: Debug + Send {
    /// A picker over `ready`, which may be empty.
    fn picker(&mut self, ready: &Ready<T>) -> Arc<dyn Picker<T>>;
}

/// Answers for one set that does not change any more.
pub(super) trait Picker<T>: Debug + Send + Sync {
    /// One of those that suit; `None` if none does. Looks at a bounded number of them, however many there are, so where
    /// next to none suits it may miss one.
    fn pick(&self, key: &RoutingKey, suits: &dyn Fn(&T) -> bool) -> Option<Arc<T>>;
}

/// Those that can be picked, in an order that lasts: who comes is last.
pub(super) type Ready<T> = Arc<[Arc<T>]>;

/// The maker for one value of the option. `seed` is where its chance begins: not the same at two gateways, or they
/// would choose alike.
pub(super) fn maker<T: Candidate>(balancing: LoadBalancing, seed: u64) -> Box<dyn Balancer<T>> {
    match balancing {
        LoadBalancing::RoundRobin => Box::new(RoundRobin::default()),
        LoadBalancing::WeightedRoundRobin => Box::new(Weighted::new(seed)),
        LoadBalancing::LeastRequest => Box::new(LeastRequest::new(seed)),
        LoadBalancing::PeakEwma => Box::new(PeakEwma::new(seed)),
        LoadBalancing::ConsistentHash => Box::new(ConsistentHash::default()),
        LoadBalancing::Random => Box::new(Random::new(seed)),
    }
}

/// The first that suits from `from` on, round the circle.
fn first<'a, T>(ready: &'a [Arc<T>], from: usize, suits: &dyn Fn(&T) -> bool) -> Option<&'a Arc<T>> {
    around(ready, from).find(|one| suits(one))
}

/// Those from `from` on, round the circle, but not too many.
fn around<T>(ready: &[Arc<T>], from: usize) -> impl Iterator<Item = &Arc<T>> {
    let (before, after) = ready.split_at_checked(from).unwrap_or_default();
    after.iter().chain(before).take(MOST_LOOKS)
}

/// The largest weight: one of weight 1 beside it still gets a call in a thousand.
pub(super) const MAX_WEIGHT: u32 = 1000;

/// How many are looked at for one call before nobody is said to suit. When so many in a row are full, all are.
const MOST_LOOKS: usize = 64;

#[cfg(test)]
mod tests;
