//! The request body that a service reads: a queue that the tunnel fills, within the call's window.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use super::instance_call::InstanceCall;
use crate::tunnel::kept;

/// What a service reads of a call that came through a tunnel.
///
/// It ends only when the client has half-closed. A call that ends before that leaves it waiting: its handler is
/// about to be dropped, and must not take half an upload for a whole one.
#[derive(Debug)]
pub(super) struct RequestBody(Arc<InstanceCall>);

impl RequestBody {
    pub(super) fn new(call: Arc<InstanceCall>) -> Self {
        Self(call)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let part = match self.0.state().upload.poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(part) => part,
        };
        Poll::Ready(part.map(|part| {
            let part = part?;
            self.0.consumed(part.len());
            Ok(Frame::data(part))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.state().upload.is_over()
    }
}

impl Drop for RequestBody {
    /// Nobody reads any more: what waits is let go, and its credit is not given back, so that the client stops.
    fn drop(&mut self) {
        self.0.state().upload.close();
    }
}

/// The parts of a request that have come and are not yet read.
#[derive(Debug, Default)]
pub(super) struct Upload {
    parts: VecDeque<Bytes>,
    half_closed: bool,
    closed: bool,
    /// The call is over and its handler is gone; only something that the handler left behind can still read.
    broken: bool,
    reader: Option<Waker>,
}

impl Upload {
    /// Takes what came; the reader to wake, without any lock held.
    pub(super) fn push(&mut self, data: Bytes, half_close: bool) -> Option<Waker> {
        if !data.is_empty() && !self.closed {
            // The first may be all there is, and is mostly taken at once.
            self.parts.push_back(if self.parts.is_empty() { data } else { kept(data) });
        }
        self.half_closed |= half_close;
        self.reader.take()
    }

    /// The call is over and its handler was dropped; whoever still reads hears of it.
    pub(super) fn break_off(&mut self) -> Option<Waker> {
        self.broken = true;
        self.reader.take()
    }

    fn close(&mut self) {
        self.closed = true;
        self.parts.clear();
    }

    fn is_over(&self) -> bool {
        self.half_closed && self.parts.is_empty()
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.broken && !self.half_closed {
            // Not CANCELLED: tonic would show that to a handler as a clean end.
            return Poll::Ready(Some(Err(Status::unavailable("the call ended before the client had sent all"))));
        }
        if let Some(part) = self.parts.pop_front() {
            return Poll::Ready(Some(Ok(part)));
        }
        if self.half_closed {
            return Poll::Ready(None);
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn poll(upload: &mut Upload) -> Poll<Option<Result<Bytes, tonic::Code>>> {
        upload.poll(&Context::from_waker(Waker::noop())).map_err(|status| status.code())
    }

    #[test]
    fn parts_come_out_in_order_and_the_end_only_after_the_half_close() {
        let mut upload = Upload::default();
        upload.push(Bytes::from_static(b"a"), false);
        upload.push(Bytes::from_static(b"b"), false);

        assert_eq!(poll(&mut upload), Poll::Ready(Some(Ok(Bytes::from_static(b"a")))));
        assert_eq!(poll(&mut upload), Poll::Ready(Some(Ok(Bytes::from_static(b"b")))));
        assert_eq!(poll(&mut upload), Poll::Pending);

        assert!(upload.push(Bytes::new(), true).is_some());
        assert!(upload.is_over());
        assert_eq!(poll(&mut upload), Poll::Ready(None));
    }

    #[test]
    fn a_broken_upload_is_an_error_that_tonic_does_not_take_for_a_clean_end() {
        let mut upload = Upload::default();
        upload.push(Bytes::from_static(b"a"), false);
        assert_eq!(poll(&mut upload), Poll::Ready(Some(Ok(Bytes::from_static(b"a")))));
        assert_eq!(poll(&mut upload), Poll::Pending);

        assert!(upload.break_off().is_some());

        assert_eq!(poll(&mut upload), Poll::Ready(Some(Err(tonic::Code::Unavailable))));
    }

    #[test]
    fn an_upload_that_was_complete_stays_complete() {
        let mut upload = Upload::default();
        upload.push(Bytes::from_static(b"a"), true);
        upload.break_off();

        assert_eq!(poll(&mut upload), Poll::Ready(Some(Ok(Bytes::from_static(b"a")))));
        assert_eq!(poll(&mut upload), Poll::Ready(None));
    }

    #[test]
    fn a_small_part_that_waits_behind_another_does_not_keep_its_batch() {
        let batch = Bytes::from(vec![7; 1000]);
        let mut upload = Upload::default();
        upload.push(batch.slice(..10), false);
        upload.push(batch.slice(10..20), false);

        let at_batch: Vec<_> = upload.parts.iter().map(|part| batch.as_ptr_range().contains(&part.as_ptr())).collect();

        assert_eq!(at_batch, [true, false]);
    }

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let mut upload = Upload::default();
        upload.push(Bytes::from_static(b"a"), false);
        upload.close();
        upload.push(Bytes::from_static(b"b"), false);

        assert!(upload.parts.is_empty());
    }
}
