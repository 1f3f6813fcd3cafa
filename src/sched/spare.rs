//! Sessions that are kept only while they pay: those of whole models whose rows go through shared bases.
//!
//! A spare stage rests once nothing of it is in flight: its sessions, and the weights in them, are given back. It is
//! raised at once for a row that can go no other way, and otherwise when the rows that would have been better off
//! with it lost as much as raising it costs, and are no rare exception. Waiting until the loss equals the price is at most twice as dear as
//! knowing the future (the ski rental rule).
//!
//! # Source
//! design.md section 4; Karlin et al., Competitive randomized algorithms for nonuniform problems (1990), for the rule.

use super::event::{Action, Purpose};
use super::reuse::{Choice, Policy, Reason, Route};
use super::session::Session;
use super::timer::Timer;
use super::{Scheduler, Stage};
use crate::id::{SessionId, StageId};
use crate::time::{MonoTime, nanos};
use std::time::Duration;

/// Whether a stage's sessions are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Presence {
    /// They always are.
    #[default]
    Kept,
    /// They are, until nothing needs them for a while.
    Spare,
    /// They are not, and nothing needs them.
    Resting(Regret),
    /// They are being started.
    Rising {
        /// Since when.
        since: MonoTime,
        /// They stay once they are there.
        to_stay: bool,
    },
}

/// What rows lost for want of a stage that rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Regret {
    /// In weighed nanoseconds.
    lost: u64,
    /// Rows that it was counted over, and those of them that would have been better off.
    rows: u32,
    worse_off: u32,
    /// Since when it is counted; what is long past tells nothing of what will come.
    since: MonoTime,
}

/// One row in so many must be better off with a stage for it to be worth its memory: of the others some always look it,
/// by what costs were misjudged.
const WORSE_OFF_IN: u32 = 32;

impl Regret {
    /// Nothing lost so far.
    const fn none(now: MonoTime) -> Self {
        Self { lost: 0, rows: 0, worse_off: 0, since: now }
    }

    /// A row was to be sent on its way; none lost where it would have gone the same one.
    fn count(&mut self, lost: Option<u64>, now: MonoTime, window: Duration) {
        if now.since(self.since) > window {
            *self = Self::none(now);
        }
        self.rows = self.rows.saturating_add(1);
        if let Some(lost) = lost {
            self.worse_off = self.worse_off.saturating_add(1);
            self.lost = self.lost.saturating_add(lost);
        }
    }

    /// Whether what was lost is worth as much as raising the stage costs.
    fn is_worth(&self, rise: Duration) -> bool {
        self.lost >= nanos(rise) && self.worse_off.saturating_mul(WORSE_OFF_IN) >= self.rows
    }
}

impl Stage {
    /// Whether its sessions are away on purpose, or on their way back.
    pub(super) const fn is_down(&self) -> bool {
        matches!(self.presence, Presence::Resting(_) | Presence::Rising { .. })
    }
}

