//! What arrived is a prefix of what was given; after an end, all of it.

use crate::sim::model::{Direction, Side, bytes};

/// Data of a call came.
pub(crate) fn arrive(index: usize, direction: Direction, side: &mut Side, data: &[u8]) {
    let expected = bytes(index, direction, side.heard, data.len());
    assert_eq!(expected, data, "call {index}, {direction:?} from {} on", side.heard);
    side.heard += data.len();
    if !data.is_empty() {
        side.pending.push_back(data.len());
    }
}

/// The end of one direction came.
pub(crate) fn all_arrived(giver: &Side, hearer: &Side) {
    assert!(giver.gave_end, "an end that nobody gave");
    assert_eq!(giver.gave, hearer.heard, "an end before all was there");
}
