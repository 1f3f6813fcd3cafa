//! What must hold, told a second time: a model built from events and actions only.
//!
//! It knows the rules (who may join whom, what a failure means) but none of the scheduler's tables, order
//! or timers. `submit` says what a job must become, `actions` what each action may be, `rest` what must be
//! true once all actions of an event are done.

mod actions;
mod rest;
mod submit;

use super::plan::Truth;
use super::world::Input;
use graftd::id::{BatchId, ClassKey, RequestId, RowKey, SessionId, StageId};
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{Action, Event, Job, Purpose, RowRef, Slot, Tally};
use graftd::time::MonoTime;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

type Verdict = Result<(), String>;

/// Leaves with a sentence unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
use ensure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued,
    Batch(BatchId),
    Suspect { apart: bool },
}

/// One piece of work, numbered in the order of opening.
#[derive(Clone, Debug)]
struct Flight {
    stage: StageId,
    class: ClassKey,
    key: RowKey,
    joinable: bool,
    store: bool,
    source: RowRef,
    waiters: Vec<RowRef>,
    /// The priority that gave it its place in the queue.
    level: u8,
    /// Never joined by a more urgent job and never given back to the queue.
    plain: bool,
    arrival: MonoTime,
    bytes: u64,
    place: Place,
    /// Runs that began, the widest of them, and the last.
    runs: u32,
    widest: usize,
    last: usize,
}

#[derive(Clone, Debug)]
struct Request {
    job: Job,
    accepted: bool,
    flights: Vec<u64>,
    arrived: Vec<bool>,
    left: usize,
    tally: Tally,
    /// Open flights that use its inputs.
    lending: usize,
    ended: bool,
    replied: bool,
    released: bool,
}

/// A reply that must come before the step is over.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owed {
    Complete(Tally),
    Failed,
    Crashed,
    Refused,
    Quarantined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apart {
    None,
    Starting,
    Up(SessionId),
}

#[derive(Clone, Debug)]
struct Stage {
    config: StageConfig,
    retired: bool,
    forgotten: bool,
    apart: Apart,
    /// The longest run so far.
    service_max: Duration,
}

#[derive(Clone, Debug)]
struct Session {
    stage: StageId,
    purpose: Purpose,
    slots: u32,
    in_hand: VecDeque<BatchId>,
    /// Since when the first batch in hand runs.
    since: MonoTime,
    terminated: Option<MonoTime>,
    killed: bool,
    retiring: bool,
    /// Others took its place.
    leaves: bool,
}

#[derive(Clone, Debug)]
struct Batch {
    stage: StageId,
    flights: Vec<u64>,
    apart: bool,
}

/// The model.
#[derive(Clone, Debug)]
pub(super) struct Checker {
    config: Config,
    /// Failures come from nowhere, so nobody asks who is guilty.
    blind: bool,
    now: MonoTime,
    stages: BTreeMap<StageId, Stage>,
    sessions: BTreeMap<SessionId, Session>,
    batches: BTreeMap<BatchId, Batch>,
    batch_last: Option<BatchId>,
    flights: BTreeMap<u64, Flight>,
    flights_opened: u64,
    sources: BTreeMap<RowRef, u64>,
    open: BTreeMap<RowKey, u64>,
    requests: BTreeMap<RequestId, Request>,
    waiting: BTreeSet<RequestId>,
    slots: BTreeMap<Slot, (RowKey, u64)>,
    kept: BTreeMap<RowKey, Slot>,
    /// Rows that were told to have ended a process, with the end of their quarantine.
    convicted: Vec<(RowKey, MonoTime)>,
    draining: bool,
    // What is due before the step is over.
    owed: BTreeMap<RequestId, Owed>,
    hits_due: BTreeSet<RowRef>,
    /// The batch that must be settled, and the bytes of its rows.
    settle_due: Option<(BatchId, u64)>,
    releases_due: BTreeSet<RequestId>,
    retired_now: Vec<SessionId>,
    isolated_now: Vec<StageId>,
    /// When something falls due that no event announces.
    look_by: MonoTime,
}

