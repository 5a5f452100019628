//! Calls of all four kinds in a closed loop, each with a number, and what became of every one of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use grpcrouter_chaos::{Caller, Failure, Kind, Work};
use tokio::task::JoinSet;
use tonic::Code;

/// What the calls are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// So many at once.
    pub(crate) workers: u64,
    /// The longest pause between two messages of a call.
    pub(crate) pause: Duration,
    /// The longest message, in bytes.
    pub(crate) size: u64,
    /// So many in all; None: until it is stopped.
    pub(crate) calls: Option<u64>,
    /// Of a hundred calls so many are taken back by their client.
    pub(crate) cancelled: u64,
    /// The number of the first: no two loads of one scenario may share any.
    pub(crate) first: u64,
}

/// Calls that go on in the background.
#[derive(Debug)]
pub(crate) struct Load {
    enough: Arc<AtomicBool>,
    tally: Arc<Tally>,
    workers: JoinSet<()>,
}

/// What became of the calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    next: AtomicU64,
    ended: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    ok: Vec<u64>,
    /// The instance was lost while it had the call: MAYBE_EXECUTED.
    in_doubt: Vec<Ended>,
    failed: Vec<Ended>,
    cancelled: u64,
}

/// A call that did not end well.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) work: Work,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    outcome: String,
    why: String,
}

/// The sums of a load that is over.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(crate) ok: u64,
    pub(crate) in_doubt: Vec<Ended>,
    pub(crate) failed: Vec<Ended>,
    pub(crate) cancelled: u64,
    /// What must never be: a second execution, one of a call that was never sent, a good end without one.
    pub(crate) broken: Vec<String>,
}

impl Shape {
    /// Calls that last a while, so that whatever happens meets many in their middle.
    pub(crate) const LASTING: Self =
        Self { workers: 24, pause: Duration::from_millis(40), size: 20_000, calls: None, cancelled: 0, first: 0 };

    /// Calls as quick as they go.
    pub(crate) const QUICK: Self =
        Self { workers: 32, pause: Duration::ZERO, size: 2_000, calls: None, cancelled: 0, first: 0 };

    /// The same, and so many in all.
    pub(crate) fn quick(calls: u64) -> Self {
        Self { calls: Some(calls), ..Self::QUICK }
    }

    /// The call of this number.
    fn work(&self, id: u64) -> Work {
        let dice = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        let part = |shift: u32, of: u64| (dice >> shift) % (of + 1);
        let pause = Duration::from_micros(part(17, u64::try_from(self.pause.as_micros()).unwrap_or(u64::MAX - 1)));
        Work {
            id,
            kind: Kind::ALL[usize::try_from(id % 4).unwrap_or(0)],
            messages: u32::try_from(1 + part(3, 4)).unwrap_or(1),
            size: usize::try_from(part(31, self.size)).unwrap_or(0),
            pause,
        }
    }
}

impl Load {
    /// Begins.
    pub(crate) fn start(callers: Vec<Caller>, shape: Shape) -> Self {
        let tally = Tally { next: AtomicU64::new(shape.first), ..Tally::default() };
        let (enough, tally, callers) = (Arc::<AtomicBool>::default(), Arc::new(tally), Arc::new(callers));
        let mut workers = JoinSet::new();
        for _ in 0..shape.workers {
            let (enough, tally, callers) = (enough.clone(), tally.clone(), callers.clone());
            workers.spawn(async move {
                while !enough.load(Ordering::Relaxed) {
                    let id = tally.next.fetch_add(1, Ordering::Relaxed);
                    if shape.calls.is_some_and(|calls| id >= shape.first + calls) {
                        return;
                    }
                    let caller = &callers[usize::try_from(id).unwrap_or(0) % callers.len()];
                    tally.one(caller, shape.work(id), id % 100 < shape.cancelled).await;
                }
            });
        }
        Self { enough, tally, workers }
    }

