//! Every decision of the daemon and nothing else: which rows share a flight, what runs next, who is refused.
//!
//! The scheduler is a value. Events go in with the time at which they happened, actions come out, and
//! `next_wakeup` says when to look again. It does no I/O, reads no clock, holds no lock and no tensor, and
//! uses ordered maps only, so the same events give the same actions on any machine.
//!
//! Invariants, checked by [`Scheduler::verify`] and by the simulator: every accepted request has exactly one
//! end; at most one joinable flight a key; an idle session and a ripe queue never coexist while the device
//! has a slot; bounds hold after every event; once nothing waits, every table is empty.

pub mod again;
mod backlog;
pub mod batch;
pub mod cache;
pub mod config;
pub mod cost;
pub mod curve;
mod dispatch;
mod estimate;
pub mod event;
pub mod flight;
pub mod laxity;
pub mod margin;
pub mod outcome;
mod path;
pub mod quantile;
pub mod queue;
mod request;
pub mod retry;
pub mod reuse;
pub mod session;
mod settle;
mod spare;
pub mod spread;
mod submit;
pub mod tally;
mod timer;
mod tuned;
mod verify;
pub mod why;

use crate::id::{BatchId, ClassKey, RequestId, SessionId, StageId};
use crate::time::{MonoTime, nanos};
use again::Again;
use cache::RowIndex;
use config::{Batching, Config, StageConfig};
use cost::{Costs, Gap, Learned};
use event::{Action, Event, Outcome, Purpose, Store};
use flight::{FlightId, FlightTable};
use margin::Margin;
use queue::Queue;
use request::Requests;
use retry::{Isolation, Quarantine, Suspects};
use reuse::Route;
use session::{Devices, Session, Sessions};
use spare::Presence;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use timer::{Timer, Timers};

/// Classes of one stage whose costs are remembered; past these all are forgotten and learned anew.
const CLASSES_MAX: usize = 256;

/// A stage that has work and ends no batch for so long stands still, if its batches are short.
const STILL: Duration = Duration::from_millis(1_500);

/// One stage and what waits for it.
#[derive(Debug)]
struct Stage {
    config: StageConfig,
    queue: Queue,
    suspects: Suspects,
    costs: Costs,
    /// What rows that are to be in time must have to spare.
    margin: Margin,
    /// What they were before a trial.
    costs_aside: Option<Costs>,
    /// The same by class: rows of one shape may gain from batches where those of another do not.
    classes: BTreeMap<ClassKey, Costs>,
    /// Flights of this stage, wherever they are.
    flights: usize,
    /// Those of them that await a base output.
    awaiting: usize,
    /// The time between rows that need this stage or would, lately.
    gap: Gap,
    /// How likely a row of this base is wanted again; none of a stage that is no base.
    again: Option<Again>,
    /// Choices of this whole model's rows since the way that costs more was last tried.
    untried: u32,
    /// The way that its rows without a base output took last.
    lately: Option<Route>,
    /// When a batch of it last ended, or its first row came.
    moved: MonoTime,
    retired: bool,
    /// Whether its sessions are there.
    presence: Presence,
    /// How long it took to start them.
    rise: Duration,
    /// When it is looked whether they are still of use.
    spare_at: Option<MonoTime>,
    /// When its queue delay is looked at again.
    ripe_at: Option<MonoTime>,
}

impl Stage {
    /// Rows that are ready to run came, perhaps to a stage that had none.
    fn work_came(&mut self, now: MonoTime) {
        // Called before they are counted.
        if self.flights == self.awaiting {
            self.moved = now;
        }
    }

    /// Learns what a batch of a class cost.
    fn learn(&mut self, class: ClassKey, rows: usize, service: Duration) {
        self.costs.observe(rows, service);
        if self.config.batch_rows_max <= 1 {
            return;
        }
        if self.classes.len() >= CLASSES_MAX && !self.classes.contains_key(&class) {
            self.classes.clear();
        }
        // Sizes between powers of two count for the one below, so that each is seen often enough.
        let size = 1 << rows.max(1).ilog2();
        let ns = u128::from(nanos(service)) * size as u128 / rows.max(1) as u128;
        let share = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        self.classes.entry(class).or_default().observe(size, share);
    }

    /// A time that a run of so many rows stays under as surely as its rows are to be in time.
    fn surely(&self, rows: usize) -> Option<Duration> {
        self.costs.sure(rows, self.config.quantile)
    }

    /// Puts aside what is known: made-up rows may be of any size.
    fn trial_begun(&mut self) {
        self.costs_aside = Some(self.costs.clone()).filter(Costs::are_known);
    }

    /// Knows again what was known; what a trial teaches is better than nothing.
    fn trial_over(&mut self) {
        if let Some(costs) = self.costs_aside.take() {
            self.costs = costs;
        }
    }

    /// Rows beyond which a batch of a class was seen not to pay.
    fn useful_rows(&self, class: ClassKey) -> usize {
        let most = self.config.batch_rows_max;
        match self.config.batching {
            Batching::Eager => most,
            Batching::Learned => {
                self.classes.get(&class).map_or(most, |costs| costs.useful_rows(most))
            }
        }
    }
}

