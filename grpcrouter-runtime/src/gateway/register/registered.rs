//! An instance in the registry, from its Hello until its tunnel is over: over all streams that carry the tunnel in turn,
//! and between them.

use std::{
    convert::Infallible,
    future::pending,
    mem,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use grpcrouter_protocol::{Close, CloseCode, Epoch, TunnelId, Update};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    gateway::{
        GatewayCore,
        admission::{Entitlement, Readmitted, Refusal},
        registry::{AWAITED_FOR, Instance},
    },
    status::shown,
    tunnel::{Started, TunnelEvents, TunnelHandle, keep, why},
};

/// In the registry for as long as this lives; held by whoever carries the tunnel or waits for it to be carried again.
#[derive(Debug)]
pub(super) struct Registration {
    core: Arc<GatewayCore>,
    pub(super) instance: Arc<Instance>,
    tunnel_id: TunnelId,
    /// As whom it is here; none where nobody asks.
    pub(super) entitlement: Option<Entitlement>,
    /// Why its last stream ended.
    why: Mutex<String>,
    /// Why it may not be here any more.
    disowned: OnceLock<&'static str>,
}

impl Registration {
    pub(super) fn new(
        core: Arc<GatewayCore>,
        instance: Arc<Instance>,
        tunnel_id: TunnelId,
        entitlement: Option<Entitlement>,
    ) -> Arc<Self> {
        if let Some(displaced) = core.registry.insert(&instance) {
            if displaced.incarnation != instance.incarnation {
                warn!(instance = %instance.id, "a second process registered with this instance id and takes its new calls");
            }
            displaced.successor.send_replace(Some(instance.incarnation));
            // Told first, so that one that loses its stream now sees it.
            end_if_superseded(&displaced);
        }
        core.meters.came(&core.registry);
        if let Some(reflection) = &core.reflection {
            reflection.came(&instance);
        }
        let why = Mutex::new("its connection was dropped".to_owned());
        let registration = Arc::new(Self { core, instance, tunnel_id, entitlement, why, disowned: OnceLock::new() });
        registration.core.resumable.add(tunnel_id, &registration);
        registration
    }

    /// Tells it of a change among the gateways that came after its Welcome was written, and before all could be told.
    pub(super) fn catch_up(&self, told: &[String]) {
        let now = self.core.peers.list();
        if now != told {
            self.instance.tunnel.peers_changed(now);
        }
    }

    /// Its tunnel is on another stream, whose connection is from `peer` and showed this.
    pub(super) fn is_back(&self, peer: &str, readmitted: Readmitted) {
        if let Some(entitlement) = &self.entitlement {
            entitlement.renew(readmitted);
        }
        self.core.registry.dialled_again(&self.instance, peer);
        let away = self.core.registry.stream_changed(&self.instance);
        self.core.meters.resumed.increment(1);
        self.core.meters.instances_changed(&self.core.registry);
        if self.core.peers.are_told() {
            // What it was told last may be lost with the stream before.
            self.instance.tunnel.peers_changed(self.core.peers.list());
        }
        let (instance, calls) = (&self.instance.id, self.instance.tunnel.open_calls());
        match away {
            Some(away) => {
                info!(%instance, peer, away_ms = away.as_millis(), calls, "instance is back: its calls go on")
            }
            None => info!(%instance, peer, calls, "instance moved to another connection: its calls go on"),
        }
    }

    /// The stream `at` is gone, for this reason: if it had the tunnel, and the tunnel is not over, it is kept for a while.
    fn left(self: Arc<Self>, at: Epoch, reason: String) {
        let tunnel = &self.instance.tunnel;
        tunnel.detach(at);
        if tunnel.epoch() != at {
            return;
        }
        let reason = self.disowned.get().map_or(reason, |why| (*why).to_owned());
        self.because(reason.clone());
        if tunnel.is_closed() || end_if_superseded(&self.instance) {
            return;
        }
        // Calls may end where no runtime is; nobody could keep it there.
        let Ok(runtime) = Handle::try_current() else { return };
        self.core.registry.stream_changed(&self.instance);
        self.core.meters.instances_changed(&self.core.registry);
        info!(
            instance = %self.instance.id, why = reason, calls = tunnel.open_calls(),
            kept_for = ?self.core.limits.tunnel.resume_window, "instance lost its stream; it is kept"
        );
        runtime.spawn(self.keep(at, reason));
    }

    /// Waits until another stream has the tunnel, or it is over.
    async fn keep(self: Arc<Self>, at: Epoch, reason: String) {
        let tunnel = &self.instance.tunnel;
        let not_awaited_for_long = async {
            sleep(AWAITED_FOR).await;
            self.core.registry.stream_changed(&self.instance);
            pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            () = keep(tunnel) => {}
            never = self.replaced() => match never {},
            never = self.disowned() => match never {},
            never = not_awaited_for_long => match never {},
        }
        if tunnel.epoch() != at {
            return;
        }
        self.because(match self.disowned.get() {
            Some(why) => (*why).to_owned(),
            None if tunnel.is_closing() => "closed".to_owned(),
            None => format!("it did not come back within {:?}: {reason}", self.core.limits.tunnel.resume_window),
        });
    }

