//! How long it takes until rows that come now are done, by what is queued, what sessions have left of their runs, and
//! what runs cost.

use super::Scheduler;
use super::event::{Job, Refusal};
use super::session::{IN_HAND_MAX, Session};
use super::submit::Way;
use crate::id::StageId;
use crate::time::MonoTime;
use smallvec::SmallVec;
use std::time::Duration;

impl Scheduler {
    /// Refuses what would be late: its rows stand behind all rows that are queued now.
    pub(super) fn feasible(
        &self,
        job: &Job,
        ways: &[Way],
    ) -> Result<(), (Refusal, Option<Duration>)> {
        if job.deadline.is_none() && job.target.is_none() {
            return Ok(());
        }
        let expected = self.expected(job, ways);
        let late = |by: Option<MonoTime>| {
            let left = by.map(|by| by.since(self.now))?;
            (left.is_zero() || expected > left).then_some(left)
        };
        let (refusal, left) = if let Some(left) = late(job.deadline) {
            (Refusal::Infeasible { expected, left }, left)
        } else if let Some(left) = late(job.target) {
            (Refusal::Target { expected, left }, left)
        } else {
            return Ok(());
        };
        let retry_after = expected.saturating_sub(left).max(Duration::from_millis(1));
        Err((refusal, Some(retry_after)))
    }

    /// The time until the last of a job's rows would be done; zero while nothing was learned.
    fn expected(&self, job: &Job, ways: &[Way]) -> Duration {
        let whole = ways.iter().filter(|way| matches!(way, Way::Whole)).count();
        let through = ways.iter().filter(|way| matches!(way, Way::Bases(_))).count();
        let mut expected = Duration::ZERO;
        if whole > 0 {
            expected = self.eta(job.stage, whole).unwrap_or_default();
        }
        if let Some(path) = job.path.as_ref().filter(|_| through > 0) {
            let lowest = ways.iter().filter_map(|way| match way {
                Way::Bases(footing) => Some(footing.passed()),
                _ => None,
            });
            let stages = path.bases[lowest.min().unwrap_or(0)..].iter().map(|leg| leg.stage);
            let times = stages.chain([path.head]).filter_map(|stage| self.eta(stage, through));
            expected = expected.max(times.fold(Duration::ZERO, Duration::saturating_add));
        }
        expected
    }

    /// The time until the last of `more` rows of a stage would be done; none while nothing was learned.
    pub(super) fn eta(&self, id: StageId, more: usize) -> Option<Duration> {
        let stage = self.stages.get(&id)?;
        let size = stage.costs.useful_rows(stage.config.batch_rows_max).max(1);
        let mut free: SmallVec<[Duration; 8]> =
            self.sessions.serving(id).map(|(_, session)| self.busy_for(session)).collect();
        free.sort_unstable();
        if free.is_empty() {
            free.push(Duration::ZERO);
        }
        stage.costs.expected(1)?;
        // Full batches ahead of the last row, which go to the sessions by turns as these get free.
        let Some(ahead) = (stage.queue.rows() + more).checked_sub(1) else { return Some(free[0]) };
        let (batches, beside) = (ahead / size, ahead % size);
        let rounds = u32::try_from(batches / free.len()).unwrap_or(u32::MAX);
        let waits = stage.costs.expected(size)?.saturating_mul(rounds);
        let own = stage.costs.likely_at_least(beside + 1)?;
        Some(free[batches % free.len()].saturating_add(waits).saturating_add(own))
    }

    /// The time until a session has done what it has in hand.
    fn busy_for(&self, session: &Session) -> Duration {
        let batches = session.in_hand.iter().filter_map(|batch| self.batches.get(batch));
        let left = batches.filter_map(|batch| {
            let run = self.stages.get(&batch.stage)?.costs.expected(batch.flights.len())?;
            let passed = batch.started.map_or(Duration::ZERO, |begun| self.now.since(begun));
            Some(run.saturating_sub(passed))
        });
        left.sum()
    }

    /// The time until the queue in front of a job is worked off, as a hint when to try again.
    pub(super) fn backlog(&self, job: &Job) -> Duration {
        let sessions = self.sessions.serving(job.stage).count().max(1);
        let least = Duration::from_millis(10 * (IN_HAND_MAX / sessions).max(1) as u64);
        self.eta(job.stage, 0).unwrap_or_default().max(least)
    }
}