/// One batch that a session has in hand.
#[derive(Debug)]
struct Batch {
    session: SessionId,
    stage: StageId,
    flights: Vec<FlightId>,
    /// It runs suspects apart from other traffic, so whatever goes wrong is its own fault.
    apart: bool,
    /// It was asked to end; what it then reports is no error of the model's.
    terminated: bool,
    /// When its run began; none while it waits behind another.
    started: Option<MonoTime>,
    /// When its watchdog or grace ends.
    watch: Option<(MonoTime, Timer)>,
}

/// What a snapshot of the scheduler shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait.
    pub requests: usize,
    /// Rows in queues.
    pub queued_rows: usize,
    /// Flights, wherever they are.
    pub flights: usize,
    /// Input bytes of all flights.
    pub held_bytes: u64,
    /// Batches in hand of sessions.
    pub batches: usize,
    /// Device slots in use.
    pub slots_used: u32,
    /// Rows kept.
    pub kept_rows: usize,
    /// Bytes of kept rows, bookkeeping included.
    pub kept_bytes: u64,
    /// Base outputs kept.
    pub base_rows: usize,
    /// Bytes of kept base outputs, bookkeeping included.
    pub base_bytes: u64,
}

/// The scheduler.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    now: MonoTime,
    requests: Requests,
    flights: FlightTable,
    stages: BTreeMap<StageId, Stage>,
    sessions: Sessions,
    batches: BTreeMap<BatchId, Batch>,
    devices: Devices,
    answers: RowIndex,
    bases: RowIndex,
    quarantine: Quarantine,
    timers: Timers,
    actions: VecDeque<Action>,
    queued_rows: usize,
    held_bytes: u64,
    sequence: u64,
    batches_formed: u64,
    draining: bool,
}