    fn because(&self, reason: String) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Brings what the instance offers to reflection, beside all else.
    pub(super) async fn learn(&self) -> Infallible {
        if let Some(reflection) = &self.core.reflection {
            reflection.learn(&self.instance).await;
        }
        pending().await
    }

    /// Once it may not be here any more: closes the tunnel, whatever runs in it; who runs it sees that.
    pub(super) async fn disowned(&self) -> Infallible {
        if let Some(entitlement) = &self.entitlement {
            self.disown(&entitlement.ended(&self.core.admission).await);
        }
        pending().await
    }

    fn disown(&self, refusal: &Refusal) {
        let instance = &self.instance;
        let proof = self.entitlement.as_ref().map(Entitlement::proof);
        warn!(instance = %instance.id, proof, "the instance may not be here any more: {refusal}");
        let _ = self.disowned.set("it may not be registered here any more");
        let close = Close {
            code: CloseCode::PermissionDenied,
            reason: refusal.to_string(),
            retry_after: refusal.retry_after(),
        };
        instance.tunnel.close(close);
    }

    /// Once another of the same instance id took over: closes the tunnel when its calls have ended; who runs it sees that.
    pub(super) async fn replaced(&self) -> Infallible {
        let instance = &self.instance;
        let mut successor = instance.successor.subscribe();
        // The sender is in the instance that is held here.
        let _ = successor.wait_for(Option::is_some).await;
        let drained = async {
            while instance.tunnel.open_calls() > 0 {
                sleep(DRAINED_LOOK).await;
            }
        };
        let _ = timeout(self.core.limits.drain_timeout, drained).await;
        end_replaced(instance);
        pending().await
    }

    /// Whether another tunnel of its instance id has taken over, and it is not to be attached again for that.
    pub(super) fn is_superseded(&self) -> bool {
        is_superseded(&self.instance)
    }
}

/// One that drains keeps its calls until they end, on whatever stream. Any other keeps them only on the stream that it
/// had: once that is gone nobody can tell whether the process is.
fn is_superseded(instance: &Instance) -> bool {
    instance.successor.borrow().is_some() && !instance.is_draining()
}

/// Ends a tunnel that another one has superseded and that no stream carries; says if it did.
fn end_if_superseded(instance: &Instance) -> bool {
    let ends = is_superseded(instance) && !instance.tunnel.is_attached();
    if ends {
        end_replaced(instance);
    }
    ends
}

fn end_replaced(instance: &Instance) {
    let reason = if *instance.successor.borrow() == Some(instance.incarnation) {
        "a later stream of the same instance took over".to_owned()
    } else {
        format!("another process registered as instance {}: give each its own .instance_id(..)", instance.id)
    };
    instance.tunnel.close(Close { code: CloseCode::Replaced, reason, retry_after: Duration::ZERO });
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.core.resumable.remove(&self.tunnel_id);
        // No call may wait in a tunnel that nobody runs.
        self.instance.tunnel.close(Close {
            code: CloseCode::Shutdown,
            reason: String::new(),
            retry_after: Duration::ZERO,
        });
        if let Some(reflection) = &self.core.reflection {
            reflection.went(&self.instance);
        }
        let why = self.why.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.core.registry.remove(&self.instance, why);
        self.core.meters.went(&self.core.registry);
    }
}

impl TunnelEvents for Registration {
    fn started(&self, _: &TunnelHandle, _: Started) {
        // Only instances are sent calls; the core lets no such frame through to a gateway.
    }

    fn draining(&self, _: Vec<String>) {
        self.core.registry.drain(&self.instance);
        self.core.meters.instances_changed(&self.core.registry);
    }

    fn peers_changed(&self, _: Vec<String>) {
        // Only gateways tell of gateways; the core lets no such frame through to one.
    }

    fn updated(&self, update: Update) {
        if let Some(Err(refusal)) = self.entitlement.as_ref().map(|it| it.check(&self.core.admission)) {
            return self.disown(&refusal);
        }
        self.core.registry.update(&self.instance, &update);
        self.core.meters.instances_changed(&self.core.registry);
    }

    fn closed(&self, close: &Close) {
        debug!(instance = %self.instance.id, why = why(close.code), reason = shown(&close.reason), "tunnel closed");
    }
}

/// One stream of a registered instance. Dropped, however that comes, the instance has lost this stream.
pub(super) struct OnStream {
    registration: Arc<Registration>,
    at: Epoch,
    why: String,
}

impl OnStream {
    pub(super) fn new(registration: Arc<Registration>, at: Epoch) -> Self {
        Self { registration, at, why: "its connection was dropped".to_owned() }
    }

    pub(super) fn at(&self) -> Epoch {
        self.at
    }

    pub(super) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// It ended by itself.
    pub(super) fn ended(mut self, why: String) {
        self.why = why;
    }
}

impl Drop for OnStream {
    fn drop(&mut self) {
        self.registration.clone().left(self.at, mem::take(&mut self.why));
    }
}

/// How often a displaced tunnel is looked at: its calls have their own ends, nothing waits for this.
const DRAINED_LOOK: Duration = Duration::from_millis(100);
