//! A tunnel knows which stream carries it, as the naive truth does, and gives nothing out without one.

use crate::sim::life::Half;

pub(crate) fn look(half: &mut Half) {
    if !half.lives() {
        return;
    }
    let is_attached = half.is_attached();
    let epoch = half.epoch;
    let Some(tunnel) = &half.tunnel else { return };
    assert_eq!((tunnel.is_attached(), tunnel.epoch()), (is_attached, epoch), "{tunnel:#?}");
    assert!(is_attached || !tunnel.wants_transmit(), "a tunnel without a stream has nothing to give");
}
