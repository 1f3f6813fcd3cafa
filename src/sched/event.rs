//! The whole alphabet of the scheduler: what can happen, and what it can ask for.
//!
//! Both enums are closed, so that everything that wakes the scheduler can be listed, logged and replayed.

use crate::id::{BatchId, ClassKey, RequestId, RowKey, SessionId, StageId};
use crate::sched::config::{StageConfig, Tuned};
use crate::sched::flight::FlightId;
use crate::sched::reuse::{Policy, Route};
use crate::sched::why::Why;
use crate::time::MonoTime;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

pub use crate::sched::outcome::{Outcome, Refusal};
pub use crate::sched::tally::Tally;

/// How urgent a request is: 1 is the most urgent, 9 the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// What a request gets that asks for nothing.
    pub const DEFAULT: Self = Self(5);

    /// The priority with this number; 0 means the default, larger numbers than 9 mean 9.
    #[must_use]
    pub fn new(number: u64) -> Self {
        match u8::try_from(number) {
            Ok(0) => Self::DEFAULT,
            Ok(level @ 1..=9) => Self(level),
            _ => Self(9),
        }
    }

    /// The number, 1 to 9.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

/// What a request lets be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Its rows may join flights and be joined.
    pub join: bool,
    /// Its rows may be answered from kept rows.
    pub lookup: bool,
    /// Its rows may be kept.
    pub store: bool,
}

impl Sharing {
    /// Everything may be shared.
    pub const ALL: Self = Self { join: true, lookup: true, store: true };
    /// Nothing may be shared.
    pub const NONE: Self = Self { join: false, lookup: false, store: false };
}

/// A checked request as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Who waits for it.
    pub request: RequestId,
    /// The stage that answers it.
    pub stage: StageId,
    /// What its rows must have in common with others to run together.
    pub class: ClassKey,
    /// Its rows, in order.
    pub rows: Vec<RowKey>,
    /// Input bytes of its largest row.
    pub row_bytes: u64,
    /// When its answer is worth nothing any more.
    pub deadline: Option<MonoTime>,
    /// When its answer should be there; past that it is still of use, if it runs by then.
    pub target: Option<MonoTime>,
    /// How urgent it is.
    pub priority: Priority,
    /// What may be shared.
    pub sharing: Sharing,
    /// The way through shared bases that its rows may take instead.
    pub path: Option<Path>,
}

/// A base on the way of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The stage that runs it.
    pub stage: StageId,
    /// What its rows must have in common with others to run together there.
    pub class: ClassKey,
    /// The job's rows as the base sees them, in the job's order.
    pub rows: Vec<RowKey>,
}

/// A way of rows through stages that each take what the one before gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The bases, the lowest first; at least one.
    pub bases: Vec<Leg>,
    /// The stage that turns the last base's output into the answer.
    pub head: StageId,
    /// Whether the way is taken at all.
    pub policy: Policy,
}

impl Job {
    /// When its answer is needed: by its deadline or its target, whichever is sooner.
    #[must_use]
    pub fn needed_by(&self) -> Option<MonoTime> {
        self.deadline.into_iter().chain(self.target).min()
    }

    /// The keys of its rows, on every way they may take.
    pub fn keys(&self) -> impl Iterator<Item = &RowKey> {
        let bases = self.path.iter().flat_map(|path| &path.bases);
        self.rows.iter().chain(bases.flat_map(|leg| &leg.rows))
    }
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Everyday traffic.
    Serving,
    /// Running suspect rows, apart from other traffic.
    Isolation,
}

/// Why a batch gave no outputs although its session lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A sentence that the client may see.
    pub message: Arc<str>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A stage can be submitted to.
    StageUp {
        /// The stage.
        stage: StageId,
        /// How it is to be scheduled.
        config: StageConfig,
    },
    /// A stage gets no new requests; it goes once its last one is answered.
    StageRetired {
        /// The stage.
        stage: StageId,
    },
    /// A stage's rows can go another way: its sessions are kept only while they pay.
    StageSpare {
        /// The stage.
        stage: StageId,
        /// How long it takes to start its sessions.
        rise: Duration,
    },
    /// A stage's sessions are to stay, and to come back if they rest.
    StageNeeded {
        /// The stage.
        stage: StageId,
    },
    /// Made-up rows will run on a stage: where its costs are known, these runs are not to change them.
    TrialBegun {
        /// The stage.
        stage: StageId,
    },
    /// They ran.
    TrialOver {
        /// The stage.
        stage: StageId,
    },
    /// Sessions that rest were not started for want of memory.
    RaiseRefused {
        /// The stage.
        stage: StageId,
    },
    /// A warm session waits for batches.
    SessionUp {
        /// The session.
        session: SessionId,
        /// The stage it runs.
        stage: StageId,
        /// What it is for.
        purpose: Purpose,
        /// Device slots (cores, on a CPU) that one run of it occupies.
        slots: u32,
    },
    /// A stage has no sessions and will have none for a while: whoever waits is told.
    StageFailed {
        /// The stage.
        stage: StageId,
        /// Why.
        failure: Failure,
    },
    /// A session is gone, with whatever it had in hand: what it ran is suspect.
    SessionDown {
        /// The session.
        session: SessionId,
    },
    /// Others take a session's place: it gets no more batches, and is to go once it has nothing in hand.
    SessionLeaves {
        /// The session.
        session: SessionId,
    },
    /// A stage's sessions are set up in another way from now on: what was learned of their runs holds no more.
    StageTuned {
        /// The stage.
        stage: StageId,
        /// What holds instead.
        tuned: Tuned,
    },
    /// No session could be started to run suspect rows apart.
    IsolationFailed {
        /// The stage.
        stage: StageId,
        /// Why.
        failure: Failure,
    },
    /// A request came.
    Submit(Job),
    /// A request's caller went away.
    Cancel(RequestId),
    /// A batch has outputs.
    Done {
        /// The session that ran it.
        session: SessionId,
        /// The batch.
        batch: BatchId,
        /// How long the run took, queueing excluded.
        service: Duration,
        /// Bytes that a row of it takes where it is kept.
        row_bytes: u64,
    },
    /// A batch has an error.
    Failed {
        /// The session that ran it.
        session: SessionId,
        /// The batch.
        batch: BatchId,
        /// What the engine said.
        failure: Failure,
    },
    /// No more requests are to be accepted.
    Drain,
}

