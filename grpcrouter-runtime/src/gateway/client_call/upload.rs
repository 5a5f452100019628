//! The request of a call on its way from the client's HTTP/2 stream into its tunnel.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use grpcrouter_protocol::{CallId, OpenCall};
use h2::RecvStream;

use super::staging::Staging;
use crate::{
    gateway::{
        edge::{Breach, Messages},
        retries::Kept,
    },
    tunnel::TunnelHandle,
};

/// The receiving half of a client's stream, and what waits for credit in the tunnel.
///
/// Every frame is taken out of h2 at once, into one buffer, for h2 ends the whole connection when many small ones wait in
/// it. What is here has not been released to the client's window yet, so there is never more than one window of it.
#[derive(Debug)]
pub(super) struct Upload {
    /// `None` when the client's whole request is with the tunnel.
    stream: Option<RecvStream>,
    staging: Staging,
    /// The client has half-closed.
    ended: bool,
    /// What the tunnel takes now.
    capacity: usize,
    sent: Sent,
    /// All that the tunnel was given, of a call that may be executed twice.
    kept: Option<Box<Kept>>,
    messages: Messages,
}

/// Why a request is not carried on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client did not send all and will not: it reset its stream, or its connection is gone.
    Gone,
    /// Its messages are not what they may be.
    Messages(Breach),
}

impl Upload {
    pub(super) fn new(stream: RecvStream, messages: Messages) -> Self {
        Self {
            stream: Some(stream),
            staging: Staging::default(),
            ended: false,
            capacity: 0,
            sent: Sent::default(),
            kept: None,
            messages,
        }
    }

    /// Takes all that has come; `cx` is told when more does.
    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.ended) else { return Ok(()) };
        while !self.ended {
            match stream.poll_data(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(data))) => {
                    self.messages.pass(&data).map_err(Broken::Messages)?;
                    self.staging.push(data);
                    self.ended = stream.is_end_stream();
                }
                Poll::Ready(Some(Err(_))) => return Err(Broken::Gone),
                Poll::Ready(None) => match poll_end(stream, cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(true) => self.ended = true,
                    Poll::Ready(false) => return Err(Broken::Gone),
                },
            }
        }
        self.messages.end().map_err(Broken::Messages)
    }

    /// Adds what goes with the start of the call, and whether that is all.
    pub(super) fn begin(&mut self, open: &mut OpenCall, may_repeat: bool) {
        open.data = self.staging.pop(FIRST);
        open.half_close = self.ended && self.staging.is_empty();
        self.sent.total = open.data.len();
        self.release(open.data.len(), open.half_close);
        if may_repeat {
            self.kept = Kept::of(open);
        }
    }

    /// The response begins: from now on the call can only go on where it is.
    pub(super) fn answered(&mut self) {
        self.kept = None;
    }

    /// The call as far as it went, to be opened elsewhere though it may have been executed. Once: what ends one instance
    /// after another must not go round them all.
    pub(super) fn kept(&mut self) -> Option<OpenCall> {
        self.kept.take().map(|kept| kept.call())
    }

    /// What has come and is not with a tunnel yet.
    pub(super) fn come(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.staging.parts()
    }

    /// Whether the client has half-closed.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Completes a call that came back from its instance.
    pub(super) fn restore(&self, call: &mut OpenCall) {
        self.sent.restore(&mut call.data);
        call.half_close = self.stream.is_none();
    }

    /// Bytes that wait for credit.
    pub(super) fn queued_bytes(&self) -> usize {
        self.staging.len()
    }

    /// The tunnel takes so many bytes now.
    pub(super) fn allow(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Sends what has come, as far as the tunnel takes it, and the half-close after the last of it.
    pub(super) fn hand_over(&mut self, tunnel: &TunnelHandle, call: CallId) {
        while self.stream.is_some() {
            let empty = self.staging.is_empty();
            if if empty { !self.ended } else { self.capacity == 0 } {
                return;
            }
            let data = self.staging.pop(self.capacity);
            let half_close = self.ended && self.staging.is_empty();
            if self.kept.as_mut().is_some_and(|kept| !kept.more(&data)) {
                self.kept = None;
            }
            self.capacity = tunnel.send(call, data.clone(), half_close);
            self.release(data.len(), half_close);
            if !data.is_empty() {
                self.sent.total += data.len();
                self.sent.last = data;
            }
        }
    }

    /// The tunnel has so much more, so the client may send as much again.
    fn release(&mut self, length: usize, half_close: bool) {
        if length > 0
            && let Some(stream) = &mut self.stream
        {
            // Fails only for more than was received.
            let _ = stream.flow_control().release_capacity(length);
        }
        if half_close {
            self.stream = None;
        }
    }
}

/// What the tunnel was given, for a call that comes back.
#[derive(Debug, Default)]
struct Sent {
    /// Bytes in all.
    total: usize,
    /// The newest of them, but for those that went with the start.
    last: Bytes,
}

impl Sent {
    /// Adds to `data`, which the tunnel gave back, what it did not take: what was given to it after it had ended the
    /// call, and before we knew. That is at most the last, for it gives no more credit to such a call.
    fn restore(&self, data: &mut Bytes) {
        let missing = self.total.saturating_sub(data.len()).min(self.last.len());
        if missing > 0 {
            let mut all = BytesMut::with_capacity(data.len() + missing);
            all.extend_from_slice(data);
            all.extend_from_slice(self.last.get(self.last.len() - missing..).unwrap_or_default());
            *data = all.freeze();
        }
    }
}

/// After the last data: whether the client truly ended its stream. An end without END_STREAM is a broken upload, never a
/// half-close.
fn poll_end(stream: &mut RecvStream, cx: &mut Context<'_>) -> Poll<bool> {
    // gRPC clients send no trailers; what comes nevertheless means nothing.
    let trailers = ready!(stream.poll_trailers(cx));
    Poll::Ready(trailers.is_ok() && stream.is_end_stream())
}

/// Bytes that go with the start: half of a call's first window, as one part's charge comes on top.
const FIRST: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_comes_back_is_completed_with_what_its_tunnel_no_longer_took() {
        let sent = Sent { total: 10, last: Bytes::from_static(b"789A") };

        for back in ["123456789A", "123456"] {
            let mut data = Bytes::from_static(back.as_bytes());
            sent.restore(&mut data);
            assert_eq!(data, "123456789A", "{back} came back");
        }
    }

    #[test]
    fn a_call_that_went_with_its_start_alone_comes_back_as_it_was() {
        let mut data = Bytes::from_static(b"12345");

        Sent { total: 5, last: Bytes::new() }.restore(&mut data);

        assert_eq!(data, "12345");
    }
}