impl Scheduler {
    /// A scheduler with these limits and nothing to do.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            now: MonoTime::ZERO,
            requests: Requests::default(),
            flights: FlightTable::default(),
            stages: BTreeMap::new(),
            sessions: Sessions::default(),
            batches: BTreeMap::new(),
            devices: Devices::new(&config.devices),
            answers: RowIndex::new(Store::Answers, config.cache_bytes),
            bases: RowIndex::new(Store::Bases, config.base_cache_bytes),
            quarantine: Quarantine::default(),
            timers: Timers::default(),
            actions: VecDeque::new(),
            queued_rows: 0,
            held_bytes: 0,
            sequence: 0,
            batches_formed: 0,
            draining: false,
            config,
        }
    }

    /// One event happened at `now`. Time never goes back: an earlier `now` counts as the last one.
    pub fn handle(&mut self, now: MonoTime, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::StageUp { stage, config } => self.stage_up(stage, config),
            Event::StageRetired { stage } => self.stage_retired(stage),
            Event::StageSpare { stage, rise } => self.stage_spare(stage, rise),
            Event::StageNeeded { stage } => self.stage_needed(stage),
            Event::TrialBegun { stage } => self.trial(stage, Stage::trial_begun),
            Event::TrialOver { stage } => self.trial(stage, Stage::trial_over),
            Event::RaiseRefused { stage } => self.raise_refused(stage),
            Event::SessionUp { session, stage, purpose, slots } => {
                self.session_up(session, stage, purpose, slots);
            }
            Event::SessionDown { session } => self.session_down(session),
            Event::SessionLeaves { session } => self.session_leaves(session),
            Event::StageTuned { stage, tuned } => self.stage_tuned(stage, tuned),
            Event::StageFailed { stage, failure } => self.stage_failed(stage, &failure),
            Event::IsolationFailed { stage, failure } => self.isolation_failed(stage, &failure),
            Event::Submit(job) => self.submit(job),
            Event::Cancel(request) => self.end_early(request, None),
            Event::Done { session, batch, service, row_bytes } => {
                self.done(session, batch, service, row_bytes);
            }
            Event::Failed { session, batch, failure } => self.failed(session, batch, failure),
            Event::Drain => self.draining = true,
        }
        self.fire_due();
        self.dispatch();
    }

    /// The wake-up time came. Calling it at any other time does no harm.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        self.now = self.now.max(now);
        self.fire_due();
        self.dispatch();
    }

    /// What is to be done; to be called until it returns none after either of the above.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When `handle_timeout` is to be called, if nothing happens before.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<MonoTime> {
        self.timers.next()
    }

    /// How much there is to do now.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            requests: self.requests.waiting(),
            queued_rows: self.queued_rows,
            flights: self.flights.len(),
            held_bytes: self.held_bytes,
            batches: self.batches.len(),
            slots_used: self.devices.used(),
            kept_rows: self.answers.len(),
            kept_bytes: self.answers.bytes(),
            base_rows: self.bases.len(),
            base_bytes: self.bases.bytes(),
        }
    }

    /// Whether no request waits and no session has anything in hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.flights.is_empty() && self.batches.is_empty()
    }

    /// Rows of a stage that wait for a session, and how long its first one has.
    #[must_use]
    pub fn stage_queue(&self, stage: StageId) -> Option<(usize, Duration)> {
        let queue = &self.stages.get(&stage)?.queue;
        let age = queue
            .classes()
            .next()
            .and_then(|(_, class)| self.flights.get(queue.head(class)?))
            .map_or(Duration::ZERO, |flight| self.now.since(flight.arrival));
        Some((queue.rows(), age))
    }

    /// Whether a stage has a session for everyday traffic; none where there is no such stage.
    #[must_use]
    pub fn stage_serves(&self, stage: StageId) -> Option<bool> {
        self.stages.get(&stage).map(|_| self.sessions.serving(stage).next().is_some())
    }

    /// Whether a stage has nothing to do, or had a batch end lately: what one batch may take, and some more.
    #[must_use]
    pub fn stage_moves(&self, stage: StageId, now: MonoTime) -> bool {
        let Some(stage) = self.stages.get(&stage) else { return false };
        let batch = stage.costs.high(stage.config.batch_rows_max);
        // Before the first run nothing is known.
        let patience = batch.map_or(self.config.watchdog_floor, |high| high * 10).max(STILL);
        stage.flights == stage.awaiting
            || stage.is_down()
            || now.since(stage.moved) <= patience + stage.config.queue_delay
    }

    /// Does what is due by now. Events do it too, so that a late timer call lets no expired row run.
    fn fire_due(&mut self) {
        while let Some(timer) = self.timers.pop_due(self.now) {
            match timer {
                Timer::Deadline(request) => self.end_early(request, Some(Outcome::Expired)),
                Timer::Ripe(stage) => {
                    if let Some(stage) = self.stages.get_mut(&stage) {
                        stage.ripe_at = None;
                    }
                }
                Timer::Watchdog(batch) => self.watchdog(batch),
                Timer::Grace(batch) => self.grace_over(batch),
                Timer::IsolationIdle(stage) => self.isolation_idle(stage),
                Timer::Spare(stage) => self.spare_idle(stage),
            }
        }
    }

    /// What was learned of a stage's costs, of the `most` batch sizes that were seen most often.
    #[must_use]
    pub fn learned(&self, stage: StageId, most: usize) -> Option<Vec<Learned>> {
        self.stages.get(&stage).map(|stage| stage.costs.learned(most))
    }

    fn stage_up(&mut self, stage: StageId, config: StageConfig) {
        let again = (config.kept_in == Store::Bases).then(Again::default);
        let costs = Costs::recall(&config.known);
        self.stages.entry(stage).or_insert_with(|| Stage {
            config,
            queue: Queue::default(),
            suspects: Suspects::default(),
            costs,
            margin: Margin::default(),
            costs_aside: None,
            classes: BTreeMap::new(),
            flights: 0,
            awaiting: 0,
            gap: Gap::default(),
            again,
            untried: 0,
            lately: None,
            moved: self.now,
            retired: false,
            presence: Presence::Kept,
            rise: Duration::ZERO,
            spare_at: None,
            ripe_at: None,
        });
    }

    fn trial(&mut self, stage: StageId, change: fn(&mut Stage)) {
        self.stages.get_mut(&stage).into_iter().for_each(change);
    }

    fn stage_retired(&mut self, stage: StageId) {
        if let Some(stage) = self.stages.get_mut(&stage) {
            stage.retired = true;
        }
        self.sweep_stage(stage);
    }

    /// Lets a retired stage go once nothing of it is in flight.
    fn sweep_stage(&mut self, id: StageId) {
        let Some(stage) = self.stages.get(&id).filter(|stage| stage.retired && stage.flights == 0)
        else {
            return;
        };
        if let Some(at) = stage.ripe_at {
            self.timers.cancel(at, Timer::Ripe(id));
        }
        if let Some(at) = stage.spare_at {
            self.timers.cancel(at, Timer::Spare(id));
        }
        if let Some(at) = stage.suspects.idle_at {
            self.timers.cancel(at, Timer::IsolationIdle(id));
        }
        self.stages.remove(&id);
        // Nothing of the stage is in flight, so none of its sessions has anything in hand.
        let sessions = self.sessions.0.extract_if(.., |_, session| session.stage == id);
        self.actions.extend(sessions.map(|(session, _)| Action::Retire { session }));
        self.actions.push_back(Action::Forget { stage: id });
    }

    fn session_up(&mut self, id: SessionId, stage: StageId, purpose: Purpose, slots: u32) {
        let Some(state) = self.stages.get_mut(&stage) else {
            self.actions.push_back(Action::Retire { session: id });
            return;
        };
        if purpose == Purpose::Isolation {
            state.suspects.isolation = Isolation::Up(id);
        }
        let session = Session {
            stage,
            purpose,
            device: state.config.device,
            slots,
            in_hand: VecDeque::new(),
            doomed: false,
            leaves: false,
        };
        self.sessions.0.insert(id, session);
        match purpose {
            Purpose::Isolation => self.rest_apart(stage),
            Purpose::Serving => self.risen(stage),
        }
    }

    fn reply(&mut self, request: RequestId, outcome: Outcome) {
        self.actions.push_back(Action::Reply { request, outcome });
    }
}
