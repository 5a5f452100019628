//! Deadlines run, with or without a stream: the gateway's end of a call ends in time, the instance's as soon as what the
//! two ends have told each other allows.

use grpcrouter_protocol::Side;

use crate::sim::model::Call;
use crate::sim::world::World;

/// The next deadline is never slept through.
pub(crate) fn always(world: &World) {
    for call in world.calls.iter().filter(|call| call.gateway.is_open) {
        let (Some(deadline), Some(life)) = (call.deadline, call.life()) else { continue };
        let Some(tunnel) = &world.lives[life].gateway.tunnel else { continue };
        assert!(tunnel.poll_timeout().is_some_and(|at| at <= deadline), "{call:?}");
    }
}

/// A tunnel was just told what time it is.
pub(crate) fn after_timers(calls: &[Call], life: usize, side: Side, now: grpcrouter_protocol::Time) {
    for call in calls.iter().filter(|call| call.life() == Some(life)) {
        let (is_open, until) = match side {
            Side::Gateway => (call.gateway.is_open, call.deadline),
            Side::Instance => (call.instance.is_open, call.bound),
        };
        assert!(!is_open || until.is_none_or(|until| until > now), "{now:?}: {call:?}");
    }
}

/// The instance has heard all that its gateway had to say: it knows what remained when that was said last, after both this
/// stream and this call began.
pub(crate) fn when_all_is_heard(world: &mut World) {
    for index in 0..world.calls.len() {
        let call = &world.calls[index];
        let (Some(deadline), Some(life)) = (call.deadline, call.life()) else { continue };
        if call.gateway.is_open && call.instance.is_open && world.instance_has_heard_all(life) {
            let said = call.opened.max(world.lives[life].gateway.attached_at);
            let bound = deadline + world.now.since(said);
            let call = &mut world.calls[index];
            call.bound = Some(call.bound.map_or(bound, |known| known.min(bound)));
            world.seen.deadline_looks += 1;
        }
    }
}
