//! Who may register. Everything that is checked of a Hello beyond its shape is checked here.

use std::time::Duration;

use grpcrouter_protocol::{Agreement, Hello, RejectReason, Rejected, agree};

use super::GatewayCore;

/// Lets an instance in, or says why not.
pub(super) fn admit(core: &GatewayCore, hello: &Hello) -> Result<Agreement, Rejected> {
    if core.counts.is_stopping() {
        let mut rejected = rejected(RejectReason::Draining, "this gateway is about to stop".to_owned());
        rejected.retry_after = RETRY_AFTER_STOP;
        return Err(rejected);
    }
    if hello.resume.is_some() {
        // A tunnel lives as long as its stream yet.
        return Err(rejected(RejectReason::Unknown, "this gateway holds no such tunnel: say a plain Hello".to_owned()));
    }
    if hello.services.is_empty() {
        return Err(rejected(RejectReason::Invalid, "the instance names no service that it answers".to_owned()));
    }
    let names = hello.services.iter().map(|offer| &offer.name).chain(&hello.routing_keys);
    if let Some(name) = names.into_iter().find(|name| name.is_empty() || name.len() > MAX_NAME) {
        let why = format!(
            "a name of {} bytes: services and routing keys have 1 to {MAX_NAME}, beginning with {:?}",
            name.len(),
            name.chars().take(32).collect::<String>()
        );
        return Err(rejected(RejectReason::Invalid, why));
    }
    for (what, count) in [("services", hello.services.len()), ("routing keys", hello.routing_keys.len())] {
        if count > MAX_NAMES {
            let why = format!("{count} {what}: an instance may name {MAX_NAMES}");
            return Err(rejected(RejectReason::ResourceExhausted, why));
        }
    }
    if core.registry.tunnel_count() >= MAX_TUNNELS {
        let why = format!("this gateway holds {MAX_TUNNELS} tunnels and takes no more");
        return Err(rejected(RejectReason::ResourceExhausted, why));
    }
    let agreement = agree(hello, &core.limits.tunnel)?;
    // Last: it counts, and only one who would be let in.
    core.registry.may_take(hello).map_err(|retry_after| Rejected {
        retry_after,
        ..rejected(RejectReason::Flapping, format!("processes push each other out of the instance id {:?}: give each its own .instance_id(..); the one that is here stays", hello.instance_id.as_str()))
    })?;
    Ok(agreement)
}

fn rejected(reason: RejectReason, message: String) -> Rejected {
    Rejected { reason, message, retry_after: Duration::ZERO, gateways: Vec::new(), versions: None }
}

/// Long enough that a gateway that stops is not dialled in a hurry, short enough to find its successor at once.
const RETRY_AFTER_STOP: Duration = Duration::from_secs(1);

/// Bytes of a service's name or of a routing key. They are looked up and logged.
const MAX_NAME: usize = 256;

/// Names of one kind in one Hello: each costs an entry in a snapshot.
const MAX_NAMES: usize = 1024;

/// Tunnels of one gateway: an idle one costs about 30 KiB, so these cost 500 MiB.
const MAX_TUNNELS: usize = 16_384;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::gateway::{registry::hello, tests::gateway};

    fn answer(hello: &Hello) -> Result<Agreement, RejectReason> {
        let gateway = gateway();
        admit(gateway.core(), hello).map_err(|rejected| rejected.reason)
    }

    #[test]
    fn an_instance_with_a_service_is_let_in() {
        let agreement = answer(&hello("a", "shop.Orders")).unwrap();

        assert_eq!((agreement.version, agreement.max_open_calls), (1, 100));
    }

    #[test]
    fn a_hello_that_cannot_be_is_rejected_with_the_reason() {
        let mut nothing = hello("a", "shop.Orders");
        nothing.services.clear();
        let mut long = hello("a", "shop.Orders");
        long.routing_keys = vec!["k".repeat(257)];
        let mut many = hello("a", "shop.Orders");
        many.routing_keys = vec!["k".to_owned(); 1025];
        let mut later = hello("a", "shop.Orders");
        later.versions = 2..=3;

        assert_eq!(answer(&nothing), Err(RejectReason::Invalid));
        assert_eq!(answer(&long), Err(RejectReason::Invalid));
        assert_eq!(answer(&many), Err(RejectReason::ResourceExhausted));
        assert_eq!(answer(&later), Err(RejectReason::Version));
    }

    #[test]
    fn nobody_is_let_in_while_the_gateway_stops() {
        let gateway = gateway();
        gateway.core().counts.set_stopping(true);

        let rejected = admit(gateway.core(), &hello("a", "shop.Orders")).unwrap_err();

        assert_eq!(rejected.reason, RejectReason::Draining);
        assert_eq!(rejected.retry_after, Duration::from_secs(1));
    }
}
