//! A shared handle to one tunnel: the core behind a lock that is held for one step at a time.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use bytes::Bytes;
use grpcrouter_protocol::{
    CallId, CancelReason, Close, Config, Event, OpenCall, OpenCallError, PeerSilent, ProtocolError, ResponsePart, Time,
    Totals, Tunnel, Update, WindowPool,
};
use tokio::sync::Notify;
use tracing::trace;

use super::{CallEvent, CallSink, Started, TunnelEvents};
use crate::{clock, metrics::TunnelMeter};

/// One tunnel, from either end. Clones are the same tunnel.
#[derive(Clone)]
pub(crate) struct TunnelHandle(Arc<Shared>);

struct Shared {
    core: Mutex<Core>,
    /// Tells the attachment to look at its timer, or at the end of the tunnel, again.
    attachment: Notify,
    meter: TunnelMeter,
}

struct Core {
    tunnel: Tunnel,
    /// What of its totals the meter has been told.
    counted: Totals,
    /// By slot. The id tells a call from the one that had its slot before.
    sinks: Vec<Option<(CallId, Arc<dyn CallSink>)>>,
    /// The body that writes the batches, asleep until there is one.
    writer: Option<Waker>,
    /// When the attachment's timer goes off.
    armed: Option<Time>,
    /// We said Close; it may still have to be written.
    closing: bool,
    /// Nothing is read or written any more.
    over: bool,
}

/// What a step of the core left to be delivered, with its sink if the call had one by then.
pub(super) type Deliveries = Vec<(Option<Arc<dyn CallSink>>, Event)>;

impl TunnelHandle {
    /// The gateway's end, after Welcome was said.
    pub(crate) fn gateway(config: Config, windows: &WindowPool, meter: TunnelMeter) -> Self {
        Self::new(Tunnel::gateway(config, clock::now()).with_pool(windows.clone()), meter)
    }

    /// The instance's end, after Welcome was heard.
    pub(crate) fn instance(config: Config, meter: TunnelMeter) -> Self {
        Self::new(Tunnel::instance(config, clock::now()), meter)
    }

    fn new(tunnel: Tunnel, meter: TunnelMeter) -> Self {
        let counted = Totals::default();
        let core = Core { tunnel, counted, sinks: Vec::new(), writer: None, armed: None, closing: false, over: false };
        Self(Arc::new(Shared { core: Mutex::new(core), attachment: Notify::new(), meter }))
    }

