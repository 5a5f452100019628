//! A tunnel: the calls of one gateway and one instance over whatever stream carries them now.
//! Commands and batches go in, batches and events come out; every piece of work is done in a room of its own.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use self::attach::Attachment;
pub use self::event::{EndReason, Event, OpenCall, Opened, Outcome, ResponsePart};
use crate::call::{Call, End, Head, Phase, Step};
use crate::calls::Calls;
use crate::config::Config;
use crate::control::Control;
use crate::error::{OpenCallError, PeerSilent, ProtocolError};
use crate::frame::{CancelReason, Close, Headers, Start, Trailers, Update};
use crate::growth::Growth;
use crate::id::{CallId, Epoch, Side};
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::pool::WindowPool;
use crate::schedule::Schedule;
use crate::time::Time;
use crate::timer::{Beat, Deadlines, Pulse};

mod attach;
mod end;
mod event;
mod look;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

/// One end of a tunnel.
///
/// After any input poll until empty: [`poll_transmit`](Self::poll_transmit), [`poll_event`](Self::poll_event), then
/// set a timer for [`poll_timeout`](Self::poll_timeout). Events of a call that the app has ended itself may still come
/// out, since they were there before; they name a call that the app no longer knows.
#[derive(Debug)]
pub struct Tunnel {
    side: Side,
    config: Config,
    state: State,
    attachment: Attachment,
    calls: Calls,
    schedule: Schedule,
    control: Control,
    outbox: Outbox,
    inbox: Inbox,
    deadlines: Deadlines,
    pulse: Pulse,
    growth: Growth,
    events: VecDeque<Event>,
    /// Many batches are cut out of it, so that they share its allocation.
    buffer: BytesMut,
    /// The highest call opened: given (gateway) or heard (instance).
    highest: CallId,
    /// Calls opened in all.
    opened: u64,
    /// Calls that may be opened in all: heard (gateway) or said (instance).
    max_calls: u64,
    /// Instance: that limit is to be said even if it did not rise.
    says_max_calls: bool,
    /// Instance: calls that ended, refused ones too.
    ended: u64,
    is_draining: bool,
    is_peer_draining: bool,
    /// The newest Update taken.
    updated: u64,
    /// When the ping that is out was made.
    pinged: Option<Time>,
    /// Bytes in the queues of all calls.
    queued: usize,
    /// The calls that the peer broke the protocol in, and how far it went beyond what they may carry; few, since the
    /// third ends the tunnel.
    broken: Vec<(CallId, u64)>,
    late_frames: u64,
    totals: Totals,
}

/// What has passed through a tunnel since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Frames that were written.
    pub frames_sent: u64,
    /// Frames that were read.
    pub frames_received: u64,
    /// How often a call that was sent from here had to wait for credit.
    pub stalls: u64,
}

/// How far a tunnel is.
#[derive(Debug)]
enum State {
    Open,
    /// A Close waits to go; nothing else does.
    Closing(Close),
    Closed,
}

impl Tunnel {
    /// The gateway's end, after Welcome was said. `config.max_open_calls` is what was
    /// [agreed](crate::Agreement::max_open_calls).
    pub fn gateway(config: Config, now: Time) -> Self {
        Self::new(Side::Gateway, config, now)
    }

    /// The instance's end, after Welcome was heard; [`Config::adopt`] makes the limits.
    pub fn instance(config: Config, now: Time) -> Self {
        Self::new(Side::Instance, config, now)
    }

