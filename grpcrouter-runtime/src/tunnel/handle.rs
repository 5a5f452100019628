//! A shared handle to one tunnel: the core behind a lock that is held for one step at a time.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use bytes::Bytes;
use grpcrouter_protocol::{
    CallId, CancelReason, Close, Config, Epoch, Event, FreshToken, OpenCall, OpenCallError, PeerSilent, ProtocolError,
    ResponsePart, Resume, ResumeError, ResumePoint, Resumed, Time, TokenHash, Totals, Tunnel, Update, WindowPool,
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
    /// Held by who runs the tunnel: on a stream, or while no stream carries it. The next one waits for the last, so that
    /// what the last one has read is delivered first.
    running: tokio::sync::Mutex<()>,
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
    /// Somebody runs the tunnel: then it is who delivers events, all of them and in their order.
    runs: bool,
    /// Tells who runs the tunnel to look at its timer, or at the end of the tunnel, again. Another one with each stream:
    /// who ran it on the last one must hear of that.
    attention: Arc<Notify>,
    /// When the timer of who runs the tunnel goes off.
    armed: Option<Time>,
    /// We said Close; it may still have to be written.
    closing: bool,
    /// Nothing is read or written any more.
    over: bool,
}

/// What a step of the core left to be delivered, with its sink if the call had one by then.
pub(super) type Deliveries = Vec<(Option<Arc<dyn CallSink>>, Event)>;

impl TunnelHandle {
    /// The gateway's end, after Welcome was said; `token` resumes it.
    pub(crate) fn gateway(config: Config, windows: &WindowPool, meter: TunnelMeter, token: TokenHash) -> Self {
        Self::new(Tunnel::gateway(config, clock::now()).with_pool(windows.clone()).with_token(token), meter)
    }

    /// The instance's end, after Welcome was heard.
    pub(crate) fn instance(config: Config, meter: TunnelMeter) -> Self {
        Self::new(Tunnel::instance(config, clock::now()), meter)
    }

