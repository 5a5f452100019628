//! Which stream carries the tunnel: how it is lost, how another one takes its place, and what is said again then.
//! Batches of any stream but the current one are not read, whatever they hold: that is the fence.

use std::time::Duration;

use super::{State, Tunnel};
use crate::error::{ProtocolError, ResumeError};
use crate::frame::{Close, CloseCode, Resume, Resumed};
use crate::id::{Epoch, Seq, Side};
use crate::resume::{FreshToken, ResumePoint, TokenHash, Tokens};
use crate::time::Time;

/// The stream under a tunnel.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Of the stream that carries the tunnel, or did so last.
    pub(super) epoch: Epoch,
    /// Instance: the highest that was asked for.
    asked: Epoch,
    link: Link,
    /// Gateway: what resumes the tunnel, if it can be.
    tokens: Option<Tokens>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Attached,
    /// Instance: another stream asked for the tunnel, so this one is neither read nor written until that is known.
    Frozen,
    Detached {
        since: Time,
    },
}

impl Attachment {
    pub(super) const fn new() -> Self {
        Self { epoch: Epoch::FIRST, asked: Epoch::FIRST, link: Link::Attached, tokens: None }
    }

    /// True if this stream carries the tunnel now.
    pub(super) fn is_carried_by(&self, at: Epoch) -> bool {
        self.epoch == at && self.link == Link::Attached
    }

    /// True if what comes on this stream is taken: the fence.
    pub(super) fn is_read(&self, at: Epoch) -> bool {
        let is_frozen = self.link == Link::Frozen && mutant!(FrozenStillReads);
        self.is_carried_by(at) || is_frozen || mutant!(NoFence)
    }

    /// True if this stream may be written.
    pub(super) fn is_written(&self, at: Epoch) -> bool {
        let is_frozen = self.link == Link::Frozen && mutant!(FrozenStillWrites);
        self.is_carried_by(at) || (is_frozen && self.epoch == at)
    }

    pub(super) fn is_attached(&self) -> bool {
        self.link == Link::Attached
    }

    /// Something whole came on the current stream.
    pub(super) fn heard(&mut self) {
        if let Some(tokens) = &mut self.tokens {
            tokens.settle();
        }
    }
}

impl Tunnel {
    /// Gateway: the same tunnel, which a [`resume`](Self::resume) with this token may attach to another stream. For a new
    /// tunnel. Without one a lost stream ends it.
    #[must_use]
    pub fn with_token(mut self, hash: TokenHash) -> Self {
        self.attachment.tokens = Some(Tokens::new(hash));
        self
    }

    /// Gateway: attaches the tunnel to the stream that said this Hello, and says what to answer. `shown` is the hash of
    /// the token in `resume`. The old stream, dead or alive, is fenced off with this: end it. All that the instance has
    /// not taken goes out again, then what both sides allow each other, then what is new.
    ///
    /// Whether the instance may be here at all is to be known before.
    ///
    /// # Errors
    /// The tunnel goes on as it was, but for [`ResumeError::Impossible`], which ends it.
    pub fn resume(
        &mut self,
        resume: &Resume,
        shown: TokenHash,
        fresh: FreshToken,
        now: Time,
    ) -> Result<Resumed, ResumeError> {
        self.end_if_late(now);
        if !matches!(self.state, State::Open) {
            return Err(ResumeError::Closed);
        }
        let Some(tokens) = self.attachment.tokens.as_mut().filter(|tokens| tokens.fits(shown)) else {
            return Err(ResumeError::WrongToken);
        };
        let current = self.attachment.epoch;
        if resume.epoch <= current && !mutant!(EpochNotChecked) {
            return Err(ResumeError::OldEpoch { asked: resume.epoch, current });
        }
        tokens.renew(shown, fresh.hash);
        let expected = self.inbox.expected();
        let possible = between("the first batch that can be sent again", resume.tx_first, Seq::STATE, expected)
            .and_then(|()| between("the next batch to be sent", resume.tx_next, expected, Seq::new(u64::MAX)))
            .and_then(|()| self.attach(resume.epoch, resume.rx_next, now));
        if let Err(error) = possible {
            self.break_off(&error, now);
            return Err(ResumeError::Impossible(error));
        }
        Ok(Resumed { epoch: resume.epoch, rx_next: expected, new_token: fresh.token })
    }

    /// Instance: what to say in a Hello on another stream to get the tunnel there; `None` if the tunnel is over. A stream
    /// that still carries it is frozen: do not read it until the answer is known. Then say one of
    /// [`resumed`](Self::resumed), [`thaw`](Self::thaw) if it was refused, or [`detach`](Self::detach) of the old stream
    /// if nobody can tell.
    pub fn resume_point(&mut self, now: Time) -> Option<ResumePoint> {
        self.end_if_late(now);
        if !matches!(self.state, State::Open) || self.side != Side::Instance {
            return None;
        }
        if self.attachment.link == Link::Attached {
            self.attachment.link = Link::Frozen;
        }
        self.attachment.asked = self.attachment.asked.next();
        Some(ResumePoint {
            epoch: self.attachment.asked,
            rx_next: self.inbox.expected(),
            tx_first: self.outbox.first(),
            tx_next: self.outbox.next(),
        })
    }