/// One row of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowRef {
    /// The request.
    pub request: RequestId,
    /// Which of its rows.
    pub row: u32,
}

/// Which rows a store keeps: answers and base outputs have separate budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Store {
    /// Rows of answers.
    #[default]
    Answers,
    /// Rows of base outputs.
    Bases,
}

/// Where a kept row lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// In which store.
    pub store: Store,
    /// Its number there.
    pub number: u32,
}

/// Requests' rows that are answered by one row of a batch; one of them nearly always.
pub type Waiters = SmallVec<[RowRef; 1]>;

/// What becomes of one row of a batch that is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettledRow {
    /// Who gets it.
    pub waiters: Waiters,
    /// The flights that take it as their base output.
    pub above: SmallVec<[FlightId; 1]>,
    /// Where it is kept.
    pub keep: Option<Slot>,
}

/// Why a batch was formed now and with these rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunReason {
    /// A session was idle and took what was there.
    Idle,
    /// As many rows as help are together.
    Full,
    /// The queue delay of the oldest row is over.
    Delay,
    /// Formed ahead for a session that still runs.
    Ahead,
    /// Rows of a failed or fatal batch, run again apart.
    Suspect,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gather these rows and hand them to the session.
    Run {
        /// The session.
        session: SessionId,
        /// The stage that it runs.
        stage: StageId,
        /// The batch's number.
        batch: BatchId,
        /// Where the input of each row is found.
        rows: Vec<RowRef>,
        /// The flights whose base outputs the rows take, in their order; empty where they take none.
        bases: Vec<FlightId>,
        /// Why now.
        reason: RunReason,
    },
    /// A row of a request is answered from the store.
    Hit {
        /// The request's row.
        row: RowRef,
        /// Where its answer is kept.
        slot: Slot,
    },
    /// A flight takes a kept base output.
    Reuse {
        /// The flight.
        flight: FlightId,
        /// Where the output is kept.
        slot: Slot,
    },
    /// A flight is over that had a base output.
    Spend {
        /// The flight.
        flight: FlightId,
    },
    /// How the rows of an accepted request go, in its order; comes before its end.
    Routes {
        /// The request.
        request: RequestId,
        /// One for each row.
        routes: Vec<Route>,
    },
    /// Why the first rows of an accepted request go as they do, where there was a choice; comes before its end.
    Explain {
        /// The request.
        request: RequestId,
        /// One for each row that could go through shared bases, at most so many as are told.
        rows: Vec<Why>,
    },
    /// The rows of a batch go to these waiters.
    Settle {
        /// The batch.
        batch: BatchId,
        /// One entry per row, in the batch's order.
        rows: Vec<SettledRow>,
    },
    /// Forget a kept row.
    Evict {
        /// Where it is.
        slot: Slot,
    },
    /// A request has its end.
    Reply {
        /// The request.
        request: RequestId,
        /// How it ended.
        outcome: Outcome,
    },
    /// No row in flight needs the inputs of this request any more.
    Release {
        /// The request.
        request: RequestId,
    },
    /// Start a session apart for suspect rows.
    Isolate {
        /// The stage.
        stage: StageId,
    },
    /// Stop a session that has nothing in hand.
    Retire {
        /// The session.
        session: SessionId,
    },
    /// Give back what a stage's sessions took; they were retired.
    Rest {
        /// The stage.
        stage: StageId,
    },
    /// Start the sessions of a stage that rests.
    Raise {
        /// The stage.
        stage: StageId,
        /// Rows wait that can go no other way.
        needed: bool,
    },
    /// Nothing of a retired stage is left: its last row was answered.
    Forget {
        /// The stage.
        stage: StageId,
    },
    /// Ask the session to end its run: it takes too long.
    Terminate {
        /// The session.
        session: SessionId,
        /// The batch it runs.
        batch: BatchId,
    },
    /// End the session's process: it did not obey.
    Kill {
        /// The session.
        session: SessionId,
    },
}
