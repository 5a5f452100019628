//! The open calls of a tunnel, found by the slot in their id: one look, no hashing.
//! The gateway picks slots, the last one freed first; the instance takes the slots that it is told.

use crate::call::Call;
use crate::id::CallId;

/// The open calls.
#[derive(Debug)]
pub(crate) struct Calls {
    slots: Vec<Option<Call>>,
    open: usize,
    choice: Choice,
}

/// Who chooses slots.
#[derive(Debug)]
enum Choice {
    /// This side; the slots that are free again.
    Ours(Vec<u32>),
    /// The other side.
    Theirs,
}

impl Calls {
    /// A table whose slots this side chooses.
    pub(crate) const fn with_own_slots() -> Self {
        Self { slots: Vec::new(), open: 0, choice: Choice::Ours(Vec::new()) }
    }

    /// A table whose slots the other side chooses.
    pub(crate) const fn with_given_slots() -> Self {
        Self { slots: Vec::new(), open: 0, choice: Choice::Theirs }
    }

    /// How many calls are open.
    pub(crate) const fn len(&self) -> usize {
        self.open
    }

    /// A free slot: the hottest, else a new one. It is taken by inserting a call with it.
    pub(crate) fn free_slot(&mut self) -> u32 {
        let freed = match &mut self.choice {
            Choice::Ours(free) => free.pop(),
            Choice::Theirs => None,
        };
        freed.unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX))
    }

    /// True if some call has this slot.
    pub(crate) fn is_taken(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(Option::is_some)
    }

    /// Puts a call into the slot that its id names. The slot is free.
    pub(crate) fn insert(&mut self, call: Call) -> &mut Call {
        let slot = call.id.slot();
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        self.open += 1;
        // In bounds: the table was just made long enough.
        #[expect(clippy::indexing_slicing, reason = "the slot was made on the line above")]
        self.slots[slot].insert(call)
    }

    #[inline]
    pub(crate) fn get(&self, id: CallId) -> Option<&Call> {
        self.slots.get(id.slot())?.as_ref().filter(|call| call.id == id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.slots.get_mut(id.slot())?.as_mut().filter(|call| call.id == id)
    }

    /// Takes a call out and frees its slot.
    pub(crate) fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.slots.get_mut(id.slot())?.take_if(|call| call.id == id)?;
        self.release(id);
        Some(call)
    }

    /// Drops a call where it stands and frees its slot. True if it was open.
    pub(crate) fn discard(&mut self, id: CallId) -> bool {
        let Some(slot) = self.slots.get_mut(id.slot()) else { return false };
        if slot.as_ref().is_none_or(|call| call.id != id) {
            return false;
        }
        *slot = None;
        self.release(id);
        true
    }

    /// The open calls, by slot.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Call> + '_ {
        self.slots.iter_mut().flatten()
    }

    /// The ids of the open calls, by slot.
    pub(crate) fn ids(&self) -> impl Iterator<Item = CallId> + '_ {
        self.slots.iter().flatten().map(|call| call.id)
    }

    /// A slot is empty again.
    fn release(&mut self, id: CallId) {
        self.open -= 1;
        if let Choice::Ours(free) = &mut self.choice {
            free.push(id.slot() as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MaxData;
    use crate::time::Time;

    fn call(counter: u64, slot: u32) -> Call {
        Call::response(CallId::new(counter, slot), None, 100, MaxData::new(100), Time::default())
    }

    #[test]
    fn a_call_is_found_by_its_whole_id_only() {
        let mut calls = Calls::with_given_slots();
        calls.insert(call(7, 2));
        assert!(calls.get(CallId::new(7, 2)).is_some());
        assert!(calls.get(CallId::new(6, 2)).is_none(), "an earlier call of the same slot");
        assert!(calls.get(CallId::new(7, 9)).is_none(), "beyond the table");
        assert!(calls.remove(CallId::new(6, 2)).is_none() && calls.len() == 1);
    }

    #[test]
    fn the_slot_freed_last_is_taken_first() {
        let mut calls = Calls::with_own_slots();
        for counter in 1..=3 {
            let slot = calls.free_slot();
            calls.insert(call(counter, slot));
        }
        calls.remove(CallId::new(1, 0));
        assert!(calls.discard(CallId::new(2, 1)) && !calls.discard(CallId::new(2, 1)));
        assert_eq!((calls.free_slot(), calls.free_slot(), calls.len()), (1, 0, 1));
    }
}
