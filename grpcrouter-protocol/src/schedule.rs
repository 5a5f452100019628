//! Which call's bytes go next: fair turns between all calls that may send, new calls first once.
//! A turn is a number of charged bytes; one that a full batch cut short goes on in the next batch.

use std::collections::VecDeque;

use crate::id::CallId;

/// The calls that have something that may go now, each once.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Calls that send for the first time, oldest first: a start must not wait behind a thousand uploads.
    fresh: Queue,
    turns: Queue,
}

impl Schedule {
    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.calls.is_empty() && self.turns.calls.is_empty()
    }

    /// A call that sends for the first time joins at the front.
    pub(crate) fn join_fresh(&mut self, call: CallId) {
        self.fresh.calls.push_back(call);
    }

    /// A call joins at the end.
    pub(crate) fn join(&mut self, call: CallId) {
        self.turns.calls.push_back(call);
    }

    /// Whose turn it is, and how much of it is left in charged bytes.
    pub(crate) fn front(&self) -> Option<(CallId, u64)> {
        let queue = if self.fresh.calls.is_empty() { &self.turns } else { &self.fresh };
        queue.calls.front().map(|&call| (call, TURN.saturating_sub(queue.used)))
    }

    /// The front call sent so much and has more: it goes on, or to the end if its turn is over.
    pub(crate) fn spend(&mut self, charged: u64) {
        let queue = self.current();
        queue.used = queue.used.saturating_add(charged);
        if queue.used >= TURN
            && let Some(call) = self.leave()
        {
            self.turns.calls.push_back(call);
        }
    }

    /// The front call has nothing more that may go now.
    pub(crate) fn leave(&mut self) -> Option<CallId> {
        let queue = self.current();
        queue.used = 0;
        queue.calls.pop_front()
    }

    /// A call ended.
    pub(crate) fn remove(&mut self, call: CallId) {
        self.fresh.remove(call);
        self.turns.remove(call);
    }

    /// The calls that have not sent anything yet, oldest first.
    pub(crate) fn fresh(&self) -> impl Iterator<Item = CallId> + '_ {
        self.fresh.calls.iter().copied()
    }

    /// Forgets all calls: the tunnel is over.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn current(&mut self) -> &mut Queue {
        if self.fresh.calls.is_empty() { &mut self.turns } else { &mut self.fresh }
    }
}

/// Calls in order.
#[derive(Debug, Default)]
struct Queue {
    calls: VecDeque<CallId>,
    /// How much of its turn the front call has used.
    used: u64,
}

impl Queue {
    fn remove(&mut self, call: CallId) {
        let Some(place) = self.calls.iter().position(|&queued| queued == call) else { return };
        self.calls.remove(place);
        if place == 0 {
            self.used = 0;
        }
    }
}

/// Charged bytes of a turn: one data part of the default size, so that a small call waits at most so much for each
/// call before it.
const TURN: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panic")]
    use proptest::prelude::*;

    use super::*;

    const A: CallId = CallId::new(1, 0);
    const B: CallId = CallId::new(2, 1);
    const C: CallId = CallId::new(3, 2);

    #[test]
    fn calls_take_turns() {
        let mut schedule = Schedule::default();
        schedule.join(A);
        schedule.join(B);
        schedule.spend(TURN);
        assert_eq!(schedule.front(), Some((B, TURN)));
        schedule.spend(TURN);
        assert_eq!(schedule.front(), Some((A, TURN)));
    }

    #[test]
    fn a_turn_that_was_cut_short_goes_on() {
        let mut schedule = Schedule::default();
        schedule.join(A);
        schedule.spend(1_000);
        schedule.join_fresh(B);
        assert_eq!(schedule.front(), Some((B, TURN)));
        assert_eq!(schedule.leave(), Some(B));
        assert_eq!(schedule.front(), Some((A, TURN - 1_000)));
    }

    #[test]
    fn new_calls_go_first_once_and_in_their_order() {
        let mut schedule = Schedule::default();
        schedule.join(A);
        schedule.join_fresh(B);
        schedule.join_fresh(C);
        assert_eq!(schedule.front(), Some((B, TURN)));
        schedule.spend(TURN);
        assert_eq!(schedule.front(), Some((C, TURN)));
        assert_eq!(schedule.leave(), Some(C));
        assert_eq!(schedule.leave(), Some(A));
        assert_eq!(schedule.leave(), Some(B));
    }

    #[test]
    fn a_call_that_ended_has_no_turn_and_leaves_none_of_its_own_behind() {
        let mut schedule = Schedule::default();
        schedule.join(A);
        schedule.join(B);
        schedule.spend(1_000);
        schedule.remove(A);
        assert_eq!(schedule.front(), Some((B, TURN)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Calls with parts of any size: each sends as much as any other, give or take one turn and one part.
        #[test]
        fn shares_are_fair(parts in proptest::collection::vec(1_u64..20_000, 2..20), rounds in 1_usize..50) {
            let mut schedule = Schedule::default();
            let calls: Vec<CallId> = (0..parts.len()).map(|slot| CallId::new(slot as u64 + 1, slot as u32)).collect();
            calls.iter().for_each(|&call| schedule.join(call));
            let mut sent = vec![0_u64; parts.len()];
            for _ in 0..rounds * parts.len() * 4 {
                let Some((call, left)) = schedule.front() else { break };
                let part = parts[call.slot()].min(left);
                sent[call.slot()] += part;
                schedule.spend(part);
            }
            let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
            prop_assert!(most - least <= 2 * TURN, "from {} to {}", least, most);
        }

        /// Whatever joins, leaves and ends: a call that waits is there once, and its turn comes.
        #[test]
        fn nobody_is_lost_or_there_twice(steps in proptest::collection::vec((0_u8..5, 0_usize..8), 1..300)) {
            let mut schedule = Schedule::default();
            let mut waiting: Vec<usize> = Vec::new();
            let call = |slot: usize| CallId::new(slot as u64 + 1, slot as u32);
            for (step, slot) in steps {
                let is_waiting = waiting.contains(&slot);
                match step {
                    0 if !is_waiting => schedule.join(call(slot)),
                    1 if !is_waiting => schedule.join_fresh(call(slot)),
                    2 if is_waiting => schedule.remove(call(slot)),
                    3 => {
                        let left = schedule.leave().map(CallId::slot);
                        prop_assert_eq!(left.is_some(), !waiting.is_empty());
                        waiting.retain(|&one| Some(one) != left);
                        continue;
                    }
                    _ => {
                        schedule.spend(5_000);
                        continue;
                    }
                }
                if step == 2 { waiting.retain(|&one| one != slot) } else { waiting.push(slot) }
            }
            let mut seen = Vec::new();
            while let Some(call) = schedule.leave() {
                seen.push(call.slot());
            }
            seen.sort_unstable();
            waiting.sort_unstable();
            prop_assert_eq!(seen, waiting);
            prop_assert!(schedule.is_empty());
        }
    }
}