    fn new(side: Side, config: Config, now: Time) -> Self {
        Self {
            side,
            state: State::Open,
            attachment: Attachment::new(),
            calls: match side {
                Side::Gateway => Calls::with_own_slots(),
                Side::Instance => Calls::with_given_slots(),
            },
            schedule: Schedule::default(),
            control: Control::default(),
            outbox: Outbox::new(config.replay_limit, config.max_batch),
            inbox: Inbox::new(config.ack_delay, config.ack_bytes),
            deadlines: Deadlines::default(),
            pulse: Pulse::new(config.heartbeat, now),
            growth: Growth::new(&config, WindowPool::new(u64::MAX)),
            events: VecDeque::new(),
            buffer: BytesMut::new(),
            highest: CallId::from_raw(0),
            opened: 0,
            max_calls: config.max_open_calls.into(),
            says_max_calls: false,
            ended: 0,
            is_draining: false,
            is_peer_draining: false,
            updated: 0,
            pinged: None,
            queued: 0,
            broken: Vec::new(),
            late_frames: 0,
            totals: Totals::default(),
            config,
        }
    }

    /// The same tunnel, whose windows grow out of this pool too and not only out of
    /// [`window_pool`](Config::window_pool). For a new tunnel.
    #[must_use]
    pub fn with_pool(mut self, pool: WindowPool) -> Self {
        self.growth = Growth::new(&self.config, pool);
        self
    }

    // ---- commands

    /// Gateway: opens a call. The call's deadline runs from here on.
    ///
    /// # Errors
    /// This tunnel takes no call now; the call comes back, to be opened elsewhere.
    #[expect(clippy::result_large_err, reason = "the call itself comes back; a box would be an allocation a call")]
    pub fn open(&mut self, call: OpenCall, now: Time) -> Result<Opened, (OpenCallError, OpenCall)> {
        if let Err(error) = self.may_open(&call.start) {
            return Err((error, call));
        }
        let OpenCall { start, deadline, data, half_close } = call;
        let id = CallId::new(self.highest.counter() + 1, self.calls.free_slot());
        self.highest = id;
        self.opened += 1;
        self.insert(Call::request(id, start, deadline, self.growth.first(), now), now);
        let capacity = self.send(id, data, half_close, now);
        Ok(Opened { id, capacity })
    }

    /// Gateway: more of a request. What exceeds the call's credit is queued, so one chunk from a source that does not
    /// know its size in advance is fine. Gives back how many more bytes to poll from the client now; 0: wait for
    /// [`Event::Writable`]. A call that is over takes nothing.
    pub fn send(&mut self, call: CallId, data: Bytes, half_close: bool, now: Time) -> usize {
        let _ = now;
        let Some(open) = self.calls.get_mut(call) else { return 0 };
        if !data.is_empty() && open.send.take(Step::Data) {
            self.queued += data.len();
            open.send.queue.push(data);
        }
        if half_close && open.send.take(Step::End) {
            open.send.end = Some(End::HalfClose);
        }
        self.after_command(call)
    }

    /// Instance: more of a response; the same rules as for [`send`](Self::send). With trailers the call takes and
    /// gives nothing more, and is over when what is queued is out.
    ///
    /// Headers or trailers beyond the agreed limits end the call with RESOURCE_EXHAUSTED instead.
    pub fn respond(&mut self, call: CallId, part: ResponsePart, now: Time) -> usize {
        let _ = now;
        let ResponsePart { mut headers, data, mut trailers } = part;
        let too_large = self.excess_of_response(headers.as_ref(), trailers.as_ref());
        let Some(open) = self.calls.get_mut(call).filter(|open| open.send.phase != Phase::Done) else { return 0 };
        if let Some(message) = too_large {
            self.queued -= open.abandon();
            headers = None;
            trailers = Some(Trailers { status: RESOURCE_EXHAUSTED, message: message.into(), ..Trailers::default() });
        }
        if !open.is_abandoned {
            if headers.is_none() && !data.is_empty() {
                // Data needs headers before it; a service that named none has plain ones.
                headers = (open.send.phase == Phase::Head).then(Headers::default);
            }
            if let Some(headers) = headers
                && open.send.take(Step::Head)
            {
                open.send.head = Some(Head::Headers(headers));
            }
            if !data.is_empty() && open.send.take(Step::Data) {
                self.queued += data.len();
                open.send.queue.push(data);
            }
        } else if let Some(trailers) = &mut trailers
            && trailers.status == 0
        {
            // The deadline passed here before the app heard of it. What it had said is dropped, so it is not OK.
            *trailers = Trailers { status: DEADLINE_EXCEEDED, message: LATE.into(), ..Trailers::default() };
        }
        if let Some(trailers) = trailers
            && open.send.take(Step::End)
        {
            open.send.end = Some(End::Trailers(trailers));
            // From here on the call only ends; what the gateway still sends is not wanted.
            open.receive.phase = Phase::Done;
        }
        self.after_command(call)
    }