    fn new(tunnel: Tunnel, meter: TunnelMeter) -> Self {
        let counted = Totals::default();
        let core = Core {
            tunnel,
            counted,
            sinks: Vec::new(),
            writer: None,
            runs: false,
            attention: Arc::default(),
            armed: None,
            closing: false,
            over: false,
        };
        Self(Arc::new(Shared { core: Mutex::new(core), running: tokio::sync::Mutex::default(), meter }))
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

    /// Gateway: says that it stops, and which other gateways there are.
    pub(crate) fn drain_to(&self, gateways: Vec<String>) {
        self.step(|core, now| core.tunnel.drain_to(gateways, now));
    }

    /// Gateway: says which other gateways there are now.
    pub(crate) fn peers_changed(&self, gateways: Vec<String>) {
        self.step(|core, now| core.tunnel.peers_changed(gateways, now));
    }

    /// Instance: says what changed in it.
    pub(crate) fn update(&self, update: Update) {
        self.step(|core, now| core.tunnel.update(update, now));
    }

    /// Ends the tunnel and, as lost, every call in it.
    pub(crate) fn close(&self, close: Close) {
        self.turn(|core, now| {
            core.tunnel.close(close, now);
            core.closing = true;
        });
    }

    // ---- which stream carries it

    /// Gateway: gives the tunnel to the stream whose Hello said this; the one that had it ends.
    pub(crate) fn resume(&self, resume: &Resume, shown: TokenHash, fresh: FreshToken) -> Result<Resumed, ResumeError> {
        self.turn(|core, now| core.tunnel.resume(resume, shown, fresh, now))
    }

    /// Instance: what to say in Hello; `None` if the tunnel is over. Until [`resumed`](Self::resumed), [`thaw`](Self::thaw)
    /// or [`detach`](Self::detach) is said the old stream must not be read: do not poll its [`attach`](super::attach).
    pub(crate) fn resume_point(&self) -> Option<ResumePoint> {
        self.turn(|core, now| core.tunnel.resume_point(now))
    }

    /// Instance: the gateway gave the tunnel to the new stream; the one that had it ends. An error has ended the tunnel:
    /// say so on the new stream.
    pub(crate) fn resumed(&self, resumed: &Resumed) -> Result<(), ProtocolError> {
        self.turn(|core, now| core.tunnel.resumed(resumed, now))
    }

    /// Instance: the resume was refused; a stream that lives goes on.
    pub(crate) fn thaw(&self) {
        self.turn(|core, now| core.tunnel.thaw(now));
    }

    /// This stream is gone.
    pub(crate) fn detach(&self, at: Epoch) {
        self.turn(|core, now| core.tunnel.detach(at, now));
    }

    /// The stream that carries the tunnel, or did so last.
    pub(crate) fn epoch(&self) -> Epoch {
        self.lock().tunnel.epoch()
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.lock().tunnel.is_attached()
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
        core.tunnel.is_attached()
            && core.tunnel.open_calls() == 0
            && !core.tunnel.wants_transmit()
            && core.tunnel.unacked_bytes() == 0
    }

    /// No call is open, and the peer has taken all that was written, whether a stream is there now or not.
    pub(crate) fn is_idle(&self) -> bool {
        let core = self.lock();
        core.tunnel.open_calls() == 0 && core.tunnel.unacked_bytes() == 0
    }

    /// The peer was heard within its heartbeat.
    pub(crate) fn is_answering(&self) -> bool {
        self.lock().tunnel.is_answering()
    }

    /// We said Close, or will as the last word.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Nothing of it is left to be read, written or waited for.
    pub(crate) fn is_closed(&self) -> bool {
        let core = self.lock();
        core.over || core.tunnel.is_closed()
    }

    // ---- for the attachment

    /// Who runs the tunnel on the stream `at` from here on is told by this when to look; `None` if another one has it.
    pub(super) fn attention(&self, at: Epoch) -> Option<Arc<Notify>> {
        let core = self.lock();
        (core.tunnel.epoch() == at).then(|| core.attention.clone())
    }

    /// Takes one batch of the stream `at`; what it brought is left in `due`.
    pub(super) fn receive(&self, at: Epoch, message: Bytes, due: &mut Deliveries) -> Result<(), ProtocolError> {
        let bytes = message.len() + PREFIX;
        let (taken, passed) = self.step(|core, now| {
            let taken = core.tunnel.handle_batch(at, message, now);
            core.collect(due);
            (taken, core.passed())
        });
        self.0.meter.received(bytes, passed);
        trace!(bytes, frames = passed.frames_received, "batch received");
        taken
    }

    /// Tells the core that the peer lives, though no batch of it is whole yet.
    pub(super) fn heard(&self, at: Epoch) {
        self.step(|core, now| core.tunnel.handle_bytes(at, now));
    }

    /// Tells the core that time has passed.
    pub(super) fn time_passed(&self, due: &mut Deliveries) -> Result<(), PeerSilent> {
        self.step(|core, now| {
            let alive = core.tunnel.handle_timeout(now);
            core.collect(due);
            core.over |= core.tunnel.is_closed();
            alive
        })
    }

    /// Waits until nobody else runs the tunnel, and runs it from then on.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(super) async fn run(&self) -> Running<'_> {
        let alone = self.0.running.lock().await;
        self.lock().runs = true;
        Running { tunnel: self, _alone: alone }
    }

    /// Who runs the tunnel delivers what it has brought about itself.
    pub(super) fn flush(&self) {
        let mut due = Vec::new();
        self.lock().collect(&mut due);
        self.deliver_calls(due);
    }

    /// How the stream `at` stands, and in `due` what others than who runs the tunnel have brought about. When the core
    /// wants to be told that time has passed is remembered: an earlier wish asks for attention.
    pub(super) fn arm(&self, at: Epoch, due: &mut Deliveries) -> Stands {
        let mut core = self.lock();
        core.collect(due);
        if core.closing {
            return Stands::Closing;
        }
        if core.tunnel.epoch() != at {
            return Stands::Fenced;
        }
        core.armed = core.tunnel.poll_timeout();
        match core.tunnel.is_detached() {
            true => Stands::Detached(core.armed),
            false => Stands::Carries(core.armed),
        }
    }