impl Checker {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            blind: false,
            now: MonoTime::ZERO,
            stages: BTreeMap::new(),
            sessions: BTreeMap::new(),
            batches: BTreeMap::new(),
            batch_last: None,
            flights: BTreeMap::new(),
            flights_opened: 0,
            sources: BTreeMap::new(),
            open: BTreeMap::new(),
            requests: BTreeMap::new(),
            waiting: BTreeSet::new(),
            slots: BTreeMap::new(),
            kept: BTreeMap::new(),
            convicted: Vec::new(),
            draining: false,
            owed: BTreeMap::new(),
            hits_due: BTreeSet::new(),
            settle_due: None,
            releases_due: BTreeSet::new(),
            retired_now: Vec::new(),
            isolated_now: Vec::new(),
            look_by: MonoTime::ZERO,
        }
    }

    /// For faults that no row is to blame for.
    pub(super) fn blind(config: Config) -> Self {
        Self { blind: true, ..Self::new(config) }
    }

    /// One input, and all that the scheduler asked for because of it.
    pub(super) fn step(&mut self, now: MonoTime, input: &Input, actions: &[Action]) -> Verdict {
        self.now = now;
        if let Input::Event(event) = input {
            self.event(event, actions)?;
        }
        for action in actions {
            self.action(action).map_err(|why| format!("{why}, in {action:?}"))?;
        }
        self.rest()
    }

    fn event(&mut self, event: &Event, actions: &[Action]) -> Verdict {
        match event {
            Event::StageUp { stage, config } => {
                let (config, service_max) = (config.clone(), Duration::ZERO);
                let (retired, forgotten, apart) = (false, false, Apart::None);
                let model = Stage { config, retired, forgotten, apart, service_max };
                self.stages.insert(*stage, model);
            }
            Event::StageRetired { stage } => {
                if let Some(stage) = self.stages.get_mut(stage) {
                    stage.retired = true;
                }
            }
            Event::SessionUp { session, stage, purpose, slots } => {
                self.session_up(*session, *stage, *purpose, *slots);
            }
            Event::SessionDown { session } => return self.session_down(*session),
            Event::SessionLeaves { session } => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.leaves = true;
                }
            }
            Event::StageTuned { stage, tuned } => {
                if let Some(stage) = self.stages.get_mut(stage) {
                    stage.config.batch_rows_max = tuned.batch_rows_max;
                    stage.config.batch_rows_knee = tuned.batch_rows_knee;
                }
            }
            Event::IsolationFailed { stage, .. } => self.isolation_failed(*stage),
            Event::Submit(job) => return self.submit(job, actions),
            Event::Cancel(request) => self.end(*request, None),
            Event::Done { session, batch, service, row_bytes } => {
                let Some(model) = self.take_in_hand(*session, *batch) else { return Ok(()) };
                if let Some(stage) = self.stages.get_mut(&model.stage) {
                    stage.service_max = stage.service_max.max(*service);
                }
                self.ran(&model.flights)?;
                self.batches.insert(*batch, model);
                self.settle_due = Some((*batch, *row_bytes));
            }
            Event::Failed { session, batch, .. } => {
                let terminated = self.sessions.get(session).is_some_and(|session| {
                    session.terminated.is_some() && session.in_hand.front() == Some(batch)
                });
                let Some(batch) = self.take_in_hand(*session, *batch) else { return Ok(()) };
                self.ran(&batch.flights)?;
                return if terminated { self.killed(&batch) } else { self.failed(&batch) };
            }
            Event::StageSpare { .. }
            | Event::StageNeeded { .. }
            | Event::RaiseRefused { .. }
            | Event::TrialBegun { .. }
            | Event::TrialOver { .. } => {
                return Err("this world spares no stages".into());
            }
            Event::StageFailed { .. } => return Err("this world fails no stages".into()),
            Event::Drain => self.draining = true,
        }
        Ok(())
    }

    fn session_up(&mut self, id: SessionId, stage: StageId, purpose: Purpose, slots: u32) {
        let session = Session {
            stage,
            purpose,
            slots,
            in_hand: VecDeque::new(),
            since: self.now,
            terminated: None,
            killed: false,
            retiring: false,
            leaves: false,
        };
        self.sessions.insert(id, session);
        if purpose == Purpose::Isolation
            && let Some(stage) = self.stages.get_mut(&stage)
        {
            stage.apart = Apart::Up(id);
        }
    }

    fn session_down(&mut self, id: SessionId) -> Verdict {
        let Some(session) = self.sessions.remove(&id) else { return Ok(()) };
        if let Some(stage) = self.stages.get_mut(&session.stage)
            && stage.apart == Apart::Up(id)
        {
            stage.apart = Apart::None;
        }
        for (place, batch) in session.in_hand.into_iter().enumerate() {
            let Some(batch) = self.batches.remove(&batch) else { continue };
            if place == 0 {
                self.ran(&batch.flights)?;
                self.killed(&batch)?;
                continue;
            }
            for id in batch.flights {
                self.give_back(id, Place::Queued);
                if let Some(flight) = self.flights.get_mut(&id) {
                    flight.plain = false;
                }
            }
        }
        Ok(())
    }

    fn isolation_failed(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        stage.apart = Apart::None;
        let lost: Vec<u64> = self
            .flights
            .iter()
            .filter(|(_, flight)| {
                flight.stage == id && flight.place == Place::Suspect { apart: true }
            })
            .map(|(&flight, _)| flight)
            .collect();
        for flight in lost {
            self.give_up(flight, &Owed::Failed);
        }
    }

    /// Takes a batch out of its session's hands; the next one begins to run.
    fn take_in_hand(&mut self, id: SessionId, batch: BatchId) -> Option<Batch> {
        let session = self.sessions.get_mut(&id)?;
        let place = session.in_hand.iter().position(|&held| held == batch)?;
        session.in_hand.remove(place);
        if place == 0 {
            session.since = self.now;
            session.terminated = None;
        }
        self.batches.remove(&batch)
    }

    /// Counts a run: a row that shared batches with guilty ones runs again, but not for ever.
    fn ran(&mut self, flights: &[u64]) -> Verdict {
        for id in flights {
            let flight = self.flights.get_mut(id).ok_or("a batch has a closed flight")?;
            flight.runs += 1;
            flight.widest = flight.widest.max(flights.len());
            let limit = flight.widest.next_power_of_two().trailing_zeros() + 2;
            ensure!(flight.runs <= limit, "row {:?} ran {} times", flight.key, flight.runs);
        }
        Ok(())
    }

    fn failed(&mut self, batch: &Batch) -> Verdict {
        if let [flight] = batch.flights[..] {
            let key = self.flights[&flight].key;
            ensure!(self.blind || Truth::of(&key) == Truth::Bad, "{key:?} fails, but is not bad");
            self.give_up(flight, &Owed::Failed);
            return Ok(());
        }
        for &flight in &batch.flights {
            self.give_back(flight, Place::Suspect { apart: batch.apart });
        }
        Ok(())
    }

    fn killed(&mut self, batch: &Batch) -> Verdict {
        if let ([flight], true) = (&batch.flights[..], batch.apart) {
            let key = self.flights[flight].key;
            ensure!(self.blind || Truth::of(&key).is_fatal(), "{key:?} convicted, but innocent");
            self.convicted.push((key, self.now.after(self.config.quarantine_ttl)));
            self.give_up(*flight, &Owed::Crashed);
            return Ok(());
        }
        for &flight in &batch.flights {
            self.give_back(flight, Place::Suspect { apart: true });
        }
        Ok(())
    }

    /// A flight comes back from a batch, if somebody still waits for it.
    fn give_back(&mut self, id: u64, place: Place) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        flight.place = place;
        if flight.waiters.is_empty() {
            self.close(id);
        }
    }

    /// A flight ends without an output.
    fn give_up(&mut self, id: u64, owed: &Owed) {
        let Some(flight) = self.close(id) else { return };
        for waiter in flight.waiters {
            self.end(waiter.request, Some(owed.clone()));
        }
    }

    /// A request ends before its rows are there.
    fn end(&mut self, id: RequestId, owed: Option<Owed>) {
        let Some(request) = self.requests.get_mut(&id).filter(|request| !request.ended) else {
            return;
        };
        request.ended = true;
        self.waiting.remove(&id);
        self.releases_due.insert(id);
        if let Some(owed) = owed {
            self.owed.insert(id, owed);
        }
        for flight in std::mem::take(&mut request.flights) {
            let Some(model) = self.flights.get_mut(&flight) else { continue };
            model.waiters.retain(|waiter| waiter.request != id);
            if model.waiters.is_empty() && !matches!(model.place, Place::Batch(_)) {
                self.close(flight);
            }
        }
    }

    fn close(&mut self, id: u64) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        self.sources.remove(&flight.source);
        if flight.joinable {
            self.open.remove(&flight.key);
        }
        let lender = flight.source.request;
        if let Some(request) = self.requests.get_mut(&lender) {
            request.lending -= 1;
            self.releases_due.insert(lender);
        }
        Some(flight)
    }
}
