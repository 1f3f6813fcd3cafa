//! Everything the scheduler waits for by time, as data.

use crate::id::{BatchId, RequestId, StageId};
use crate::time::MonoTime;
use std::collections::BTreeSet;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A request's deadline passes.
    Deadline(RequestId),
    /// The queue delay of a stage's oldest row is over.
    Ripe(StageId),
    /// A run takes too long and is asked to end.
    Watchdog(BatchId),
    /// A run that was asked to end did not.
    Grace(BatchId),
    /// A stage's session apart has waited long enough for more suspects.
    IsolationIdle(StageId),
    /// A stage whose sessions are spare may be of no use any more.
    Spare(StageId),
}

/// The timers that are set, in order.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(MonoTime, Timer)>);

impl Timers {
    /// Sets a timer.
    pub(super) fn set(&mut self, at: MonoTime, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Takes a timer back; one that is not set is no harm.
    pub(super) fn cancel(&mut self, at: MonoTime, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// When the first one fires.
    #[must_use]
    pub(super) fn next(&self) -> Option<MonoTime> {
        self.0.first().map(|&(at, _)| at)
    }

    /// Takes the first one that is due.
    pub(super) fn pop_due(&mut self, now: MonoTime) -> Option<Timer> {
        let &(at, timer) = self.0.first().filter(|&&(at, _)| at <= now)?;
        self.0.remove(&(at, timer));
        Some(timer)
    }
}