    /// The app has consumed one data part of an event, of `data_len` bytes as it was delivered: a client's HTTP/2
    /// stream took it, or a handler polled it. The other side hears of it when half a window is free.
    pub fn consumed(&mut self, call: CallId, data_len: usize, now: Time) {
        let Some(open) = self.calls.get_mut(call) else { return };
        let credit = &mut open.receive.credit;
        if !credit.consume(data_len) || open.receive.phase == Phase::Done {
            return;
        }
        if self.growth.wants_measure(credit.window(), now) && self.pinged.is_none() {
            self.pinged = Some(now);
            self.control.ping(ping_of(now));
        }
        let window = self.growth.next(credit.window(), credit.pace(now));
        if credit.grant(window, now) && !open.is_granting {
            open.is_granting = true;
            self.control.grant(call);
        }
    }

    /// Gateway: ends a call. Its slot is free at once; if its start was not yet written, nothing at all is sent.
    pub fn cancel(&mut self, call: CallId, reason: CancelReason, now: Time) {
        let _ = now;
        self.end_request(call, reason);
    }

    /// Says that this side drains. Instance: every start that comes later is refused. Gateway: it is only said, for calls
    /// of clients that have not heard of it yet are still carried.
    pub fn drain(&mut self, now: Time) {
        self.drain_to(Vec::new(), now);
    }

    /// Gateway: as [`drain`](Self::drain), and names the gateways to go to.
    pub fn drain_to(&mut self, gateways: Vec<String>, now: Time) {
        let _ = now;
        if matches!(self.state, State::Open) {
            self.is_draining = true;
            self.control.drain(gateways);
        }
    }

    /// Gateway: says which gateways there are now.
    pub fn peers_changed(&mut self, gateways: Vec<String>, now: Time) {
        let _ = now;
        if matches!(self.state, State::Open) {
            self.control.peers_changed(gateways);
        }
    }

    /// Instance: says what changed in it.
    pub fn update(&mut self, update: Update, now: Time) {
        let _ = now;
        if matches!(self.state, State::Open) {
            self.control.update(update);
        }
    }

    /// Ends the tunnel: every open call ends with [`EndReason::Lost`], and the close is the last frame out.
    pub fn close(&mut self, close: Close, now: Time) {
        if matches!(self.state, State::Open) {
            self.lost(now);
            if self.attachment.is_attached() {
                self.state = State::Closing(close);
            }
        }
    }

    /// The tunnel is over, whatever its stream does: every open call ends with [`EndReason::Lost`].
    pub fn lost(&mut self, now: Time) {
        let _ = now;
        self.end_all();
        self.state = State::Closed;
    }

    // ---- the world

    /// Takes one gRPC message, without its five-byte prefix, of the stream `at`. One of any other stream than that which
    /// carries the tunnel is dropped.
    ///
    /// # Errors
    /// What the peer did wrong. Close the tunnel with it and drop the stream.
    pub fn handle_batch(&mut self, at: Epoch, message: Bytes, now: Time) -> Result<(), ProtocolError> {
        if self.attachment.is_read(at) {
            return self.receive(message, now);
        }
        if at == self.attachment.epoch {
            // Read while it was frozen: what is lost of a stream cannot be had back on it.
            self.detach(at, now);
        }
        Ok(())
    }

