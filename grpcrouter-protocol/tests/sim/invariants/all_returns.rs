//! At rest everything is back where it was: slots, queues, outboxes, and a whole window for each new call.

use grpcrouter_protocol::{Config, OpenCall, Tunnel};

use crate::sim::life::Life;
use crate::sim::world::World;

pub(crate) fn at_rest(world: &mut World) {
    let World { lives, config, now, .. } = world;
    for life in lives {
        for tunnel in [&life.gateway, &life.instance].into_iter().filter_map(|half| half.tunnel.as_ref()) {
            let left = (tunnel.open_calls(), tunnel.queued_bytes(), tunnel.unacked_bytes());
            assert_eq!(left, (0, 0, 0), "open calls, queued bytes, unacked bytes");
            assert_eq!(tunnel.grown_bytes(), 0, "what windows had of the pool");
        }
        if !life.is_whole() {
            continue;
        }
        newest_arrived(life);
        if !life.gateway.is_draining && !life.instance.is_draining {
            fresh_calls_have_all(life.gateway.tunnel.as_mut().unwrap(), config, *now);
        }
    }
}

/// What one end said of itself, the other knows.
fn newest_arrived(life: &Life) {
    assert_eq!((life.updates.heard, life.peers.heard), (life.updates.said, life.peers.said), "updates, gateways");
    let is_draining = life.gateway.is_draining || life.instance.is_draining;
    for half in [&life.gateway, &life.instance] {
        assert_eq!(half.tunnel.as_ref().map(Tunnel::is_draining), Some(is_draining));
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
