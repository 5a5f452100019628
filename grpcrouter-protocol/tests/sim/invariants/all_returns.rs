//! At rest everything is back where it was: slots, queues, outboxes, and a whole window for each new call.

use grpcrouter_protocol::{Config, OpenCall, Tunnel};

use crate::sim::world::World;

pub(crate) fn at_rest(world: &mut World) {
    for tunnel in [&world.gateway, &world.instance] {
        let left = (tunnel.open_calls(), tunnel.queued_bytes(), tunnel.unacked_bytes());
        assert_eq!(left, (0, 0, 0), "open calls, queued bytes, unacked bytes");
        assert_eq!(tunnel.grown_bytes(), 0, "what windows had of the pool");
        assert!(!tunnel.wants_transmit());
    }
    if !world.is_draining && !world.is_over {
        fresh_calls_have_all(&mut world.gateway, &world.config, world.now);
    }
}

/// As many calls as on the first day may be opened, each with a whole window.
fn fresh_calls_have_all(gateway: &mut Tunnel, config: &Config, now: grpcrouter_protocol::Time) {
    for _ in 0..config.max_open_calls {
        let opened = gateway.open(OpenCall::default(), now).expect("a slot for each call");
        assert_eq!(opened.capacity as u64, config.initial_window - grpcrouter_protocol::PART_OVERHEAD);
        assert!(opened.id.slot() < config.max_open_calls as usize);
    }
    assert!(gateway.open(OpenCall::default(), now).is_err(), "and not one more");
}