    /// Some bytes of a batch came on the stream `at`, not yet all of it: a slow peer is not a silent one.
    pub fn handle_bytes(&mut self, at: Epoch, now: Time) {
        if self.attachment.is_carried_by(at) {
            self.pulse.heard(self.calls.len(), now);
        }
    }

    /// Does what is due: deadlines, acks, the heartbeat, the end of the resume window.
    ///
    /// # Errors
    /// The peer answered no ping: the stream is dead. [`detach`](Self::detach) it.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), PeerSilent> {
        if !matches!(self.state, State::Open) {
            return Ok(());
        }
        self.end_expired(now);
        self.end_if_late(now);
        if !self.is_attached() {
            return Ok(());
        }
        self.inbox.handle_timeout(now);
        if self.pulse.handle_timeout(self.calls.len(), now)? == Beat::Ping {
            self.pinged = Some(now);
            self.control.ping(ping_of(now));
        }
        Ok(())
    }

    // ---- out

    /// True if [`poll_transmit`](Self::poll_transmit) would give a batch. Cheap.
    pub fn wants_transmit(&self) -> bool {
        if !self.attachment.is_written(self.epoch()) {
            return false;
        }
        match self.state {
            State::Open => {
                self.outbox.is_replaying()
                    || !self.control.is_empty()
                    || self.inbox.is_due()
                    || (!self.schedule.is_empty() && self.outbox.has_room())
            }
            State::Closing(_) => true,
            State::Closed => false,
        }
    }

    /// One batch of what is ready, as a whole gRPC message with its prefix, for the stream `at`; none for another than
    /// that which carries the tunnel. Poll when it can be written: what is not polled stays in its call and may still be
    /// cancelled. May make events.
    pub fn poll_transmit(&mut self, at: Epoch, now: Time) -> Option<Bytes> {
        if self.attachment.is_written(at) { self.transmit(now) } else { None }
    }

    /// The next event.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        if !matches!(self.state, State::Open) {
            return None;
        }
        let named = match self.is_attached() {
            true => [self.deadlines.next(), self.inbox.poll_timeout(), Some(self.pulse.poll_timeout())],
            false => [self.deadlines.next(), self.ends_at(), None],
        };
        named.into_iter().flatten().min()
    }

    // ---- shared by the rooms below

    fn may_open(&self, start: &Start) -> Result<(), OpenCallError> {
        if !matches!(self.state, State::Open) || self.side != Side::Gateway {
            return Err(OpenCallError::Closed);
        }
        if self.is_peer_draining {
            return Err(OpenCallError::Draining);
        }
        if !self.is_attached() && !mutant!(OpensDetached) {
            return Err(OpenCallError::Detached);
        }
        if self.opened >= self.max_calls || self.calls.len() >= self.config.max_open_calls as usize {
            return Err(OpenCallError::NoMoreCalls);
        }
        if !self.outbox.has_room() {
            return Err(OpenCallError::ReplayFull);
        }
        let size = start_texts(start) + start.metadata.size();
        if size > self.config.max_metadata || start.metadata.len() > self.config.max_metadata_entries {
            return Err(OpenCallError::TooLarge);
        }
        Ok(())
    }

    /// Says what of a response is beyond the limits.
    fn excess_of_response(&self, headers: Option<&Headers>, trailers: Option<&Trailers>) -> Option<String> {
        let Config { max_metadata, max_metadata_entries, max_trailers, .. } = self.config;
        let (size, entries, limit, what) = match (headers, trailers) {
            (Some(headers), _) if !headers_fit(headers, &self.config) => {
                (headers_size(headers), headers.metadata.len(), max_metadata, "response headers")
            }
            (_, Some(trailers)) if !trailers_fit(trailers, &self.config) => {
                (trailers_size(trailers), trailers.metadata.len(), max_trailers, "trailers")
            }
            _ => return None,
        };
        Some(format!(
            "{what} have {size} bytes in {entries} entries, the limits are {limit} and {max_metadata_entries}"
        ))
    }

    /// Puts a new call into the table and sets its deadline.
    fn insert(&mut self, call: Call, now: Time) {
        if self.calls.len() == 0 {
            self.pulse.busy(now);
        }
        let (id, deadline) = (call.id, call.deadline);
        self.calls.insert(call);
        if let Some(at) = deadline {
            self.set_deadline(id, at);
        }
    }

    fn set_deadline(&mut self, id: CallId, at: Time) {
        let calls = &self.calls;
        self.deadlines.set(at, id, calls.len(), |call, at| has_deadline(calls, call, at));
    }

    /// Queues a call for its turn if it has something to send; gives back its capacity and remembers if it is 0.
    fn after_command(&mut self, call: CallId) -> usize {
        let has_room = self.outbox.has_room();
        let Some(open) = self.calls.get_mut(call) else { return 0 };
        schedule(&mut self.schedule, open);
        if open.is_abandoned || open.send.phase == Phase::Done {
            open.send.is_starved = false;
            return 0;
        }
        let capacity = if has_room { capacity(open, &self.config) } else { 0 };
        let was_starved = std::mem::replace(&mut open.send.is_starved, capacity == 0);
        if capacity == 0 && !was_starved && open.send.lacks_credit(self.config.max_part) {
            self.totals.stalls += 1;
        }
        capacity
    }

    /// Tells the app that a call which had no capacity has some again.
    fn wake(&mut self, call: CallId) {
        if !self.outbox.has_room() {
            return;
        }
        let Some(open) = self.calls.get_mut(call) else { return };
        if open.send.is_starved {
            let capacity = capacity(open, &self.config);
            if capacity > 0 {
                open.send.is_starved = false;
                self.events.push_back(Event::Writable { call, capacity });
            }
        }
    }
}