    /// How many calls have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.tally.ended.load(Ordering::Relaxed)
    }

    /// Returns when so many calls have ended.
    pub(crate) async fn has_ended(&self, calls: u64) {
        while self.ended() < calls {
            tokio::time::sleep(Duration::from_millis(5)).await; // waits because nobody tells of each call
        }
    }

    /// Lets every caller finish the call that it is in, or all that there are to make, and looks at them all.
    pub(crate) async fn finish(
        mut self,
        executions: impl FnOnce() -> anyhow::Result<BTreeMap<u64, u64>>,
    ) -> anyhow::Result<Sums> {
        while self.workers.join_next().await.is_some() {}
        let executions = executions()?;
        let book = std::mem::take(&mut *self.tally.lock());
        let times = |id: u64| executions.get(&id).copied().unwrap_or(0);
        let mut broken: Vec<String> = Vec::new();
        for (id, times) in executions.iter().filter(|(_, times)| **times > 1) {
            broken.push(format!("call {id} was executed {times} times"));
        }
        for id in book.ok.iter().filter(|id| times(**id) == 0) {
            broken.push(format!("call {id} ended well and was never executed"));
        }
        for ended in book.failed.iter().filter(|ended| matches!(ended.outcome.as_str(), "NOT_SENT" | "NOT_STARTED")) {
            if times(ended.work.id) > 0 {
                broken.push(format!("call {} was executed, and ended {}", ended.work.id, ended.outcome));
            }
        }
        let Book { ok, in_doubt, failed, cancelled } = book;
        Ok(Sums { ok: ok.len() as u64, in_doubt, failed, cancelled, broken })
    }

    /// The same, without any call that has not begun.
    pub(crate) async fn stop(
        self,
        executions: impl FnOnce() -> anyhow::Result<BTreeMap<u64, u64>>,
    ) -> anyhow::Result<Sums> {
        self.enough.store(true, Ordering::Relaxed);
        self.finish(executions).await
    }
}

impl Tally {
    async fn one(&self, caller: &Caller, work: Work, cancel: bool) {
        let began = Instant::now();
        let end = if cancel {
            // Somewhere in its middle: where, the machine decides.
            let after = work.pause * 2 + Duration::from_micros(work.id % 1_000);
            tokio::time::timeout(after, caller.perform(&work)).await.ok()
        } else {
            Some(caller.perform(&work).await)
        };
        let mut book = self.lock();
        match end {
            None => book.cancelled += 1,
            Some(Ok(())) => book.ok.push(work.id),
            Some(Err(failure)) => {
                let ended =
                    Ended { work, began, ended: Instant::now(), outcome: failure.outcome(), why: failure.to_string() };
                if is_in_doubt(&failure) {
                    book.in_doubt.push(ended);
                } else {
                    book.failed.push(ended);
                }
            }
        }
        drop(book);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its instance was lost while it had the call. Where half of a message was out, no status can follow it: the client sees a
/// reset.
fn is_in_doubt(failure: &Failure) -> bool {
    match failure.code() {
        Some(Code::Unavailable) => failure.outcome() == "MAYBE_EXECUTED",
        Some(Code::Internal) => failure.outcome().is_empty() && failure.to_string().contains("reading a body"),
        _ => false,
    }
}

impl Sums {
    /// All calls.
    pub(crate) fn calls(&self) -> u64 {
        self.ok + self.in_doubt.len() as u64 + self.failed.len() as u64 + self.cancelled
    }

    /// What must not be where nobody is killed.
    pub(crate) fn none_failed(&self) -> anyhow::Result<()> {
        self.none_failed_but_in_doubt()?;
        anyhow::ensure!(
            self.in_doubt.is_empty(),
            "{} calls are in doubt, such as {}",
            self.in_doubt.len(),
            self.in_doubt[0]
        );
        Ok(())
    }

    /// What must not be where an instance is killed.
    pub(crate) fn none_failed_but_in_doubt(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.broken.is_empty(), "{}", self.broken.join("; "));
        anyhow::ensure!(self.failed.is_empty(), "{} calls failed, such as {}", self.failed.len(), self.failed[0]);
        anyhow::ensure!(self.ok > 0, "no call was made");
        Ok(())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = self.ended.duration_since(self.began);
        write!(f, "call {} ({:?}) after {took:.1?}: {}", self.work.id, self.work.kind, self.why)
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls, {} ok, {} failed", self.calls(), self.ok, self.failed.len() + self.broken.len())?;
        if !self.in_doubt.is_empty() {
            let inside = self.in_doubt.iter().filter(|ended| ended.outcome.is_empty()).count();
            write!(f, ", {} in doubt ({inside} of them in the middle of a message)", self.in_doubt.len())?;
        }
        if self.cancelled > 0 {
            write!(f, ", {} cancelled", self.cancelled)?;
        }
        Ok(())
    }
}
