//! With what a call is let in: where it comes from, who vouches for it, and what it holds for as long as it runs.

use std::{fmt, net::IpAddr, sync::Arc};

use http::HeaderMap;

use super::{peer::Peer, registry::Instance};
use crate::{metadata::Vouched, status::Answer};

/// Where a call comes from.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    /// A client, who is asked who it is.
    Client(&'a Peer),
    /// This process, which asked before if it wanted to know.
    Inside {
        /// The only instance that may have the call, if its caller chose.
        pinned: Option<Arc<Instance>>,
        vouched: Vouched,
    },
}

/// What a gate looks at.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// None if nobody knows it.
    pub(super) address: Option<IpAddr>,
}

/// Decides which calls of clients are let in.
pub(super) trait Gate: fmt::Debug + Send + Sync {
    /// # Errors
    /// What to answer instead of letting the call in.
    fn check(&self, asked: &Asked<'_>) -> Result<Pass, Answer>;
}

/// A call may come in.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) vouched: Vouched,
    pub(super) held: Held,
}

/// What is given back when the call is over, by being dropped. Empty for most, which costs nothing.
pub(super) type Held = Vec<Box<dyn fmt::Debug + Send + Sync>>;