    /// Instance: the gateway attached the tunnel to the stream of this answer.
    ///
    /// # Errors
    /// The answer is to no question of this tunnel's, or its counters cannot be. The tunnel is over: say Close.
    pub fn resumed(&mut self, resumed: &Resumed, now: Time) -> Result<(), ProtocolError> {
        self.end_if_late(now);
        if !matches!(self.state, State::Open) {
            return Err(ProtocolError::Misplaced("a stream for a tunnel that is over"));
        }
        let is_answer = resumed.epoch == self.attachment.asked && resumed.epoch > self.attachment.epoch;
        let taken = if is_answer || mutant!(AnyAnswer) {
            self.attach(resumed.epoch, resumed.rx_next, now)
        } else {
            Err(ProtocolError::Misplaced("an answer to another resume"))
        };
        taken.inspect_err(|error| self.break_off(error, now))
    }

    /// Instance: the resume was refused. A stream that was frozen for it goes on.
    pub fn thaw(&mut self, now: Time) {
        if self.attachment.link == Link::Frozen && !mutant!(NeverThaws) {
            self.attachment.link = Link::Attached;
            self.pulse.heard(self.calls.len(), now);
        }
    }

    /// A stream is gone. If it was the one that carried the tunnel, the tunnel is kept for the resume window: calls stay,
    /// deadlines run, what is to be said waits. Of any other stream this says nothing.
    pub fn detach(&mut self, at: Epoch, now: Time) {
        if (at != self.attachment.epoch && !mutant!(AnyStreamDetaches))
            || matches!(self.attachment.link, Link::Detached { .. })
        {
            return;
        }
        self.attachment.link = Link::Detached { since: now };
        self.control.detached();
        self.pinged = None;
        match self.state {
            State::Open if self.is_resumable() => {}
            State::Open => self.lost(now),
            // Nobody hears the Close any more.
            State::Closing(_) => self.state = State::Closed,
            State::Closed => {}
        }
    }

    /// The stream that carries the tunnel, or did so last.
    pub fn epoch(&self) -> Epoch {
        self.attachment.epoch
    }

    /// True if a stream carries the tunnel now.
    pub fn is_attached(&self) -> bool {
        self.attachment.is_attached()
    }

    /// True if no stream carries the tunnel, not even one that is frozen.
    pub fn is_detached(&self) -> bool {
        matches!(self.attachment.link, Link::Detached { .. })
    }

    fn is_resumable(&self) -> bool {
        let has_token = self.side == Side::Instance || self.attachment.tokens.is_some();
        has_token && !self.config.resume_window.is_zero()
    }

    /// From here on this stream carries the tunnel; the other side expects `rx_next` on it.
    fn attach(&mut self, epoch: Epoch, rx_next: Seq, now: Time) -> Result<(), ProtocolError> {
        let (first, last) = (self.outbox.first(), self.outbox.next());
        if !self.outbox.replay_from(rx_next) && !mutant!(CountersNotChecked) {
            return Err(ProtocolError::ImpossibleResume {
                what: "the batch that is expected",
                named: rx_next,
                first,
                last,
            });
        }
        if mutant!(AttachAcks) {
            let _ = self.outbox.ack(Seq::new(rx_next.get() - 1));
        }
        self.attachment.epoch = epoch;
        self.attachment.asked = epoch;
        self.attachment.link = Link::Attached;
        self.pinged = None;
        self.pulse.heard(self.calls.len(), now);
        self.say_again();
        Ok(())
    }

    /// What crosses without a number may be lost with a stream, and is said again on the next: it is absolute, or the
    /// newest wins. Batches that go out again come before it.
    ///
    /// What the other side expects is not taken for an ack: a refusal that waits to be heard must find its call in the
    /// unacked batches. Its next ack, which cannot overtake the refusal, trims them.
    fn say_again(&mut self) {
        if !mutant!(AcksNotSaidAgain) {
            self.inbox.say_again();
        }
        self.says_max_calls = self.side == Side::Instance && !mutant!(MaxCallsNotSaidAgain);
        self.control.detached();
        self.control.attached();
        for call in self.calls.iter_mut().filter(|call| !call.is_unsent()) {
            if !mutant!(GrantsNotSaidAgain) && !std::mem::replace(&mut call.is_granting, true) {
                self.control.grant(call.id);
            }
            if self.side == Side::Gateway && call.deadline.is_some() && !mutant!(TimeoutsNotSaidAgain) {
                self.control.remind(call.id);
            }
        }
    }

    /// The two sides cannot go on together.
    fn break_off(&mut self, error: &ProtocolError, now: Time) {
        let close = Close { code: CloseCode::ProtocolError, reason: error.to_string(), retry_after: Duration::ZERO };
        self.close(close, now);
    }

    /// When a tunnel without a stream is over.
    pub(super) fn ends_at(&self) -> Option<Time> {
        match self.attachment.link {
            Link::Attached | Link::Frozen => None,
            Link::Detached { since } => {
                let longer =
                    if self.side == Side::Instance && !mutant!(InstanceGivesUpEarly) { LONGER } else { Duration::ZERO };
                Some(since + self.config.resume_window + longer)
            }
        }
    }

    /// Ends a tunnel that was without a stream for too long.
    pub(super) fn end_if_late(&mut self, now: Time) {
        if !mutant!(WindowNeverEnds)
            && matches!(self.state, State::Open)
            && self.ends_at().is_some_and(|end| end <= now)
        {
            self.lost(now);
        }
    }
}

fn between(what: &'static str, named: Seq, first: Seq, last: Seq) -> Result<(), ProtocolError> {
    if (first <= named && named <= last) || mutant!(CountersNotChecked) {
        return Ok(());
    }
    Err(ProtocolError::ImpossibleResume { what, named, first, last })
}

/// An instance keeps its end so much longer than the gateway: one that gave up first would drop handlers whose calls the
/// gateway still holds open.
const LONGER: Duration = Duration::from_secs(1);
