//! The same key to the same instance, at every gateway and after every restart; who comes or goes moves only the keys
//! that it takes or had.
//!
//! Multi-probe hashing (Appleton, O'Reilly 2015): each instance stands on a circle at a few places, more if it weighs
//! more; a key is looked up at 21 places and goes to the instance that is nearest behind one of them. That is as even as
//! a ring with hundreds of places for each, in a fraction of the memory. Where one has too many calls (Mirrokni, Thorup,
//! Zadimoghaddam 2016) the next nearest takes the key.

mod load;

use std::sync::{Arc, atomic::AtomicUsize};

use self::load::Load;
use super::{
    Balancer, Candidate, Picker, Ready, around,
    chance::{GOLDEN, mix, place},
    first,
    round_robin::Turns,
};
use crate::gateway::strategy::RoutingKey;

/// Hashes keys. Remembers nothing of one set in the next: two gateways that see the same set choose alike.
#[derive(Debug, Default)]
pub(super) struct ConsistentHash {
    /// For calls without a key.
    turn: Arc<AtomicUsize>,
}

impl<T: Candidate> Balancer<T> for ConsistentHash {
    fn picker(&mut self, ready: &Ready<T>) -> Arc<dyn Picker<T>> {
        Arc::new(Circle::new(ready, &self.turn))
    }
}

#[derive(Debug)]
struct Circle<T> {
    ready: Ready<T>,
    /// Where each one stands, and who it is: in the order of the circle.
    points: Box<[(u64, u32)]>,
    /// The circle is cut in as many parts as there are points: the first point in each part or behind it.
    parts: Box<[u32]>,
    load: Load,
    turns: Turns<T>,
}

impl<T: Candidate> Circle<T> {
    fn new(ready: &Ready<T>, turn: &Arc<AtomicUsize>) -> Self {
        let mut points: Vec<(u64, u32)> = Vec::with_capacity(ready.len());
        for (one, number) in ready.iter().zip(0..) {
            let name = hash(one.name().as_bytes());
            let places = u64::from(one.weight().min(HEAVIEST)) * PLACES;
            points.extend((1..=places).map(|nth| (mix(name ^ mix(nth)), number)));
        }
        let name = |number: u32| ready.get(number as usize).map(|one| one.name());
        // By name where two stand at one place: the order in which they came is not the same everywhere.
        points.sort_unstable_by(|(a, one), (b, other)| a.cmp(b).then_with(|| name(*one).cmp(&name(*other))));
        let mut parts = vec![0_u32; points.len()];
        let mut next = 0;
        for (part, first) in parts.iter_mut().enumerate() {
            while points.get(next).is_some_and(|(at, _)| place(*at, points.len()) < part) {
                next += 1;
            }
            *first = u32::try_from(next).unwrap_or(u32::MAX);
        }
        let (points, parts) = (points.into(), parts.into());
        Self { ready: ready.clone(), points, parts, load: Load::new(ready), turns: Turns::new(ready, turn) }
    }

    /// The first point at or behind `at`: few steps, however many there are, for they stand evenly.
    fn behind(&self, at: u64) -> Option<usize> {
        let first = *self.parts.get(place(at, self.parts.len()))? as usize;
        let steps = self.points.get(first..)?.iter().take_while(|(point, _)| *point < at).count();
        (first + steps).checked_rem(self.points.len())
    }

    fn owner(&self, point: usize) -> Option<&Arc<T>> {
        self.ready.get(self.points.get(point)?.1 as usize)
    }
}

impl<T: Candidate> Picker<T> for Circle<T> {
    fn pick(&self, key: &RoutingKey, suits: &dyn Fn(&T) -> bool) -> Option<Arc<T>> {
        let RoutingKey::Value(key) = key else { return self.turns.pick(key, suits) };
        let key = hash(key);
        let mut nearest = [(u64::MAX, 0); PROBES];
        for (nth, near) in (1..).zip(&mut nearest) {
            let at = mix(key.wrapping_add(GOLDEN.wrapping_mul(nth)));
            let point = self.behind(at)?;
            *near = (self.points.get(point)?.0.wrapping_sub(at), point);
        }
        self.load.look_on(&self.ready);
        let takes = |point: usize| self.owner(point).filter(|one| suits(one) && self.load.has_room(&***one));
        let (_, best) = *nearest.iter().min()?;
        if let Some(one) = takes(best) {
            return Some(one.clone());
        }
        // Rare: it is full, or did not take the call.
        nearest.sort_unstable();
        if let Some(one) = nearest.iter().find_map(|(_, point)| takes(*point)) {
            return Some(one.clone());
        }
        let from = place(key, self.ready.len());
        let has_room = |one: &T| suits(one) && self.load.has_room(one);
        // Among so many all are busier than the others are: then the least busy.
        let least = || around(&self.ready, from).filter(|one| suits(one)).min_by_key(|one| one.open_calls());
        first(&self.ready, from, &has_room).or_else(least).cloned()
    }
}

/// FNV-1a over the bytes, then mixed: no key that a program would use falls together with another. Never to be changed:
/// gateways of two versions must choose alike.
pub(in crate::gateway) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// Looks at the circle for one key: with fewer, who stands alone on a long stretch has too many keys.
const PROBES: usize = 21;

/// Places of one instance of weight 1. With one alone, who stands close behind another has next to no keys; with four the
/// busiest has about 10 % more than its share, the idlest 20 % less. Each place costs 16 bytes, and its part of a sort.
const PLACES: u64 = 4;

/// A heavier one weighs this much here, which bounds the circle.
const HEAVIEST: u32 = 100;

#[cfg(test)]
mod tests;