    /// Gateway: begins a call. Tells how many more bytes may be sent now; an error gives the call back, for another
    /// instance.
    #[expect(
        clippy::result_large_err,
        reason = "an error is rare and gives the call back; a box would cost every call"
    )]
    pub(crate) fn open(&self, call: OpenCall, sink: Arc<dyn CallSink>) -> Result<usize, (OpenCallError, OpenCall)> {
        self.step(|core, now| {
            let opened = core.tunnel.open(call, now)?;
            sink.bind(opened.id);
            core.adopt(opened.id, sink);
            Ok(opened.capacity)
        })
    }

    /// Gateway: more of the request. Tells how many more bytes may be sent now.
    pub(crate) fn send(&self, call: CallId, data: Bytes, half_close: bool) -> usize {
        trace!(%call, bytes = data.len(), half_close, "part of a request");
        self.step(|core, now| core.tunnel.send(call, data, half_close, now))
    }

    /// Instance: names the sink of a call that has just started.
    pub(crate) fn adopt(&self, call: CallId, sink: Arc<dyn CallSink>) {
        self.lock().adopt(call, sink);
    }

    /// Instance: parts of the response; trailers end the call. Tells how many more bytes may be sent now.
    pub(crate) fn respond(&self, call: CallId, part: ResponsePart) -> usize {
        trace!(
            %call,
            headers = part.headers.is_some(),
            bytes = part.data.len(),
            trailers = part.trailers.is_some(),
            "part of a response"
        );
        self.step(|core, now| {
            if part.trailers.is_some() {
                core.release(call);
            }
            core.tunnel.respond(call, part, now)
        })
    }

    /// The consumer took one part of `part_len` bytes, as it was delivered.
    pub(crate) fn consumed(&self, call: CallId, part_len: usize) {
        self.step(|core, now| core.tunnel.consumed(call, part_len, now));
    }

    /// Gateway: ends the call on both sides. Nothing is delivered for it any more.
    pub(crate) fn cancel(&self, call: CallId, reason: CancelReason) {
        self.step(|core, now| {
            core.release(call);
            core.tunnel.cancel(call, reason, now);
        });
    }

    /// Takes no new call; what runs finishes.
    pub(crate) fn drain(&self) {
        self.step(|core, now| core.tunnel.drain(now));
    }

    /// Instance: says what changed in it.
    pub(crate) fn update(&self, update: Update) {
        self.step(|core, now| core.tunnel.update(update, now));
    }

    /// Ends the tunnel and, as lost, every call in it.
    pub(crate) fn close(&self, close: Close) {
        let mut due = Vec::new();
        self.step(|core, now| {
            core.tunnel.close(close, now);
            core.closing = true;
            core.collect(&mut due);
        });
        self.0.attachment.notify_one();
        self.deliver_calls(due);
    }

    pub(crate) fn open_calls(&self) -> usize {
        self.lock().tunnel.open_calls()
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().tunnel.queued_bytes()
    }

    /// No call is open, and the peer has taken all that was said: after [`drain`](Self::drain) this means that it sends
    /// no further call, and that what it sent before it knew has come and was refused.
    pub(crate) fn is_settled(&self) -> bool {
        let core = self.lock();
        core.tunnel.open_calls() == 0 && !core.tunnel.wants_transmit() && core.tunnel.unacked_bytes() == 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        let core = self.lock();
        core.over || core.tunnel.is_closed()
    }

    // ---- for the attachment

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Takes one batch; what it brought is left in `due`.
    pub(super) fn receive(&self, message: Bytes, due: &mut Deliveries) -> Result<(), ProtocolError> {
        let bytes = message.len() + PREFIX;
        let (taken, passed) = self.step(|core, now| {
            let taken = core.tunnel.handle_batch(message, now);
            core.collect(due);
            (taken, core.passed())
        });
        self.0.meter.received(bytes, passed);
        trace!(bytes, frames = passed.frames_received, "batch received");
        taken
    }

    /// Tells the core that the peer lives, though no batch of it is whole yet.
    pub(super) fn heard(&self) {
        self.step(|core, now| core.tunnel.handle_bytes(now));
    }

    /// Tells the core that time has passed.
    pub(super) fn time_passed(&self, due: &mut Deliveries) -> Result<(), PeerSilent> {
        self.step(|core, now| {
            let alive = core.tunnel.handle_timeout(now);
            core.collect(due);
            alive
        })
    }

    /// When the core wants to be told that time has passed. Remembered: an earlier wish notifies the attachment.
    pub(super) fn arm(&self) -> Option<Time> {
        let mut core = self.lock();
        core.armed = core.tunnel.poll_timeout();
        core.armed
    }

    /// Waits until the timer or the end of the tunnel is worth another look.
    pub(super) async fn attention(&self) {
        self.0.attachment.notified().await;
    }

    /// The stream is gone: every call in the tunnel ends.
    pub(super) fn lost(&self) {
        let mut due = Vec::new();
        let writer = {
            let mut core = self.lock();
            core.tunnel.lost(clock::now());
            core.collect(&mut due);
            core.over = true;
            core.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        self.deliver_calls(due);
    }

    fn sink(&self, call: CallId) -> Option<Arc<dyn CallSink>> {
        self.lock().sink(call)
    }

    /// The next batch to write; `None` and a registered `waker` if there is none. `Err` if there will be none.
    pub(super) fn next_batch(&self, waker: &Waker) -> Result<Option<Bytes>, TunnelOver> {
        let mut core = self.lock();
        if core.over {
            return Err(TunnelOver);
        }
        let batch = core.tunnel.poll_transmit(clock::now());
        if let Some(batch) = batch {
            // Writing can make room for a call whose source waits.
            let mut due = Vec::new();
            core.collect(&mut due);
            let passed = core.passed();
            drop(core);
            self.0.meter.sent(batch.len(), passed);
            trace!(bytes = batch.len(), frames = passed.frames_sent, "batch sent");
            self.deliver_calls(due);
            return Ok(Some(batch));
        }
        if core.tunnel.is_closed() {
            drop(core);
            self.0.attachment.notify_one();
            return Err(TunnelOver);
        }
        match &mut core.writer {
            Some(writer) => writer.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Ok(None)
    }

    /// Delivers what is left of the calls of a tunnel that ends.
    fn deliver_calls(&self, due: Deliveries) {
        for (sink, event) in due {
            self.deliver_call(sink, event);
        }
    }

    /// Hands one event to its call, or to `events` if it is of no live call.
    pub(super) fn deliver(&self, sink: Option<Arc<dyn CallSink>>, event: Event, events: &dyn TunnelEvents) {
        match event {
            Event::Started { call, start, deadline, data, half_close } => {
                events.started(self, Started { call, start, deadline, data, half_close });
            }
            Event::Draining { gateways } => events.draining(gateways),
            Event::Updated(update) => events.updated(update),
            Event::Closed(close) => events.closed(&close),
            event => self.deliver_call(sink, event),
        }
    }

    fn deliver_call(&self, sink: Option<Arc<dyn CallSink>>, event: Event) {
        let (call, event) = match event {
            Event::Response { call, headers, data, trailers } => {
                (call, CallEvent::Response { headers, data, trailers })
            }
            Event::Request { call, data, half_close } => (call, CallEvent::Request { data, half_close }),
            Event::Writable { call, capacity } => (call, CallEvent::Writable { capacity }),
            Event::Refused { call, request } => (call, CallEvent::Refused(request)),
            Event::Ended { call, reason } => (call, CallEvent::Ended(reason)),
            Event::Leased { call, lease } => (call, CallEvent::Leased(lease)),
            _ => return,
        };
        trace!(%call, what = event.name(), bytes = event.data_len(), "delivered");
        if let Some(sink) = sink {
            sink.deliver(call, event);
        } else if let Some(sink) = self.sink(call) {
            // The call was adopted after this was collected: both came in one batch.
            if event.is_last() {
                self.lock().release(call);
            }
            sink.deliver(call, event);
        }
    }

    /// One step of the core; then wakes whoever has work from it, without the lock.
    fn step<R>(&self, step: impl FnOnce(&mut Core, Time) -> R) -> R {
        let mut core = self.lock();
        let result = step(&mut core, clock::now());
        let writer = if core.writer.is_some() && core.tunnel.wants_transmit() { core.writer.take() } else { None };
        let due = core.tunnel.poll_timeout();
        let sooner = match (due, core.armed) {
            (Some(due), Some(armed)) => due < armed,
            (due, None) => due.is_some(),
            (None, _) => false,
        };
        if sooner {
            core.armed = due;
        }
        drop(core);
        if let Some(writer) = writer {
            writer.wake();
        }
        if sooner {
            self.0.attachment.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// What has passed since this was last asked.
    fn passed(&mut self) -> Totals {
        let now = self.tunnel.totals();
        let before = std::mem::replace(&mut self.counted, now);
        Totals {
            frames_sent: now.frames_sent - before.frames_sent,
            frames_received: now.frames_received - before.frames_received,
            stalls: now.stalls - before.stalls,
        }
    }

    fn adopt(&mut self, call: CallId, sink: Arc<dyn CallSink>) {
        let slot = call.slot();
        if slot >= self.sinks.len() {
            self.sinks.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.sinks.get_mut(slot) {
            *place = Some((call, sink));
        }
    }

    fn sink(&self, call: CallId) -> Option<Arc<dyn CallSink>> {
        match self.sinks.get(call.slot()) {
            Some(Some((id, sink))) if *id == call => Some(sink.clone()),
            _ => None,
        }
    }

    fn release(&mut self, call: CallId) {
        if let Some(place) = self.sinks.get_mut(call.slot())
            && place.as_ref().is_some_and(|(id, _)| *id == call)
        {
            *place = None;
        }
    }

    /// Moves the core's events out, so that they can be delivered without the lock.
    fn collect(&mut self, due: &mut Deliveries) {
        while let Some(event) = self.tunnel.poll_event() {
            let sink = match &event {
                Event::Response { call, trailers, .. } => {
                    let sink = self.sink(*call);
                    if trailers.is_some() {
                        self.release(*call);
                    }
                    sink
                }
                Event::Refused { call, .. } | Event::Ended { call, .. } => {
                    let sink = self.sink(*call);
                    self.release(*call);
                    sink
                }
                Event::Request { call, .. } | Event::Writable { call, .. } | Event::Leased { call, .. } => {
                    self.sink(*call)
                }
                _ => None,
            };
            due.push((sink, event));
        }
    }
}

/// gRPC's prefix of a message; what is written has it, what is read has lost it.
const PREFIX: usize = 5;

/// Nothing will be written to this stream any more.
#[derive(Debug)]
pub(super) struct TunnelOver;

impl fmt::Debug for TunnelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.lock();
        f.debug_struct("TunnelHandle").field("open_calls", &core.tunnel.open_calls()).finish_non_exhaustive()
    }
}
