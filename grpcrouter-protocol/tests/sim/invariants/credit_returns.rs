//! Whoever has seen all it gave consumed may give half a window again, however long the call has run.

use bytes::Bytes;
use grpcrouter_protocol::{Config, PART_OVERHEAD, ResponsePart, Tunnel};

use crate::sim::model::Side;
use crate::sim::world::World;

/// Looks at the credit of all calls. Nothing is on its way.
pub(crate) fn when_quiet(world: &mut World) {
    let World { calls, gateway, instance, config, now, seen, .. } = world;
    let open = calls.iter_mut().filter(|call| call.gateway.is_open && call.instance.is_open);
    for (id, call) in open.filter_map(|call| call.id.map(|id| (id, call))) {
        if is_due(&call.gateway, &call.instance) && has_room(gateway, config) {
            call.gateway.capacity = gateway.send(id, Bytes::new(), false, *now);
            check(call.gateway.capacity, config);
            seen.credit_looks += 1;
        }
        if is_due(&call.instance, &call.gateway) && has_room(instance, config) {
            call.instance.capacity = instance.respond(id, ResponsePart::default(), *now);
            check(call.instance.capacity, config);
            seen.credit_looks += 1;
        }
    }
}

fn is_due(giver: &Side, hearer: &Side) -> bool {
    giver.gave == hearer.heard && hearer.pending.is_empty() && !giver.gave_end
}

fn has_room(tunnel: &Tunnel, config: &Config) -> bool {
    tunnel.unacked_bytes() + config.max_batch + 64 <= config.replay_limit
}

fn check(capacity: usize, config: &Config) {
    let least = config.initial_window / 2;
    assert!(capacity as u64 + PART_OVERHEAD > least, "{capacity} of a window of {}", config.initial_window);
}
