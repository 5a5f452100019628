//! Hello and Welcome: the messages before there is a tunnel, and what the two ends agree on.
//! Messages come in without gRPC's five-byte prefix and go out with it.

use bytes::Bytes;

use crate::codec;
use crate::config::Config;
use crate::error::ProtocolError;
use crate::frame::{Close, Hello, RejectReason, Rejected, Welcome};
use crate::id::Side;

/// What an instance and a gateway agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The version to speak: the highest that both know.
    pub version: u32,
    /// The features that both named.
    pub features: Vec<String>,
    /// Calls that may be open at once: the lower of both limits.
    pub max_open_calls: u32,
}

/// Reads the first message of an instance.
///
/// # Errors
/// The message is not one Hello, or something in it cannot be; the text is for the instance's owner.
pub fn decode_hello(message: Bytes) -> Result<Hello, ProtocolError> {
    codec::handshake::decode_hello(message)
}

/// Writes the first message of an instance.
pub fn encode_hello(hello: &Hello) -> Bytes {
    codec::handshake::encode_hello(hello)
}

/// Reads the gateway's answer to Hello. A gateway that closes instead of answering gives an error with its reason.
///
/// # Errors
/// The message is not one Welcome, or something in it cannot be.
pub fn decode_welcome(message: Bytes) -> Result<Welcome, ProtocolError> {
    codec::handshake::decode_welcome(message)
}

/// Writes the gateway's answer to Hello.
pub fn encode_welcome(welcome: &Welcome) -> Bytes {
    codec::handshake::encode_welcome(welcome)
}

/// Writes a Close for a stream that has no tunnel; in a tunnel use [`Tunnel::close`](crate::Tunnel::close).
pub fn encode_close(side: Side, close: &Close) -> Bytes {
    codec::handshake::encode_close(side, close)
}

/// What a gateway with these limits agrees on with an instance that says this Hello.
///
/// # Errors
/// The rejection to send: no common version, or an instance that takes no call at all.
pub fn agree(hello: &Hello, config: &Config) -> Result<Agreement, Rejected> {
    let lowest = *hello.versions.start().max(Config::VERSIONS.start());
    let version = *hello.versions.end().min(Config::VERSIONS.end());
    if version < lowest {
        let message = format!("this gateway speaks versions {:?}, the instance {:?}", Config::VERSIONS, hello.versions);
        return Err(Rejected { versions: Some(Config::VERSIONS), ..rejected(RejectReason::Version, message) });
    }
    if hello.max_calls == 0 {
        return Err(rejected(RejectReason::Invalid, "max_calls is 0: the instance takes no call".to_owned()));
    }
    let max_open_calls = u32::try_from(hello.max_calls).unwrap_or(u32::MAX).min(config.max_open_calls);
    // No feature exists yet, so none is common.
    Ok(Agreement { version, features: Vec::new(), max_open_calls })
}

fn rejected(reason: RejectReason, message: String) -> Rejected {
    Rejected { reason, message, retry_after: std::time::Duration::ZERO, gateways: Vec::new(), versions: None }
}
