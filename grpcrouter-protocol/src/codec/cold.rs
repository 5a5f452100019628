//! The frames of which a tunnel carries few, by prost, and the small messages inside the hot ones.
//! Numbers on the wire that this version does not know become what a careful end does with them.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::batch::BatchWriter;
use super::{handshake, millis};
use crate::error::ProtocolError;
use crate::frame::{CancelReason, Close, CloseCode, Health, Update};
use crate::id::Side;
use crate::varint::Reader;
use crate::wire;

/// The most bytes that a ping may ask to have echoed; ours have 8.
const MAX_OPAQUE: usize = 64;

// Each gives back false if the frame does not fit and must wait for the next batch.
impl BatchWriter<'_> {
    /// Adds a Ping.
    pub(crate) fn ping(&mut self, opaque: &Bytes) -> bool {
        self.state(3, &wire::Ping { opaque: opaque.clone() })
    }

    /// Adds a Pong.
    pub(crate) fn pong(&mut self, opaque: &Bytes) -> bool {
        self.state(4, &wire::Pong { opaque: opaque.clone() })
    }

    /// Adds a Close.
    pub(crate) fn close(&mut self, close: &Close) -> bool {
        self.state(5, &to_close(close))
    }

    /// Adds a Drain that `side` says.
    pub(crate) fn drain(&mut self, side: Side, gateways: &[String]) -> bool {
        let number = match side {
            Side::Gateway => 6,
            Side::Instance => 8,
        };
        let is_added = self.state(number, &wire::Drain { gateways: gateways.to_vec() });
        if mutant!(DrainNotNumbered) { is_added } else { self.number_if(is_added) }
    }

    /// Adds a PeersChanged.
    pub(crate) fn peers_changed(&mut self, gateways: &[String]) -> bool {
        let is_added = self.state(7, &wire::PeersChanged { gateways: gateways.to_vec() });
        self.number_if(is_added)
    }

    /// Adds an Update.
    pub(crate) fn update(&mut self, update: &Update) -> bool {
        let Update { version, health, weight, labels, load_permille, not_serving } = update;
        let health = health_number(*health);
        let (version, weight, load_permille) = (*version, *weight, *load_permille);
        let (labels, not_serving) = (labels.clone(), not_serving.clone());
        self.state(6, &wire::Update { version, health, weight, labels, load_permille, not_serving })
    }

    /// Adds a MaxCalls.
    pub(crate) fn max_calls(&mut self, limit: u64) -> bool {
        self.state(7, &wire::MaxCalls { limit })
    }
}

pub(super) fn read_opaque(message: &Bytes, bytes: &[u8]) -> Result<Bytes, ProtocolError> {
    let mut opaque = Bytes::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, content)) = reader.next_field()? {
        if number == 1 {
            opaque = message.slice_ref(content.message()?);
        }
    }
    if opaque.len() > MAX_OPAQUE {
        return Err(ProtocolError::TooLarge { what: "a ping", size: opaque.len(), limit: MAX_OPAQUE });
    }
    Ok(opaque)
}

pub(super) fn read_close(bytes: &[u8]) -> Result<Close, ProtocolError> {
    Ok(from_close(read(bytes)?))
}

pub(super) fn read_drain(bytes: &[u8]) -> Result<Vec<String>, ProtocolError> {
    Ok(read::<wire::Drain>(bytes)?.gateways)
}

pub(super) fn read_peers(bytes: &[u8]) -> Result<Vec<String>, ProtocolError> {
    Ok(read::<wire::PeersChanged>(bytes)?.gateways)
}

pub(super) fn read_update(bytes: &[u8]) -> Result<Update, ProtocolError> {
    let wire::Update { version, health, weight, labels, load_permille, not_serving } = read(bytes)?;
    handshake::check_labels(&labels)?;
    handshake::check_services(&not_serving)?;
    Ok(Update { version, health: health_of(health), weight: weight.max(1), labels, load_permille, not_serving })
}

