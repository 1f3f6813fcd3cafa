//! Where rows come from: which stage made a row in which batch, for whom, and of what base output.
//!
//! It stands beside the rows themselves, in the ledger: what is told of a row is what happened to its bytes.

use crate::id::{BatchId, RequestId};
use crate::model::stage::StageName;
use crate::sched::event::RowRef;
use crate::sched::why::{ROWS_TOLD, Why};
use crate::time::MonoTime;
use smallvec::SmallVec;
use std::sync::Arc;

/// How one row of outputs came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The stage that made it.
    pub stage: Arc<StageName>,
    /// In which batch.
    pub batch: BatchId,
    /// Of whose input.
    pub request: RequestId,
    /// When.
    pub at: MonoTime,
    /// The base output that it was made of.
    pub below: Option<Arc<Self>>,
}

/// How the first rows of a request came to be; none of those that never came.
pub type Lineage = SmallVec<[Option<Made>; 1]>;

/// What is known of a request beside its rows: how they were decided, and how they came to be.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Why the first rows went as they did, where there was a choice.
    pub whys: Vec<Why>,
    /// How the first rows came to be.
    pub made: Lineage,
}

impl Trail {
    /// Room for the rows that are told of.
    pub(super) fn of(rows: usize) -> Self {
        Self { whys: Vec::new(), made: smallvec::smallvec![None; rows.min(ROWS_TOLD)] }
    }
}

/// What a batch in hand will have made of each of its rows.
pub(super) struct Sources {
    pub stage: Arc<StageName>,
    pub rows: Vec<RowRef>,
    /// The base outputs that the rows take; empty where they take none.
    pub below: Vec<Option<Arc<Made>>>,
}

impl Sources {
    /// How the outputs of a row came to be, once they are there.
    pub(super) fn made(&self, batch: BatchId, row: usize, at: MonoTime) -> Option<Made> {
        let request = self.rows.get(row)?.request;
        let below = self.below.get(row).cloned().flatten();
        Some(Made { stage: self.stage.clone(), batch, request, at, below })
    }
}
