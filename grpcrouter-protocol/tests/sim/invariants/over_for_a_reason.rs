//! A tunnel is over only if somebody closed it, another process took its place, or it was without a stream for the whole
//! resume window.

use grpcrouter_protocol::Tunnel;

use crate::sim::world::{SIDES, World};

pub(crate) fn always(world: &World) {
    for life in &world.lives {
        for side in SIDES {
            let is_over = life.half(side).tunnel.as_ref().is_some_and(Tunnel::is_closed);
            assert!(!is_over || life.may_be_lost(side), "the {side:?}'s end is over: {life:#?}");
        }
    }
}
