//! The place of one call at its instance: counted there for as long as it lives, and what the instance is judged by.

use std::sync::Arc;

use grpcrouter_protocol::Time;
use tonic::Code;

use super::{
    Instance,
    ejection::{Verdict, verdict},
};
use crate::{clock, status::Reason};

/// One call at one instance.
#[derive(Debug)]
pub(in crate::gateway) struct Seat {
    instance: Arc<Instance>,
    /// When the call was sent, if its answer is waited for with a clock.
    sent: Option<Time>,
}

impl Seat {
    /// One more call is at `instance`.
    pub(in crate::gateway) fn new(instance: Arc<Instance>) -> Self {
        instance.call_began();
        let sent = instance.is_measured().then(clock::now);
        Self { instance, sent }
    }

    pub(in crate::gateway) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The response begins.
    pub(in crate::gateway) fn answered(&mut self) {
        if let Some(sent) = self.sent.take() {
            let now = clock::now();
            self.instance.latency.answered(now.since(sent), now);
        }
    }

    /// The call is over; `reason` if the gateway ended it. Tells how many calls have failed there in a row, when one
    /// more has. `is_answer`: the end of such a call is its answer, so how long it took counts.
    pub(in crate::gateway) fn ended(&self, code: Code, reason: Option<Reason>, is_answer: bool) -> Option<u32> {
        let verdict = verdict(code, reason);
        if let Some(sent) = self.sent.filter(|_| is_answer) {
            let now = clock::now();
            match verdict {
                Verdict::Well => self.instance.latency.answered(now.since(sent), now),
                // It may have been about to answer: at least so long it would have taken.
                Verdict::Nothing => self.instance.latency.waited(now.since(sent), now),
                // To fail quickly is not to be quick.
                Verdict::Failed => {}
            }
        }
        self.instance.streak.ended(verdict)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.instance.call_ended();
    }
}
