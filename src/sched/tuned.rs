//! Sessions that are set up in another way while they serve: new ones come, then the old ones leave.

use super::Scheduler;
use super::config::Tuned;
use super::cost::Costs;
use super::event::Action;
use crate::id::{SessionId, StageId};

impl Scheduler {
    /// Forgets what runs of the sessions so far cost, for they say nothing of those that come.
    pub(super) fn stage_tuned(&mut self, id: StageId, tuned: Tuned) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        let Tuned { batch_rows_max, batch_rows_knee, known } = tuned;
        stage.costs = Costs::recall(&known);
        stage.costs_aside = None;
        stage.classes.clear();
        stage.config.batch_rows_max = batch_rows_max;
        stage.config.batch_rows_knee = batch_rows_knee;
    }

    /// A session gets no more batches; one that has nothing in hand goes at once.
    pub(super) fn session_leaves(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.0.get_mut(&id) {
            session.leaves = true;
        }
        self.let_leave(id);
    }

    /// Lets a session go that is to leave and has nothing in hand.
    pub(super) fn let_leave(&mut self, id: SessionId) {
        let ready = |session: &super::Session| session.leaves && session.in_hand.is_empty();
        if self.sessions.0.get(&id).is_some_and(ready) {
            self.sessions.0.remove(&id);
            self.actions.push_back(Action::Retire { session: id });
        }
    }
}
