//! One call that came through a tunnel: takes what the tunnel delivers and carries the answer back into it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use grpcrouter_protocol::{CallId, EndReason, ResponsePart};

use super::answering::{Outlet, Over};
use super::request_body::Upload;
use crate::tunnel::{CallEvent, CallSink, TunnelHandle};

/// Shared by the tunnel (which delivers), the request body (which the service reads) and the call's task.
#[derive(Debug)]
pub(super) struct InstanceCall {
    tunnel: TunnelHandle,
    id: CallId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) upload: Upload,
    /// The capacity that came back since the last answer found none.
    writable: Option<usize>,
    over: Option<Over>,
    /// The call's task, asleep.
    task: Option<Waker>,
}

impl InstanceCall {
    pub(super) fn new(tunnel: TunnelHandle, id: CallId) -> Self {
        Self { tunnel, id, state: Mutex::default() }
    }

    /// The lock is held for a few moves and never while anything else is called.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service took one part of the request.
    pub(super) fn consumed(&self, len: usize) {
        self.tunnel.consumed(self.id, len);
    }
}

impl CallSink for InstanceCall {
    /// An instance learns the id with the call.
    fn bind(&self, _: CallId) {}

    fn deliver(&self, _: CallId, event: CallEvent) {
        let mut state = self.state();
        let waker = match event {
            CallEvent::Request { data, half_close } => state.upload.push(data, half_close),
            CallEvent::Writable { capacity } => {
                state.writable = Some(capacity);
                state.task.take()
            }
            CallEvent::Ended(reason) => {
                state.over = Some(match reason {
                    EndReason::Deadline => Over::Deadline,
                    EndReason::Cancelled(_) | EndReason::Violation(_) | EndReason::Lost(_) => Over::Gone,
                });
                state.task.take()
            }
            // What waits of a request goes with its handler, and the call is not over before that.
            CallEvent::Leased(_) => None,
            // A gateway's events.
            CallEvent::Response { .. } | CallEvent::Refused(_) => None,
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The way back into the tunnel.
#[derive(Debug)]
pub(super) struct TunnelOutlet(Arc<InstanceCall>);

impl TunnelOutlet {
    pub(super) fn new(call: Arc<InstanceCall>) -> Self {
        Self(call)
    }
}

impl Outlet for TunnelOutlet {
    fn send(&mut self, part: ResponsePart) -> usize {
        self.0.tunnel.respond(self.0.id, part)
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut state = self.0.state();
        if let Some(capacity) = state.writable.take() {
            return Poll::Ready(capacity);
        }
        state.task = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let mut state = self.0.state();
        if let Some(over) = state.over {
            return Poll::Ready(over);
        }
        state.task = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for TunnelOutlet {
    /// The handler is gone by now; what it left behind must not wait for ever.
    fn drop(&mut self) {
        let waker = self.0.state().upload.break_off();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
