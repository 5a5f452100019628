//! Reflection: what clients ask of the proto files behind this gateway. From the generated code's own descriptors and
//! from those that instances offer, as the bytes that they are, so that custom options survive.

mod catalog;
mod fetch;
mod mounted;
mod service;
mod shelf;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tonic_reflection::pb::{v1, v1alpha};
use tracing::{debug, warn};

pub use self::mounted::{ReflectionService, ReflectionV1, ReflectionV1Alpha};
pub(super) use self::service::services;
use self::{
    catalog::{Catalog, Own},
    shelf::Shelf,
};
use super::{Gateway, registry::Instance, service_routes::ServiceRoutes};
use crate::{
    descriptors::{BadSet, Hash, Set},
    status::shown,
};

/// A proto file of which instances offer different versions, or one that differs from the gateway's own; from
/// [`Gateway::descriptor_conflicts`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DescriptorConflict {
    /// The file's name, as proto files import it.
    pub file: String,
    /// Two or more; the one that reflection serves comes first.
    pub versions: Vec<DescriptorVersion>,
}

/// One version of a proto file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DescriptorVersion {
    /// The first 8 bytes of the SHA-256 of the file's descriptor without source info, in hexadecimal.
    pub hash: String,
    /// The ids of the instances that offer it, in order.
    pub instances: Vec<String>,
    /// How many of them take new calls now: the version with the most is served.
    pub healthy: usize,
    /// A router of this gateway was generated from it.
    pub is_own: bool,
}

impl Gateway {
    /// The proto files of which more than one version is about, by name: who offers which. Empty when all agree, and
    /// where reflection is [turned off](super::GatewayBuilder::reflection). The log says so too, once for each change.
    pub fn descriptor_conflicts(&self) -> Vec<DescriptorConflict> {
        self.core().reflection.as_ref().map(|reflection| reflection.catalog().conflicts.clone()).unwrap_or_default()
    }
}

/// All that is known of descriptors here.
pub(super) struct Reflection {
    own: Own,
    /// What a list of services names: those that clients can call, in order.
    services: Mutex<BTreeSet<String>>,
    shelf: Mutex<Shelf>,
}

impl Reflection {
    /// With the descriptors of these services' generated code. `beside` are served too.
    pub(super) fn new(routed: &[ServiceRoutes], beside: impl Iterator<Item = &'static str>) -> Self {
        let names = routed.iter().map(ServiceRoutes::name);
        let services = names.map(str::to_owned).chain(beside.chain([V1, V1_ALPHA]).map(str::to_owned)).collect();
        let mut own = Own::new(read("the gateway", Bytes::from_static(KNOWN)));
        for set in [v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            own.add(read("the gateway", Bytes::from_static(set)));
        }
        for routes in routed {
            own.add(read(routes.name(), routes.descriptors().clone()));
        }
        let shelf = Mutex::new(Shelf::new(Arc::new(Catalog::new(&own, &[]))));
        Self { own, services: Mutex::new(services), shelf }
    }

    /// Clients can call this service too.
    pub(super) fn serves(&self, service: &str) {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).insert(service.to_owned());
    }

    /// What clients can call.
    fn services(&self) -> Vec<String> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// `instance` is here, and its offer counts.
    pub(super) fn came(&self, instance: &Arc<Instance>) {
        if !instance.descriptors.is_empty() {
            self.shelf().instances.push(instance.clone());
        }
    }

    /// `instance` is gone.
    pub(super) fn went(&self, instance: &Arc<Instance>) {
        if !instance.descriptors.is_empty() {
            self.shelf().instances.retain(|other| !Arc::ptr_eq(other, instance));
        }
    }

    /// Asks `instance` for what it offers and nobody here knows yet. One question for each hash at a time, so that a
    /// fleet that comes with new descriptors is asked once.
    ///
    /// # Cancel safety
    /// Dropping the future ends the call that it may have at the instance; the next instance is asked.
    pub(super) async fn learn(&self, instance: &Arc<Instance>) {
        for hash in &instance.descriptors {
            let Some(turn) = self.shelf().turn(*hash) else { continue };
            let _mine = turn.lock().await;
            if self.shelf().turn(*hash).is_none() {
                continue;
            }
            match fetch::fetch(&instance.tunnel, hash).await {
                Ok(bytes) => self.take(instance, *hash, bytes).await,
                Err(error) => {
                    let why = error.to_string();
                    warn!(instance = %instance.id, %hash, why = shown(&why), "reflection goes without an instance's descriptors");
                }
            }
        }
    }

    /// Keeps what an instance said are its descriptors.
    async fn take(&self, instance: &Arc<Instance>, hash: Hash, bytes: Bytes) {
        let length = bytes.len();
        // Megabytes take their time, and the tunnel's reader is in this task.
        let read = tokio::task::spawn_blocking(move || (Hash::of(&bytes), Set::read(&bytes))).await;
        let Ok((found, set)) = read else { return };
        if found != hash {
            warn!(instance = %instance.id, %hash, %found, "an instance's descriptors have another hash than it said; they are not used");
            return;
        }
        let kept = set.map_err(|error| error.to_string()).and_then(|set| {
            debug!(instance = %instance.id, %hash, files = set.files.len(), bytes = length, "descriptors came");
            self.shelf().keep(hash, set, length).map_err(str::to_owned)
        });
        match kept {
            Ok(()) => drop(self.catalog()),
            Err(why) => {
                self.shelf().refuse(hash);
                warn!(instance = %instance.id, %hash, why = shown(&why), "an instance's descriptors cannot be used; reflection goes without them");
            }
        }
    }

    /// What holds now. Made anew when the offers have changed.
    fn catalog(&self) -> Arc<Catalog> {
        self.shelf().catalog(&self.own)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reflection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reflection").field("services", &self.services()).finish_non_exhaustive()
    }
}

/// Descriptors that came with the program: what is wrong with them is no reason not to serve calls.
fn read(whose: &str, descriptors: Bytes) -> Set {
    Set::read(&descriptors).unwrap_or_else(|error: BadSet| {
        warn!(service = whose, %error, "the descriptors of generated code cannot be used; reflection goes without them");
        Set::default()
    })
}

const V1: &str = "grpc.reflection.v1.ServerReflection";
const V1_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// Google's own files and `proto/options.proto`, which generated code leaves out. Written by `make proto`.
const KNOWN: &[u8] = include_bytes!("reflection/known.bin");
