//! What becomes of a call that nobody can take now: it is answered, or it waits for one who will.

use grpcrouter_protocol::OpenCall;
use tonic::Code;

use super::{
    GatewayCore,
    way::{self, Unplaced, Way},
};
use crate::status::{Answer, Outcome};

/// Nobody can take a call now.
#[derive(Debug)]
pub(super) struct Nobody {
    /// What to say, if it does not wait.
    pub(super) answer: Answer,
    pub(super) hope: Hope,
}

/// Who may come for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hope {
    Nobody,
    /// Any instance: its option says that it waits for one.
    Any,
    /// One that lost its stream a moment ago, and is back in another if it lives.
    Return,
}

impl From<Answer> for Nobody {
    fn from(answer: Answer) -> Self {
        Self { answer, hope: Hope::Nobody }
    }
}

impl Nobody {
    /// The end of the call, or its waiting.
    pub(super) fn unplaced(self, core: &GatewayCore, way: &mut Way, call: OpenCall) -> Unplaced {
        let Self { answer, hope } = self;
        let may_wait = answer.code == Code::Unavailable;
        let waits = match hope {
            _ if !may_wait => false,
            Hope::Nobody => false,
            // Nobody new is let in.
            Hope::Any if core.counts.is_stopping() => return way::lost(core, Outcome::NotSent).into(),
            Hope::Any => true,
            Hope::Return => core.limits.max_parked_calls > 0,
        };
        if !waits {
            return answer.into();
        }
        // Whoever comes is asked, also if it was before.
        way.tried.clear();
        Unplaced::Waits(call.into())
    }
}
