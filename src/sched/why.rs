//! What spoke for the route of a row that could go through shared bases, as it is told to whoever asks.

use crate::sched::reuse::{Choice, Reason, Route};
use std::time::Duration;

/// Rows of one request of which it is told how they were decided; of more, only how many there are.
pub const ROWS_TOLD: usize = 64;

/// What was known when a route was chosen. Times are until the end of a run, waiting included; none where nothing was
/// learned yet or nothing had to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weighed {
    /// Making the base output, or the time until it is there.
    pub base: Option<Duration>,
    /// The head, and the bases between what is there and it.
    pub head: Option<Duration>,
    /// The whole model.
    pub whole: Option<Duration>,
    /// The chance in 1024 that another row will want the base output.
    pub again: u32,
    /// The share of the device in 1024 that was at work lately.
    pub busy: u32,
}

/// How one row was decided where there was a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why {
    /// Which row of its request.
    pub row: u32,
    /// The route and its reason, with the two sums that were compared.
    pub choice: Choice,
    /// What they were made of.
    pub weighed: Weighed,
}

impl Why {
    /// The same once the row was committed: an earlier row of its request may have begun its base meanwhile. None where
    /// that even runs its answer.
    #[must_use]
    pub fn taken(self, route: Route) -> Option<Self> {
        let Choice { route: chosen, reason, .. } = self.choice;
        let reason = match route {
            Route::Join => return None,
            Route::Follow if chosen != route => Reason::BaseThere,
            _ => reason,
        };
        Some(Self { choice: Choice { route, reason, ..self.choice }, ..self })
    }
}
