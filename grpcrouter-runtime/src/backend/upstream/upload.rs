//! The request of one call on its way to an upstream. What was sent is kept for a moment: an upstream that refuses the
//! call before it has begun gets it again on another stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;
use tonic::body::Body;

/// A request body, and how much of it went out.
pub(super) struct Upload {
    body: Body,
    /// The body has ended cleanly.
    ended: bool,
    /// What went out so far, while it can be sent again.
    kept: Vec<Bytes>,
    kept_len: usize,
    can_replay: bool,
    outgoing: Option<Outgoing>,
}

/// One stream to the upstream.
struct Outgoing {
    stream: SendStream<Bytes>,
    /// How many of the kept parts were taken for this stream.
    taken: usize,
    /// The part that is being sent.
    part: Bytes,
}

impl Upload {
    pub(super) fn new(body: Body) -> Self {
        let ended = body.is_end_stream();
        Self { body, ended, kept: Vec::new(), kept_len: 0, can_replay: true, outgoing: None }
    }

    /// Whether headers alone are the whole request.
    pub(super) fn is_empty(&self) -> bool {
        self.ended && self.kept.is_empty()
    }

    /// From now on to this stream, from the beginning. `None`: headers were all.
    pub(super) fn start(&mut self, stream: Option<SendStream<Bytes>>) {
        self.outgoing = stream.map(|stream| Outgoing { stream, taken: 0, part: Bytes::new() });
    }

    /// Whether all of it can be sent once more.
    pub(super) fn can_replay(&self) -> bool {
        self.can_replay
    }

    /// The upstream has begun with the call: it is sent once.
    pub(super) fn forget(&mut self) {
        self.can_replay = false;
        let taken = self.outgoing.as_ref().map_or(self.kept.len(), |outgoing| outgoing.taken);
        self.kept.drain(..taken.min(self.kept.len()));
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.taken = 0;
        }
    }

    /// Sends what can be sent. Ready when nothing more is to be sent, for whatever reason: what became of the call
    /// tells the response.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = ready!(self.poll_send(cx));
        if let Some(mut outgoing) = self.outgoing.take()
            && matches!(over, Over::Broken)
        {
            // Never a clean end: the service would take a part for the whole.
            outgoing.stream.send_reset(Reason::CANCEL);
        }
        Poll::Ready(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        loop {
            let Some(outgoing) = &mut self.outgoing else { return Poll::Ready(Over::Done) };
            if !outgoing.part.is_empty() {
                outgoing.stream.reserve_capacity(outgoing.part.len());
                // poll_capacity only tells of changes, and may tell of one that is used up again.
                while outgoing.stream.capacity() == 0 {
                    match ready!(outgoing.stream.poll_capacity(cx)) {
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return Poll::Ready(Over::Done),
                    }
                }
                let piece = outgoing.part.split_to(outgoing.stream.capacity().min(outgoing.part.len()));
                let is_last = outgoing.part.is_empty() && outgoing.taken >= self.kept.len() && self.ended;
                if outgoing.stream.send_data(piece, is_last).is_err() || is_last {
                    return Poll::Ready(Over::Done);
                }
                continue;
            }
            if let Some(part) = self.kept.get(outgoing.taken) {
                outgoing.part = part.clone();
                outgoing.taken += 1;
                continue;
            }
            if self.ended {
                let _ = outgoing.stream.send_data(Bytes::new(), true);
                return Poll::Ready(Over::Done);
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(part) = frame.into_data() else { continue };
                    self.ended = self.body.is_end_stream();
                    self.take(part);
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Over::Broken),
                Poll::Ready(None) => self.ended = true,
                // An upstream that has heard enough says so.
                Poll::Pending => return outgoing.stream.poll_reset(cx).map(|_| Over::Done),
            }
        }
    }

    fn take(&mut self, part: Bytes) {
        let Some(outgoing) = &mut self.outgoing else { return };
        self.kept_len += part.len();
        if self.can_replay && self.kept_len <= MAX_KEPT {
            self.kept.push(part.clone());
            outgoing.taken = self.kept.len();
        } else {
            self.can_replay = false;
            self.kept = Vec::new();
            outgoing.taken = 0;
        }
        outgoing.part = part;
    }
}

/// How an upload is over.
enum Over {
    /// All is sent, or nobody wants it.
    Done,
    /// The client did not end it.
    Broken,
}

/// Bytes of a request that are kept until the upstream begins to answer: a window of the tunnel.
const MAX_KEPT: usize = 64 * 1024;