fn schedule(schedule: &mut Schedule, call: &mut Call) {
    if call.is_scheduled || !call.send.is_ready() {
        return;
    }
    call.is_scheduled = true;
    if std::mem::replace(&mut call.has_joined, true) {
        schedule.join(call.id);
    } else {
        schedule.join_fresh(call.id);
    }
}

fn capacity(call: &Call, config: &Config) -> usize {
    call.send.capacity(config.max_part, usize::try_from(config.initial_window).unwrap_or(usize::MAX))
}

fn has_deadline(calls: &Calls, call: CallId, at: Time) -> bool {
    calls.get(call).is_some_and(|call| call.deadline == Some(at))
}

fn headers_fit(headers: &Headers, config: &Config) -> bool {
    headers_size(headers) <= config.max_metadata && headers.metadata.len() <= config.max_metadata_entries
}

fn headers_size(headers: &Headers) -> usize {
    headers_texts(headers) + headers.metadata.size()
}

fn headers_texts(headers: &Headers) -> usize {
    headers.content_subtype.len() + headers.encoding.len() + headers.accept_encoding.len()
}

fn start_texts(start: &Start) -> usize {
    let Start { path, authority, content_subtype, encoding, accept_encoding, .. } = start;
    path.len() + authority.len() + content_subtype.len() + encoding.len() + accept_encoding.len()
}

fn trailers_fit(trailers: &Trailers, config: &Config) -> bool {
    trailers_size(trailers) <= config.max_trailers && trailers.metadata.len() <= config.max_metadata_entries
}

fn trailers_size(trailers: &Trailers) -> usize {
    trailers.message.len() + trailers.details.len() + trailers.metadata.size()
}

/// A ping carries when it was made, so its echo measures the way there and back.
fn ping_of(now: Time) -> Bytes {
    Bytes::copy_from_slice(&now.as_nanos().to_be_bytes())
}

// The only gRPC codes that the core itself says, where no handler is left to say one.
const RESOURCE_EXHAUSTED: u32 = 8;
const LATE: &str = "the deadline passed before the answer was out";
const DEADLINE_EXCEEDED: u32 = 4;
const INTERNAL: u32 = 13;