    fn sink(&self, call: CallId) -> Option<Arc<dyn CallSink>> {
        self.lock().sink(call)
    }

    /// The next batch to write; `None` and a registered `waker` if there is none. `Err` if there will be none.
    pub(super) fn next_batch(&self, at: Epoch, waker: &Waker) -> Result<Option<Bytes>, TunnelOver> {
        let mut core = self.lock();
        if core.over || core.tunnel.epoch() != at || core.tunnel.is_detached() {
            return Err(TunnelOver);
        }
        let batch = core.tunnel.poll_transmit(at, clock::now());
        if let Some(batch) = batch {
            // Writing can make room for a call whose source waits.
            let (due, attention) = core.happened();
            let passed = core.passed();
            drop(core);
            self.0.meter.sent(batch.len(), passed);
            trace!(bytes = batch.len(), frames = passed.frames_sent, "batch sent");
            if let Some(attention) = attention {
                attention.notify_one();
            }
            self.deliver_calls(due);
            return Ok(Some(batch));
        }
        if core.tunnel.is_closed() {
            let attention = core.attention.clone();
            drop(core);
            attention.notify_one();
            return Err(TunnelOver);
        }
        match &mut core.writer {
            Some(writer) => writer.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Ok(None)
    }

    /// Delivers what is left of the calls of a tunnel that ends.
    pub(super) fn deliver_calls(&self, due: Deliveries) {
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
            Event::PeersChanged { gateways } => events.peers_changed(gateways),
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

    /// A step that may end the tunnel or give it to another stream: whoever runs it, and whoever writes it, looks again.
    fn turn<R>(&self, turn: impl FnOnce(&mut Core, Time) -> R) -> R {
        let mut due = Vec::new();
        let (result, writer, attention) = {
            let mut core = self.lock();
            let before = core.tunnel.epoch();
            let result = turn(&mut core, clock::now());
            if !core.runs {
                core.collect(&mut due);
            }
            core.closing |= core.tunnel.is_closing();
            core.over |= core.tunnel.is_closed();
            core.armed = None;
            let attention = core.attention.clone();
            if core.tunnel.epoch() != before {
                core.attention = Arc::default();
            }
            (result, core.writer.take(), attention)
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        attention.notify_one();
        self.deliver_calls(due);
        result
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
        let attention = (sooner || core.tunnel.has_events()).then(|| core.attention.clone());
        drop(core);
        if let Some(writer) = writer {
            writer.wake();
        }
        if let Some(attention) = attention {
            attention.notify_one();
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

    /// What has happened outside of who runs the tunnel: told to that one, or to be delivered here if nobody does.
    fn happened(&mut self) -> (Deliveries, Option<Arc<Notify>>) {
        let mut due = Vec::new();
        if self.runs {
            return (due, self.tunnel.has_events().then(|| self.attention.clone()));
        }
        self.collect(&mut due);
        (due, None)
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

/// Whoever runs a tunnel, for as long as this lives.
pub(super) struct Running<'a> {
    tunnel: &'a TunnelHandle,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // What is left to be delivered now is so here, before the next one begins.
        self.tunnel.turn(|core, _| core.runs = false);
    }
}

/// What a stream is to its tunnel.
pub(super) enum Stands {
    /// It carries it, or is frozen; look again at this time.
    Carries(Option<Time>),
    /// It did, and no other one does; look again at this time.
    Detached(Option<Time>),
    /// Another one carries it.
    Fenced,
    /// We said Close; it may still have to be written.
    Closing,
}

/// Nothing will be written to this stream any more.
#[derive(Debug)]
pub(super) struct TunnelOver;

impl fmt::Debug for TunnelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.lock();
        f.debug_struct("TunnelHandle").field("open_calls", &core.tunnel.open_calls()).finish_non_exhaustive()
    }
}
