//! Faults in the core that its own tests switch on, one at a time, to show that they would be seen. They exist only with
//! the feature `mutants`, which nothing but `make mutants` turns on: without it each is a `false` that costs nothing.

/// True if this fault is on, for this thread.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($fault:ident) => {
        $crate::mutants::is_on($crate::mutants::Mutant::$fault)
    };
}

/// True if this fault is on: never, in the crate as it is used.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($fault:ident) => {
        $crate::mutants::OFF
    };
}

#[cfg(not(feature = "mutants"))]
pub(crate) const OFF: bool = false;

#[cfg(feature = "mutants")]
pub(crate) use self::faults::is_on;
#[cfg(feature = "mutants")]
pub use self::faults::{Mutant, choose};

#[cfg(feature = "mutants")]
mod faults {
    use std::cell::Cell;

    macro_rules! faults {
        ($($(#[doc = $what:literal])* $fault:ident,)*) => {
            /// One fault.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Mutant {
                $($(#[doc = $what])* $fault,)*
            }

            impl Mutant {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$fault,)*];
            }
        };
    }

    faults! {
        /// A stream that carries the tunnel no more is still read.
        NoFence,
        /// A frozen stream is still written.
        FrozenStillWrites,
        /// A batch of a frozen stream is taken.
        FrozenStillReads,
        /// The end of any stream is taken for that of the current one.
        AnyStreamDetaches,
        /// A stream whose move was refused stays frozen.
        NeverThaws,
        /// Any token opens any tunnel.
        AnyToken,
        /// The token before the current one is dropped at once.
        PreviousTokenDropped,
        /// The token before the current one is never dropped.
        PreviousTokenKept,
        /// An earlier attempt takes the tunnel from a later one.
        EpochNotChecked,
        /// Counters that cannot be are believed.
        CountersNotChecked,
        /// Any answer is taken for the one to what was asked last.
        AnyAnswer,
        /// What was never sent can be acked.
        FutureAcks,
        /// Any batch is taken for the one that is due.
        SeqNotChecked,
        /// The first batch that the other side has not is not sent again.
        ReplaysOneLess,
        /// The last batch that the other side has is sent again.
        ReplaysOneMore,
        /// What is new goes before what goes out again.
        NewBeforeReplay,
        /// Any ack frees all batches.
        AnyAckFreesAll,
        /// What the other side expects is taken for an ack.
        AttachAcks,
        /// At the bound the oldest batch is dropped.
        DropsUnacked,
        /// Sends beyond the bound.
        NoBound,
        /// Acks go out while refusals wait.
        AcksBeforeRefusals,
        /// Acks are not said again on a new stream.
        AcksNotSaidAgain,
        /// Limits are not said again on a new stream.
        GrantsNotSaidAgain,
        /// Remaining times are not said again on a new stream.
        TimeoutsNotSaidAgain,
        /// The number of calls is not said again on a new stream.
        MaxCallsNotSaidAgain,
        /// The newest update is not said again on a new stream.
        UpdateNotSaidAgain,
        /// That a side drains may be lost with a stream.
        DrainNotNumbered,
        /// Cancels that wait are dropped with the stream.
        DetachDropsCancels,
        /// Refusals that wait are dropped with the stream.
        DetachDropsRefusals,
        /// Deadlines sleep while there is no stream.
        DeadlinesSleep,
        /// Calls are opened without a stream.
        OpensDetached,
        /// A tunnel without a stream never ends.
        WindowNeverEnds,
        /// An instance gives up as early as its gateway.
        InstanceGivesUpEarly,
        /// Credit is given for what came, not for what was consumed.
        CreditOnReceipt,
        /// A half-close does not wait for the data before it.
        HalfCloseFirst,
        /// A call that was never written counts as one that may have run.
        UnsentIsInDoubt,
        /// A call that comes back has only what was never sent.
        ComesBackInPart,
    }

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches one fault on for this thread, and every other off.
    pub fn choose(fault: Option<Mutant>) {
        ON.set(fault);
    }

    pub(crate) fn is_on(fault: Mutant) -> bool {
        ON.get() == Some(fault)
    }
}
