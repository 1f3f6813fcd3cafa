//! Is the model any good? Bugs as real schedulers have them, planted one at a time; each must be caught.
//!
//! A planted bug distorts what the scheduler is told or what it asks for, and nothing of what it says of
//! itself is looked at: only the model can find it.

use super::plan::Plan;
use super::world::Input;
use super::{Sim, Subject, outcome};
use graftd::id::{BatchId, ClassKey, RequestId, SessionId, StageId};
use graftd::sched::config::Config;
use graftd::sched::cost::Learned;
use graftd::sched::event::{
    Action, Event, Failure, Job, Outcome, Priority, Purpose, RowRef, SettledRow, Slot, Tally,
};
use graftd::sched::{Load, Scheduler};
use graftd::time::MonoTime;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Seeds within which each bug must be found.
const SEEDS_MAX: u64 = 400;

macro_rules! bugs {
    ($($name:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Bug { $($name,)* }
        const BUGS: &[Bug] = &[$(Bug::$name,)*];
    };
}

bugs! {
    // Events that are not heard, or heard wrongly.
    CancelSwallowed, DeadlineIgnored, JoinForgotten, StoreAgainstWishes, LookupAgainstWishes,
    ClassIgnored, PriorityReversed, DrainIgnored, RetirementIgnored, BatchOverLimit, DelayDoubled,
    StoreDespiteConfig, SlotsIgnored, ApartAsServing, LeavingIgnored, DeathUnnoticed, FailureToAll, DoneTwice,
    // Bounds that are not kept.
    QuarantineForgotten, RequestsUnbounded, RowsUnbounded, BytesUnbounded, WaitersUnbounded,
    CacheUnbounded,
    // Answers.
    ReplyTwice, ReplyLost, ReplyAfterCancel, FailureToInnocent, TallyWrong, SettleLost,
    SettleToWrongWaiter, SettleForgetsWaiter, HitOfWrongSlot,
    // Kept rows and inputs.
    EvictForgotten, SlotReused, ReleaseEarly, ReleaseTwice, ReleaseLost,
    // Work.
    RunLost, RunLate, RunTwice, RunOfCancelledRow, RunForgetsRow, ThirdInHand,
    // Sessions and time.
    WaitingCosts, WatchdogNever, KillAtOnce, KillNever, IsolateLost, IsolateTwice, RetireLost, ForgetLost, WakeupLate,
}

/// The scheduler with one bug.
struct Planted {
    scheduler: Scheduler,
    bug: Bug,
    out: VecDeque<Action>,
    /// Actions that come one input late.
    held: Vec<Action>,
    chances: u64,
    kept: BTreeSet<Slot>,
    in_hand: BTreeMap<SessionId, (StageId, Vec<BatchId>)>,
    batches: BTreeMap<BatchId, Vec<RowRef>>,
    now: MonoTime,
    handed_over: BTreeMap<BatchId, MonoTime>,
    /// Rows that were not run yet, by request.
    unrun: BTreeMap<RequestId, Vec<RowRef>>,
    cancelled: Vec<RowRef>,
    released: BTreeSet<RequestId>,
}

fn distort_config(bug: Bug, mut config: Config) -> Config {
    match bug {
        Bug::QuarantineForgotten => config.quarantine_ttl = Duration::ZERO,
        Bug::RequestsUnbounded => config.requests_max *= 2,
        Bug::RowsUnbounded => config.rows_max *= 2,
        Bug::BytesUnbounded => config.bytes_max *= 2,
        Bug::WaitersUnbounded => config.flight_waiters_max *= 2,
        Bug::CacheUnbounded => config.cache_bytes *= 2,
        _ => {}
    }
    config
}

impl Planted {
    fn new(bug: Bug, config: Config) -> Self {
        Self {
            scheduler: Scheduler::new(distort_config(bug, config)),
            bug,
            out: VecDeque::new(),
            held: Vec::new(),
            chances: 0,
            kept: BTreeSet::new(),
            in_hand: BTreeMap::new(),
            batches: BTreeMap::new(),
            now: MonoTime::ZERO,
            handed_over: BTreeMap::new(),
            unrun: BTreeMap::new(),
            cancelled: Vec::new(),
            released: BTreeSet::new(),
        }
    }

    /// Real bugs do not strike always: every third chance is taken.
    fn strikes(&mut self) -> bool {
        self.chances += 1;
        self.chances.is_multiple_of(3)
    }

    fn distort(&mut self, event: &mut Event) -> bool {
        match event {
            Event::Cancel(request) => {
                self.cancelled.extend(self.unrun.remove(request).unwrap_or_default());
                if self.bug == Bug::ReplyAfterCancel {
                    let outcome = Outcome::Complete(Tally::default());
                    self.held.push(Action::Reply { request: *request, outcome });
                }
                return self.bug != Bug::CancelSwallowed;
            }
            Event::Submit(job) => self.distort_job(job),
            Event::StageUp { config, .. } => match self.bug {
                Bug::BatchOverLimit => config.batch_rows_max *= 2,
                Bug::DelayDoubled => config.queue_delay *= 2,
                Bug::StoreDespiteConfig => config.store = true,
                _ => {}
            },
            Event::SessionUp { session, stage, purpose, slots } => {
                self.in_hand.insert(*session, (*stage, Vec::new()));
                match self.bug {
                    Bug::SlotsIgnored => *slots = 0,
                    Bug::ApartAsServing => *purpose = Purpose::Serving,
                    _ => {}
                }
            }
            Event::SessionDown { session } => {
                self.in_hand.remove(session);
                return self.bug != Bug::DeathUnnoticed;
            }
            Event::Failed { session, batch, failure } => {
                self.put_down(*session, *batch);
                if self.bug == Bug::FailureToAll {
                    self.fail_all(*batch, failure);
                }
            }
            Event::Done { session, batch, service, .. } => {
                self.put_down(*session, *batch);
                let since =
                    self.handed_over.remove(batch).filter(|_| self.bug == Bug::WaitingCosts);
                *service = since.map_or(*service, |since| self.now.since(since));
            }
            Event::Drain => return self.bug != Bug::DrainIgnored,
            Event::StageRetired { .. } => return self.bug != Bug::RetirementIgnored,
            Event::SessionLeaves { .. } => return self.bug != Bug::LeavingIgnored,
            Event::IsolationFailed { .. }
            | Event::StageTuned { .. }
            | Event::StageFailed { .. }
            | Event::StageSpare { .. }
            | Event::StageNeeded { .. }
            | Event::RaiseRefused { .. }
            | Event::TrialBegun { .. }
            | Event::TrialOver { .. } => {}
        }
        true
    }

    fn distort_job(&mut self, job: &mut Job) {
        let rows = (0..job.rows.len() as u32).map(|row| RowRef { request: job.request, row });
        self.unrun.insert(job.request, rows.collect());
        match self.bug {
            Bug::DeadlineIgnored => job.deadline = None,
            Bug::JoinForgotten => job.sharing.join = false,
            Bug::StoreAgainstWishes => job.sharing.store = true,
            Bug::LookupAgainstWishes => job.sharing.lookup = true,
            Bug::ClassIgnored => job.class = ClassKey([0; 16]),
            Bug::PriorityReversed => {
                job.priority = Priority::new(10 - u64::from(job.priority.level()));
            }
            _ => {}
        }
    }

    fn put_down(&mut self, session: SessionId, batch: BatchId) {
        if let Some((_, in_hand)) = self.in_hand.get_mut(&session) {
            in_hand.retain(|&held| held != batch);
        }
    }

    /// What a server does that does not look for the guilty row.
    fn fail_all(&mut self, batch: BatchId, failure: &Failure) {
        for row in self.batches.get(&batch).cloned().unwrap_or_default() {
            let outcome = Outcome::Failed(failure.clone());
            self.out.push_back(Action::Reply { request: row.request, outcome });
            self.scheduler.handle(MonoTime::ZERO, Event::Cancel(row.request));
        }
    }

    /// Passes an action on, distorted where the bug strikes.
    fn pass(&mut self, action: Action) {
        match action {
            Action::Run { .. } => return self.pass_run(action),
            Action::Settle { batch, rows } => return self.pass_settle(batch, rows),
            Action::Evict { slot } => {
                self.kept.remove(&slot);
            }
            _ => {}
        }
        let lost = match (&action, self.bug) {
            (Action::Reply { outcome, .. }, Bug::ReplyLost) => {
                matches!(outcome, Outcome::Complete(_)) && self.strikes()
            }
            (Action::Release { request }, Bug::ReleaseEarly) => self.released.contains(request),
            (Action::Evict { .. }, Bug::EvictForgotten)
            | (Action::Release { .. }, Bug::ReleaseLost) => self.strikes(),
            (Action::Terminate { .. }, Bug::WatchdogNever)
            | (Action::Kill { .. }, Bug::KillNever)
            | (Action::Isolate { .. }, Bug::IsolateLost)
            | (Action::Retire { .. }, Bug::RetireLost)
            | (Action::Forget { .. }, Bug::ForgetLost) => true,
            _ => false,
        };
        if lost {
            return;
        }
        let twice = match (&action, self.bug) {
            (Action::Reply { .. }, Bug::ReplyTwice)
            | (Action::Release { .. }, Bug::ReleaseTwice)
            | (Action::Isolate { .. }, Bug::IsolateTwice) => self.strikes(),
            _ => false,
        };
        if twice {
            self.out.push_back(action.clone());
        }
        let action = self.twist(action);
        self.out.push_back(action);
    }

    fn twist(&mut self, action: Action) -> Action {
        match (action, self.bug) {
            (Action::Reply { request, outcome: Outcome::Complete(_) }, Bug::FailureToInnocent)
                if self.strikes() =>
            {
                let failure = Failure { message: "of somebody else".into() };
                Action::Reply { request, outcome: Outcome::Failed(failure) }
            }
            (Action::Reply { request, outcome: Outcome::Complete(tally) }, Bug::TallyWrong) => {
                let tally = Tally { whole: tally.whole + tally.join, join: 0, ..tally };
                Action::Reply { request, outcome: Outcome::Complete(tally) }
            }
            (Action::Hit { row, slot }, Bug::HitOfWrongSlot) => {
                let other = self.kept.iter().copied().find(|&other| other != slot);
                Action::Hit { row, slot: other.unwrap_or(slot) }
            }
            (Action::Terminate { session, .. }, Bug::KillAtOnce) => Action::Kill { session },
            (action, _) => action,
        }
    }

    fn pass_settle(&mut self, batch: BatchId, mut rows: Vec<SettledRow>) {
        let (bug, strikes) = (self.bug, self.strikes());
        match bug {
            Bug::SettleLost if strikes => return,
            Bug::SettleToWrongWaiter => {
                if let [first, second, ..] = &mut rows[..] {
                    std::mem::swap(&mut first.waiters, &mut second.waiters);
                }
            }
            Bug::SettleForgetsWaiter => {
                if let Some(row) = rows.iter_mut().find(|row| row.waiters.len() > 1) {
                    row.waiters.pop();
                }
            }
            Bug::SlotReused if strikes => {
                let taken = self.kept.first().copied();
                if let Some(row) = rows.iter_mut().find(|row| row.keep.is_some()) {
                    row.keep = taken.or(row.keep);
                }
            }
            _ => {}
        }
        self.kept.extend(rows.iter().filter_map(|row| row.keep));
        self.out.push_back(Action::Settle { batch, rows });
    }

    fn pass_run(&mut self, action: Action) {
        let Action::Run { mut session, stage, batch, mut rows, bases, reason } = action else {
            return;
        };
        let (bug, strikes) = (self.bug, self.strikes());
        match bug {
            Bug::RunLost if strikes => return,
            Bug::RunLate if strikes => {
                return self.held.push(Action::Run { session, stage, batch, rows, bases, reason });
            }
            Bug::RunTwice if strikes => {
                let (batch, rows, bases) =
                    (BatchId(batch.0 + 1_000_000), rows.clone(), bases.clone());
                self.held.push(Action::Run { session, stage, batch, rows, bases, reason });
            }
            Bug::RunOfCancelledRow => rows.extend(self.cancelled.pop()),
            Bug::RunForgetsRow if rows.len() > 1 => {
                rows.pop();
            }
            Bug::ReleaseEarly if strikes => {
                let request = rows[0].request;
                if self.released.insert(request) {
                    self.out.push_back(Action::Release { request });
                }
            }
            Bug::ThirdInHand => {
                let own = self.in_hand.get(&session).map(|(stage, _)| *stage);
                let mut full = self.in_hand.iter();
                let full = full.find(|(_, (stage, held))| Some(*stage) == own && held.len() == 2);
                session = full.map_or(session, |(&full, _)| full);
            }
            _ => {}
        }
        for row in &rows {
            if let Some(unrun) = self.unrun.get_mut(&row.request) {
                unrun.retain(|other| other != row);
            }
        }
        self.batches.insert(batch, rows.clone());
        self.handed_over.insert(batch, self.now);
        if let Some((_, in_hand)) = self.in_hand.get_mut(&session) {
            in_hand.push(batch);
        }
        self.out.push_back(Action::Run { session, stage, batch, rows, bases, reason });
    }
}

impl Subject for Planted {
    fn handle(&mut self, now: MonoTime, input: &Input) {
        let mut input = input.clone();
        self.now = now;
        self.out.extend(std::mem::take(&mut self.held));
        let heard = match &mut input {
            Input::Event(event) => self.distort(event),
            Input::Timeout => true,
        };
        if heard {
            Subject::handle(&mut self.scheduler, now, &input);
            if let (Bug::DoneTwice, Input::Event(Event::Done { .. })) = (self.bug, &input) {
                // Takes the news of one run for news of the next one, too.
                if let Input::Event(Event::Done { session, batch, .. }) = &mut input
                    && let Some((_, in_hand)) = self.in_hand.get(session)
                    && let Some(&next) = in_hand.first()
                {
                    *batch = next;
                    Subject::handle(&mut self.scheduler, now, &input);
                }
            }
        }
        while let Some(action) = self.scheduler.poll() {
            self.pass(action);
        }
    }

    fn poll(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    fn next_wakeup(&self) -> Option<MonoTime> {
        let late = if self.bug == Bug::WakeupLate { 1 } else { 0 };
        self.scheduler.next_wakeup().map(|at| at.after(Duration::from_millis(late)))
    }

    fn own_view(&self) -> Result<Option<(Load, bool)>, String> {
        Ok(None)
    }

    fn learned(&self, stage: StageId) -> Vec<Learned> {
        Subject::learned(&self.scheduler, stage)
    }
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    for &bug in BUGS {
        let caught = (0..SEEDS_MAX).find_map(|seed| {
            let plan = Plan::new(seed);
            let subject = Planted::new(bug, plan.config.clone());
            Some((seed, outcome(&mut Sim::new(plan, subject)).err()?))
        });
        match caught {
            Some((seed, why)) => {
                let why: String = why.chars().take(100).collect();
                println!("{bug:?}: seed {seed}, {why}");
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds: {missed:?}");
}
