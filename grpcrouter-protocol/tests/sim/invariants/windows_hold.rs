//! No call holds more than its window on either side: what was delivered and not consumed fits. Windows grow, but not
//! beyond the most, and all together not beyond the pool.

use crate::sim::world::World;

pub(crate) fn always(world: &World) {
    let World { calls, config, lives, .. } = world;
    for (number, life) in lives.iter().enumerate() {
        let mut grown = [0; 2];
        for call in calls.iter().filter(|call| call.life() == Some(number)) {
            for (side, grown) in [&call.gateway, &call.instance].into_iter().zip(&mut grown) {
                let most = config.max_window.max(config.initial_window);
                assert!(side.held() <= most, "{} of {most}: {call:?}", side.held());
                assert!(side.capacity as u64 <= config.initial_window, "{call:?}");
                *grown += side.held().saturating_sub(config.initial_window);
            }
        }
        for (half, grown) in [&life.gateway, &life.instance].into_iter().zip(grown) {
            // What is delivered of a call that is over is its app's, no longer the tunnel's; there are none in `calls`.
            let Some(tunnel) = &half.tunnel else { continue };
            assert!(tunnel.grown_bytes() <= config.window_pool, "{} of the pool", tunnel.grown_bytes());
            assert!(grown <= config.window_pool, "{grown} of {}", config.window_pool);
        }
    }
}