pub(super) fn read_max_calls(bytes: &[u8]) -> Result<u64, ProtocolError> {
    let mut limit = 0;
    let mut reader = Reader::new(bytes);
    while let Some((number, content)) = reader.next_field()? {
        if number == 1 {
            limit = content.varint()?;
        }
    }
    Ok(limit)
}

pub(super) fn read_cancel(bytes: &[u8]) -> Result<CancelReason, ProtocolError> {
    let mut reason = 0;
    let mut reader = Reader::new(bytes);
    while let Some((number, content)) = reader.next_field()? {
        if number == 1 {
            reason = content.varint()?;
        }
    }
    Ok(match reason {
        2 => CancelReason::Deadline,
        3 => CancelReason::Violation,
        4 => CancelReason::Shutdown,
        // A reason that this version does not know still ends the call.
        _ => CancelReason::ClientGone,
    })
}

pub(super) const fn cancel_number(reason: CancelReason) -> u8 {
    match reason {
        CancelReason::ClientGone => 1,
        CancelReason::Deadline => 2,
        CancelReason::Violation => 3,
        CancelReason::Shutdown => 4,
    }
}

pub(super) fn read_refused(bytes: &[u8]) -> Result<Duration, ProtocolError> {
    let mut wait = 0;
    let mut reader = Reader::new(bytes);
    while let Some((number, content)) = reader.next_field()? {
        if number == 1 {
            wait = content.varint()?;
        }
    }
    Ok(Duration::from_millis(wait))
}

pub(super) fn to_close(close: &Close) -> wire::Close {
    let code = match close.code {
        CloseCode::Unspecified => wire::close::Code::Unspecified,
        CloseCode::NoError => wire::close::Code::NoError,
        CloseCode::ProtocolError => wire::close::Code::ProtocolError,
        CloseCode::FlowControlError => wire::close::Code::FlowControlError,
        CloseCode::Replaced => wire::close::Code::Replaced,
        CloseCode::Shutdown => wire::close::Code::Shutdown,
        CloseCode::Internal => wire::close::Code::Internal,
        CloseCode::PermissionDenied => wire::close::Code::PermissionDenied,
    };
    wire::Close { code: code.into(), reason: close.reason.clone(), retry_after_millis: millis(close.retry_after) }
}

pub(super) fn from_close(close: wire::Close) -> Close {
    let code = match close.code() {
        wire::close::Code::Unspecified => CloseCode::Unspecified,
        wire::close::Code::NoError => CloseCode::NoError,
        wire::close::Code::ProtocolError => CloseCode::ProtocolError,
        wire::close::Code::FlowControlError => CloseCode::FlowControlError,
        wire::close::Code::Replaced => CloseCode::Replaced,
        wire::close::Code::Shutdown => CloseCode::Shutdown,
        wire::close::Code::Internal => CloseCode::Internal,
        wire::close::Code::PermissionDenied => CloseCode::PermissionDenied,
    };
    Close { code, reason: close.reason, retry_after: Duration::from_millis(close.retry_after_millis) }
}

pub(super) fn health_number(health: Health) -> i32 {
    match health {
        Health::Unknown => wire::Health::Unknown,
        Health::Serving => wire::Health::Serving,
        Health::NotServing => wire::Health::NotServing,
    }
    .into()
}

pub(super) fn health_of(number: i32) -> Health {
    match wire::Health::try_from(number) {
        Ok(wire::Health::Serving) => Health::Serving,
        Ok(wire::Health::NotServing) => Health::NotServing,
        Ok(wire::Health::Unknown) | Err(_) => Health::Unknown,
    }
}

fn read<M: Message + Default>(bytes: &[u8]) -> Result<M, ProtocolError> {
    M::decode(bytes).map_err(|_| ProtocolError::Malformed("a frame of state"))
}
