//! What goes into the driver and what comes out of it.

use super::lineage::Trail;
use crate::id::{ClassKey, RequestId, RowKey, SessionId, StageId};
use crate::metrics::Phases;
use crate::model::ModelSpec;
use crate::model::way::Way;
use crate::rows::{Inputs, RowValue};
use crate::sched::event::{Outcome, Path, Priority, Sharing};
use crate::sched::reuse::Route;
use crate::time::MonoTime;
use std::sync::Arc;
use std::time::Duration;

/// A checked request on its way into the scheduler.
#[derive(Clone, Debug)]
pub struct Call {
    /// The model that is asked.
    pub spec: Arc<ModelSpec>,
    /// Its inputs.
    pub inputs: Arc<Inputs>,
    /// The key of every row.
    pub keys: Vec<RowKey>,
    /// What its rows may share a batch with.
    pub class: ClassKey,
    /// It runs as it came, not cut into rows.
    pub whole: bool,
    /// What may be shared.
    pub sharing: Sharing,
    /// How urgent it is.
    pub priority: Priority,
    /// How long its answer is worth waiting for.
    pub timeout: Option<Duration>,
    /// The time within which it should be answered.
    pub target: Option<Duration>,
    /// The way through shared bases that its rows may take.
    pub way: Option<Arc<Way>>,
    /// The same with the rows as the bases see them.
    pub path: Option<Path>,
}

/// What a call gets.
#[derive(Debug)]
pub struct Reply {
    /// Its number.
    pub request: RequestId,
    /// How it ended.
    pub outcome: Outcome,
    /// Its rows, if it is complete.
    pub rows: Vec<RowValue>,
    /// How each row was answered; empty where all were alike, as the tally has it.
    pub routes: Vec<Route>,
    /// How its first rows were decided and came to be.
    pub trail: Trail,
    /// When it was submitted.
    pub submitted: MonoTime,
    /// Where its time went, if a run was needed for it.
    pub phases: Option<Phases>,
}

/// What the pools are asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start a session apart for suspect rows.
    Isolate {
        /// The stage.
        stage: StageId,
    },
    /// Stop a session.
    Retire {
        /// The session.
        session: SessionId,
    },
    /// Give back what a stage's serving sessions took.
    Rest {
        /// The stage.
        stage: StageId,
    },
    /// Start the serving sessions of a stage that rests.
    Raise {
        /// The stage.
        stage: StageId,
        /// Rows wait that can go no other way.
        needed: bool,
    },
    /// Let go of everything that a retired stage has.
    Forget {
        /// The stage.
        stage: StageId,
    },
    /// Sessions died with their process.
    Died {
        /// The sessions.
        sessions: Vec<SessionId>,
        /// What the system says of the process's end.
        how: String,
    },
    /// A session takes too long; it is asked to stop.
    Hung {
        /// The session.
        session: SessionId,
    },
}
