//! Whoever has seen all it gave consumed may give half a window again, however long the call has run.

use bytes::Bytes;
use grpcrouter_protocol::{Config, PART_OVERHEAD, ResponsePart, Tunnel};

use crate::sim::life::Life;
use crate::sim::model::{Call, Side};
use crate::sim::world::World;

/// Looks at the credit of all calls of which nothing is on its way.
pub(crate) fn when_quiet(world: &mut World) {
    for index in 0..world.calls.len() {
        let Call { at, gateway, instance, .. } = &world.calls[index];
        let Some((life, id)) = at.filter(|_| gateway.is_open && instance.is_open) else { continue };
        let (is_due_down, is_due_up) = (is_due(gateway, instance), is_due(instance, gateway));
        if !(is_due_down || is_due_up) || !world.is_quiet(life) {
            continue;
        }
        let World { calls, lives, config, now, seen, .. } = world;
        let Life { gateway, instance, .. } = &mut lives[life];
        let (Some(gateway), Some(instance)) = (&mut gateway.tunnel, &mut instance.tunnel) else { continue };
        let call = &mut calls[index];
        if is_due_down && has_room(gateway, config) {
            call.gateway.capacity = gateway.send(id, Bytes::new(), false, *now);
            check(call.gateway.capacity, config);
            seen.credit_looks += 1;
        }
        if is_due_up && has_room(instance, config) {
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
