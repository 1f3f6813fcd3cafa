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

/// After so long without a run, one is let in whatever runs cost before.
const FORGOTTEN: Duration = Duration::from_secs(10);

impl Scheduler {
    /// Refuses what would be late: its rows stand behind all rows that are queued on its device now.
    pub(super) fn feasible(
        &self,
        job: &Job,
        ways: &[Way],
    ) -> Result<(), (Refusal, Option<Duration>)> {
        if (job.deadline.is_none() && job.target.is_none()) || self.is_forgotten(job.stage) {
            return Ok(());
        }
        let margin = self.stages.get(&job.stage).map_or(Duration::ZERO, |s| s.margin.time());
        // The time that it must have.
        let expected = self.expected(job, ways).saturating_add(margin);
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

    /// Whether a stage has done nothing for so long that what it was seen to cost may be so no more: whoever refuses all
    /// never sees that.
    fn is_forgotten(&self, id: StageId) -> bool {
        let idle =
            |stage: &super::Stage| stage.flights == 0 && self.now.since(stage.moved) >= FORGOTTEN;
        self.stages.get(&id).is_some_and(idle)
    }

    /// The time until the last of a job's rows would be done; zero while nothing was learned.
    fn expected(&self, job: &Job, ways: &[Way]) -> Duration {
        let whole = ways.iter().filter(|way| matches!(way, Way::Whole)).count();
        let through = ways.iter().filter(|way| matches!(way, Way::Bases(_))).count();
        let mut own: SmallVec<[StageId; 4]> = SmallVec::new();
        let mut expected = Duration::ZERO;
        if whole > 0 {
            own.push(job.stage);
            expected = self.eta(job.stage, whole).unwrap_or_default();
        }
        if let Some(path) = job.path.as_ref().filter(|_| through > 0) {
            let lowest = ways.iter().filter_map(|way| match way {
                Way::Bases(footing) => Some(footing.passed()),
                _ => None,
            });
            let stages = path.bases[lowest.min().unwrap_or(0)..].iter().map(|leg| leg.stage);
            let begun = own.len();
            own.extend(stages.chain([path.head]));
            let times = own[begun..].iter().filter_map(|&stage| self.eta(stage, through));
            expected = expected.max(times.fold(Duration::ZERO, Duration::saturating_add));
        }
        let Some(stage) = self.stages.get(&job.stage).filter(|_| !expected.is_zero()) else {
            return expected;
        };
        expected.saturating_add(self.others_wait(stage.config.device, &own))
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
        let own = stage.costs.sure_at_least(beside + 1, stage.config.quantile)?;
        Some(free[batches % free.len()].saturating_add(waits).saturating_add(own))
    }

    /// What a stage surely takes at most for one row alone; zero while nothing was learned.
    pub(super) fn single(&self, id: StageId) -> Duration {
        self.stages.get(&id).and_then(|stage| stage.surely(1)).unwrap_or_default()
    }

    /// The time until a session has done what it has in hand.
    pub(super) fn busy_for(&self, session: &Session) -> Duration {
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

#[cfg(test)]
mod tests {
    use super::super::config::{Config, StageConfig};
    use super::super::cost::Learned;
    use super::super::event::{Action, Event, Outcome, Priority, Purpose, Sharing};
    use super::*;
    use crate::id::{ClassKey, RequestId, RowKey, SessionId};

    const STAGE: StageId = StageId(0);
    const SESSION: SessionId = SessionId(0);
    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(ms * 1_000_000)
    }

    /// A stage of which this is known, with one session.
    fn knowing(known: Vec<Learned>) -> Scheduler {
        let mut scheduler = Scheduler::new(Config::default());
        let config = StageConfig { known, ..StageConfig::default() };
        scheduler.handle(at(0), Event::StageUp { stage: STAGE, config });
        let (purpose, slots) = (Purpose::Serving, 1);
        let up = Event::SessionUp { session: SESSION, stage: STAGE, purpose, slots };
        scheduler.handle(at(0), up);
        scheduler
    }

    /// Asks for a new row that is wanted within 10 ms, or a second where runs take long. Whether it was answered.
    fn answered(scheduler: &mut Scheduler, number: u64, at: MonoTime, run: Duration) -> bool {
        let within = if run > 10 * MS { 1_000 * MS } else { 10 * MS };
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let job = Job {
            request: RequestId(number),
            stage: STAGE,
            class: ClassKey([0; 16]),
            rows: vec![RowKey(key)],
            row_bytes: 1,
            deadline: None,
            target: Some(at.after(within)),
            priority: Priority::DEFAULT,
            sharing: Sharing::NONE,
            path: None,
        };
        scheduler.handle(at, Event::Submit(job));
        let mut end = None;
        while let Some(action) = scheduler.poll() {
            match action {
                Action::Run { session, batch, .. } => {
                    let row_bytes = 1;
                    let done = Event::Done { session, batch, service: run, row_bytes };
                    scheduler.handle(at.after(run), done);
                }
                Action::Reply { outcome, .. } => end = Some(outcome),
                _ => {}
            }
        }
        matches!(end, Some(Outcome::Complete(_)))
    }

    #[test]
    fn a_stage_that_refuses_everybody_looks_again_whether_it_has_to() {
        let mut scheduler = knowing(Vec::new());
        // Something else has the machine: runs take too long.
        for number in 0..20 {
            assert!(answered(&mut scheduler, number, at(200 * number), 100 * MS), "{number}");
        }
        assert!(!answered(&mut scheduler, 21, at(4_000), MS), "what was learned refuses it");
        assert!(!answered(&mut scheduler, 22, at(9_000), MS));
        // It is gone. One is let in now and then, until what runs take is known again.
        let tries = (2..12).take_while(|&look| {
            assert!(answered(&mut scheduler, 100 + look, at(look * 11_000), MS), "{look}");
            !answered(&mut scheduler, 200 + look, at(look * 11_000 + 500), MS)
        });
        assert!(tries.count() < 5);
    }

    #[test]
    fn what_an_earlier_start_learned_decides_from_the_first_row_on_until_runs_say_otherwise() {
        let mut scheduler = knowing(Vec::new());
        assert!(answered(&mut scheduler, 0, at(0), MS), "nothing is known");
        let took = |ns| vec![Learned { rows: 1, runs: 9, mean_ns: ns, likely_ns: ns, high_ns: ns }];
        let mut scheduler = knowing(took(100_000_000));
        assert!(!answered(&mut scheduler, 0, at(0), MS), "ten times as long as it may take");
        // Runs take 11 ms here: four that are far from what was known make it forgotten.
        for number in 1..=4 {
            assert!(answered(&mut scheduler, number, at(100 * number), 11 * MS), "{number}");
        }
        let fresh = scheduler.stages[&STAGE].costs.expected(1).unwrap();
        assert!(fresh > 9 * MS && fresh <= 11 * MS, "{fresh:?}");
    }

    #[test]
    fn made_up_rows_teach_only_where_nothing_is_known() {
        let took = |ns| vec![Learned { rows: 1, runs: 9, mean_ns: ns, likely_ns: ns, high_ns: ns }];
        for (known, after) in [(took(2_000_000), 2 * MS), (Vec::new(), MS)] {
            let mut scheduler = knowing(known);
            scheduler.handle(at(0), Event::TrialBegun { stage: STAGE });
            for number in 0..9 {
                assert!(answered(&mut scheduler, number, at(100 * number), MS), "{number}");
            }
            scheduler.handle(at(900), Event::TrialOver { stage: STAGE });
            let costs = scheduler.learned(STAGE, 1).unwrap();
            assert_eq!(Duration::from_nanos(costs[0].mean_ns), after, "{costs:?}");
        }
    }
}
