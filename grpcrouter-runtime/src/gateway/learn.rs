//! Serves what instances register and nobody declared, if the gateway was told to: each part that has a table of services
//! is told of the new one, and calls find it last.

use std::sync::Arc;

use grpcrouter_protocol::Hello;
use tracing::{info, warn};

use super::{
    GatewayCore,
    route::{NotLearnt, Turn},
};
use crate::{clock, status::shown};

/// Whoever says this `hello` is let in: clients can call all that it answers.
pub(super) fn learn(core: &GatewayCore, hello: &Hello) {
    let mut refused = Vec::new();
    for offer in &hello.services {
        // Not held for long: each instance that comes waits for it.
        let Some(turn) = core.routes.learn() else { return };
        let service = &*offer.name;
        let learnt = match core.routes.is_new(service, |name| core.own.serves(name)) {
            Ok(false) => continue,
            Ok(true) => add(core, &turn, &Arc::from(service)),
            Err(why) => Err(why),
        };
        match learnt {
            Ok(()) => info!(service, instance = %hello.instance_id, "service learnt: clients can call it from now on"),
            Err(why) => refused.push((service, why)),
        }
    }
    // One line, for an instance may have made up a thousand names.
    if let Some((service, why)) = refused.first() {
        let (instance, others) = (&hello.instance_id, refused.len() - 1);
        warn!(%instance, service = shown(service), others, %why, "an instance registers what clients cannot call");
    }
}

fn add(core: &GatewayCore, turn: &Turn<'_>, service: &Arc<str>) -> Result<(), NotLearnt> {
    let (target, serving) = core.registry.add(service, turn.balancing()).ok_or(NotLearnt::Full)?;
    core.retries.add(clock::now());
    let route = core.routes.add_learnt(turn, service, target)?;
    if let Some(method) = core.routes.method(route) {
        core.meters.add(method);
    }
    core.book.send_modify(|services| {
        services.insert(service.to_string(), serving);
    });
    if let Some(reflection) = &core.reflection {
        reflection.serves(service);
    }
    turn.publish(service, route);
    Ok(())
}
