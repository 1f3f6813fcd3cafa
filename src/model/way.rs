//! The way of a model's rows through shared bases, as long as there is one.

use crate::digest::StageDigest;
use crate::id::StageId;
use crate::model::cell::Cell;
use crate::sched::reuse::Policy;

/// A base on a model's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUse {
    /// The stage that runs it.
    pub stage: StageId,
    /// The content of all that leads from the inputs to its output.
    pub digest: StageDigest,
    /// What tells its rows from those of other bases, and rounded ones from exact ones.
    pub keyed_by: StageDigest,
    /// The numbers of the model's inputs that its output depends on, in the base's order.
    pub reads: Vec<usize>,
}

/// The way of a model's rows through bases to its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The bases, the lowest first; at least one.
    pub bases: Vec<BaseUse>,
    /// The stage that turns the last base's output into the model's.
    pub head: StageId,
    /// When it is taken.
    pub policy: Policy,
}

impl Way {
    /// Whether a stage is on it.
    #[must_use]
    pub fn leads_through(&self, stage: StageId) -> bool {
        self.head == stage || self.bases.iter().any(|base| base.stage == stage)
    }
}

/// A model's way as it is now: families come and go while their members are served.
pub type WayCell = Cell<Way>;
