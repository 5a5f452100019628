//! The cheaper of two drawn by chance: nearly as good as the cheapest of all, which would cost a look at all, and no
//! herd runs to the one that is cheapest just now.

use std::sync::Arc;

use super::{
    Candidate, Picker, Ready,
    chance::{self, Dice},
    first,
};
use crate::gateway::strategy::RoutingKey;

/// Draws two and takes the one where one more call costs less.
#[derive(Debug)]
pub(super) struct TwoChoices<T> {
    pub(super) ready: Ready<T>,
    pub(super) dice: Arc<Dice>,
    /// What one more call costs there.
    pub(super) cost: fn(&T) -> f64,
}

impl<T: Candidate> TwoChoices<T> {
    /// Two different ones; one twice where there is no other.
    fn draw(&self) -> Option<[&Arc<T>; 2]> {
        let (throw, len) = (self.dice.throw(), self.ready.len());
        let one = chance::place(throw, len);
        // The bits that had no say in the first.
        let other = chance::place(chance::mix(throw), len.saturating_sub(1));
        let other = if other >= one && len > 1 { other + 1 } else { other };
        Some([self.ready.get(one)?, self.ready.get(other)?])
    }
}

impl<T: Candidate> Picker<T> for TwoChoices<T> {
    fn pick(&self, _: &RoutingKey, suits: &dyn Fn(&T) -> bool) -> Option<Arc<T>> {
        for _ in 0..DRAWS {
            let [one, other] = self.draw()?;
            let picked = match (suits(one), suits(other)) {
                (true, true) if (self.cost)(other) < (self.cost)(one) => other,
                (true, _) => one,
                (false, true) => other,
                (false, false) => continue,
            };
            return Some(picked.clone());
        }
        first(&self.ready, chance::place(self.dice.throw(), self.ready.len()), suits).cloned()
    }
}

/// After so many pairs of which nobody suits, whoever comes next is good enough.
const DRAWS: usize = 4;
