//! A client of `grpcrouter.Admin`.

/// What is generated from proto/admin.proto.
#[rustfmt::skip]
#[allow(missing_docs, missing_debug_implementations, clippy::all, reason = "the generators' own style")]
pub mod proto {
    include!("generated/admin.rs");
}
