//! How the runs of a model are spread over the cores, and who says so.

use crate::model::cell::Cell;
use crate::sched::spread::Spread;
use std::fmt;

/// Who says how runs are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user, by a flag or in the model's files.
    Set,
    /// Nobody: one thread a run, and as many runs as cores.
    Usual,
    /// It was found best by trying, now or at an earlier start.
    Tried,
}

/// How the runs of a model are spread over the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The spread.
    pub spread: Spread,
    /// Who says so.
    pub origin: Origin,
}

/// The same as it is now: others may be found better while the model is served.
pub type RunsCell = Cell<Runs>;

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Set => "as set",
            Origin::Usual => "as usual",
            Origin::Tried => "found best by trying",
        };
        write!(f, "{}, {origin}", self.spread)
    }
}
