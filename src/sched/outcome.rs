//! How requests end: answered, or why not.

use crate::sched::event::Failure;
use crate::sched::tally::Tally;
use std::time::Duration;

/// Why a request is refused at admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many requests as allowed are in flight.
    Requests {
        /// The limit.
        limit: usize,
    },
    /// As many rows as allowed wait or run.
    Rows {
        /// Rows that wait or run now.
        held: usize,
        /// The limit.
        limit: usize,
    },
    /// As many rows as the stage allows wait for it.
    Queue {
        /// Rows that wait now.
        held: usize,
        /// The limit.
        limit: usize,
    },
    /// The rows that wait or run hold as many bytes as allowed.
    Bytes {
        /// Bytes held now.
        held: u64,
        /// The limit.
        limit: u64,
    },
    /// A flight has as many waiters as allowed.
    Waiters {
        /// The limit.
        limit: usize,
    },
    /// The answer could not be there in time.
    Infeasible {
        /// Expected time to the answer.
        expected: Duration,
        /// Time left.
        left: Duration,
    },
    /// The answer could not be there within the model's latency target.
    Target {
        /// Expected time to the answer.
        expected: Duration,
        /// Time left.
        left: Duration,
    },
    /// The daemon drains.
    Draining,
    /// The stage is not known, or retired.
    NoStage,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every row is there.
    Complete(Tally),
    /// Not accepted.
    Refused {
        /// Why.
        refusal: Refusal,
        /// When the same request may be accepted.
        retry_after: Option<Duration>,
    },
    /// Its deadline passed, or can be met no more.
    Expired,
    /// Accepted, and given up while it waited: its model's latency target can be met no more.
    Shed {
        /// Expected time to the answer.
        expected: Duration,
        /// Time left.
        left: Duration,
        /// When the same request may be answered in time.
        retry_after: Duration,
    },
    /// The model reported an error for one of its rows.
    Failed(Failure),
    /// One of its rows ends the process that runs it.
    Crashed,
    /// One of its rows ended a process lately and is not tried again yet.
    Quarantined,
}