impl Scheduler {
    /// A stage's sessions are kept only while they pay from now on.
    pub(super) fn stage_spare(&mut self, id: StageId, rise: Duration) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        stage.rise = rise;
        match &mut stage.presence {
            Presence::Kept => stage.presence = Presence::Spare,
            Presence::Rising { to_stay, .. } => *to_stay = false,
            Presence::Spare | Presence::Resting(_) => return,
        }
        if !self.rest(id) {
            self.look_again(id);
        }
    }

    /// A stage's sessions stay from now on, and come back if they rest.
    pub(super) fn stage_needed(&mut self, id: StageId) {
        self.raise(id);
        let Some(stage) = self.stages.get_mut(&id) else { return };
        match &mut stage.presence {
            Presence::Rising { to_stay, .. } => *to_stay = true,
            presence => *presence = Presence::Kept,
        }
    }

    /// A stage's sessions were not started: there is no memory for them.
    pub(super) fn raise_refused(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        let Presence::Rising { .. } = stage.presence else { return };
        if stage.flights > 0 {
            // Rows came meanwhile that can go no other way.
            return self.actions.push_back(Action::Raise { stage: id, needed: true });
        }
        stage.presence = Presence::Resting(Regret::none(self.now));
    }

    /// Brings a stage's sessions back, if they rest.
    pub(super) fn raise(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        if let Presence::Resting(_) = stage.presence {
            stage.presence = Presence::Rising { since: self.now, to_stay: false };
            let needed = stage.flights > 0;
            self.actions.push_back(Action::Raise { stage: id, needed });
        }
    }

    /// A session of a stage is there: it rises no more.
    pub(super) fn risen(&mut self, id: StageId) {
        let now = self.now;
        let Some(stage) = self.stages.get_mut(&id).filter(|stage| stage.is_down()) else { return };
        let to_stay = match stage.presence {
            Presence::Rising { since, to_stay } => {
                stage.rise = now.since(since);
                to_stay
            }
            _ => false,
        };
        stage.presence = if to_stay { Presence::Kept } else { Presence::Spare };
        if !to_stay {
            stage.moved = now;
            self.look_again(id);
        }
    }

    /// The time came to see whether a spare stage is still of use.
    pub(super) fn spare_idle(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        stage.spare_at = None;
        if stage.presence != Presence::Spare {
            return;
        }
        let unused = self.now.since(stage.moved) >= self.config.rest_after;
        if !(unused && self.rest(id)) {
            self.look_again(id);
        }
    }

    fn look_again(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        let after = stage.moved.after(self.config.rest_after);
        // Never at once: something of it may be in flight for long.
        let at = if after > self.now { after } else { self.now.after(self.config.rest_after) };
        if let Some(earlier) = stage.spare_at.replace(at) {
            self.timers.cancel(earlier, Timer::Spare(id));
        }
        self.timers.set(at, Timer::Spare(id));
    }

    /// Gives a spare stage's sessions back, unless something of it is in flight.
    fn rest(&mut self, id: StageId) -> bool {
        let Some(stage) = self.stages.get_mut(&id) else { return false };
        if stage.presence != Presence::Spare || stage.flights > 0 || stage.retired {
            return false;
        }
        stage.presence = Presence::Resting(Regret::none(self.now));
        // Nothing of the stage is in flight, so none of its sessions has anything in hand.
        let serving = |_: &SessionId, session: &mut Session| {
            session.stage == id && session.purpose == Purpose::Serving
        };
        let sessions = self.sessions.0.extract_if(.., serving);
        self.actions.extend(sessions.map(|(session, _)| Action::Retire { session }));
        self.actions.push_back(Action::Rest { stage: id });
        true
    }

    /// What is to be done instead where the whole model was chosen and rests; raises it once that pays.
    pub(super) fn instead_of_resting(
        &mut self,
        id: StageId,
        policy: Policy,
        choice: Choice,
        split: Route,
    ) -> Choice {
        let (now, window) = (self.now, self.config.rest_after);
        let Some(stage) = self.stages.get_mut(&id).filter(|stage| stage.is_down()) else {
            return choice;
        };
        let whole = choice.route == Route::Whole && policy != Policy::Never;
        let lost = choice.split.saturating_sub(choice.whole.unwrap_or(choice.split));
        let mut pays = false;
        if let Presence::Resting(regret) = &mut stage.presence {
            regret.count(whole.then_some(lost), now, window);
            pays = whole && regret.is_worth(stage.rise);
        }
        if !whole {
            return choice;
        }
        if pays {
            self.raise(id);
        }
        Choice { route: split, reason: Reason::Resting, ..choice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_rows_that_look_worse_off_raise_nothing_however_long_they_add_up() {
        let (window, rise) = (Duration::from_secs(60), Duration::from_secs(1));
        let at = |ms: u64| MonoTime::from_nanos(ms * 1_000_000);
        let regret = |one_in: u64| {
            let mut regret = Regret::none(MonoTime::ZERO);
            for row in 0..50_000 {
                regret.count((row % one_in == 0).then_some(50_000_000), at(row), window);
            }
            regret
        };
        assert!(!regret(300).is_worth(rise));
        assert!(regret(10).is_worth(rise));
        let mut late = regret(10);
        late.count(None, at(120_000), window);
        assert!(!late.is_worth(rise), "what is long past tells nothing");
    }
}
