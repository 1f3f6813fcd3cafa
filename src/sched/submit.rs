//! From a job to flights: what each row does, whether the job is accepted, and who leaves early.

use super::Scheduler;
use super::event::{Action, Job, Outcome, Refusal, RowRef, Slot, Tally};
use super::flight::{Flight, FlightId, State};
use super::queue::Rank;
use super::request::Request;
use super::session::IN_HAND_MAX;
use super::timer::Timer;
use crate::id::{RequestId, RowKey};
use crate::time::MonoTime;
use smallvec::smallvec;
use std::collections::BTreeMap;
use std::time::Duration;

/// What accepting a job takes of what is bounded.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// Flights to be opened.
    opens: usize,
    /// Waiters of the flight that would have most.
    waiters: usize,
}

/// What a row of a job does.
#[derive(Clone, Copy, Debug)]
enum Way {
    Hit(Slot),
    Join(FlightId),
    Open,
}

impl Scheduler {
    pub(super) fn submit(&mut self, job: Job) {
        if let Err((refusal, retry_after)) = self.open_for(&job) {
            return self.reply(job.request, Outcome::Refused { refusal, retry_after });
        }
        if !self.quarantine.is_empty()
            && job.rows.iter().any(|key| self.quarantine.holds(key, self.now))
        {
            return self.reply(job.request, Outcome::Quarantined);
        }
        // Joins and hits are nearly free, so they are found before anything is refused.
        let ways: Vec<Way> = job.rows.iter().map(|key| self.way(&job, key)).collect();
        if let Err((refusal, retry_after)) = self.admit(&job, &ways) {
            return self.reply(job.request, Outcome::Refused { refusal, retry_after });
        }
        self.commit(&job, &ways);
    }

    /// Refuses what no look at the rows could save.
    fn open_for(&self, job: &Job) -> Result<(), (Refusal, Option<Duration>)> {
        if self.draining {
            return Err((Refusal::Draining, None));
        }
        if self.stages.get(&job.stage).is_none_or(|stage| stage.retired) {
            return Err((Refusal::NoStage, None));
        }
        let limit = self.config.requests_max;
        if self.requests.waiting() >= limit {
            return Err((Refusal::Requests { limit }, Some(self.backlog(job))));
        }
        Ok(())
    }

    fn way(&mut self, job: &Job, key: &RowKey) -> Way {
        let stage = &self.stages[&job.stage].config;
        if job.sharing.lookup
            && stage.store
            && let Some(slot) = self.cache.ask(key)
        {
            return Way::Hit(slot);
        }
        if job.sharing.join && stage.join {
            return self.flights.joinable(key).map_or(Way::Open, Way::Join);
        }
        Way::Open
    }

    fn admit(&self, job: &Job, ways: &[Way]) -> Result<(), (Refusal, Option<Duration>)> {
        let joined = ways.iter().filter_map(|way| match way {
            Way::Join(flight) => self.flights.get(*flight).map(|flight| flight.waiters.len()),
            Way::Hit(_) | Way::Open => None,
        });
        let opens = ways.iter().filter(|way| matches!(way, Way::Open)).count();
        // As if equal rows of the job never met and yet all came together: only where that is too
        // much, they are counted one by one.
        let most = Need { opens, waiters: joined.max().unwrap_or(0) + ways.len() };
        self.within_bounds(job, most)
            .or_else(|_| self.within_bounds(job, self.exact_need(job, ways)))
    }

    fn exact_need(&self, job: &Job, ways: &[Way]) -> Need {
        let joinable = job.sharing.join && self.stages[&job.stage].config.join;
        let mut opened: BTreeMap<&RowKey, usize> = BTreeMap::new();
        let mut joined: BTreeMap<FlightId, usize> = BTreeMap::new();
        let mut need = Need { opens: 0, waiters: 0 };
        for (way, key) in ways.iter().zip(&job.rows) {
            let waiters = match *way {
                Way::Hit(_) => continue,
                Way::Join(flight) => joined
                    .entry(flight)
                    .or_insert_with(|| self.flights.get(flight).map_or(0, |f| f.waiters.len())),
                Way::Open if joinable => opened.entry(key).or_default(),
                Way::Open => {
                    need.opens += 1;
                    continue;
                }
            };
            *waiters += 1;
            need.waiters = need.waiters.max(*waiters);
        }
        need.opens += opened.len();
        need
    }

    fn within_bounds(&self, job: &Job, need: Need) -> Result<(), (Refusal, Option<Duration>)> {
        let limit = self.config.flight_waiters_max;
        if need.waiters > limit {
            return Err((Refusal::Waiters { limit }, Some(self.backlog(job))));
        }
        if need.opens == 0 {
            return Ok(());
        }
        let stage = &self.stages[&job.stage];
        let held = stage.queue.rows();
        if let Some(limit) = stage.config.queue_rows_max
            && held >= limit
        {
            return Err((Refusal::Queue { held, limit }, Some(self.backlog(job))));
        }
        // Rows in a session's hands count too: they come back to the queue if it dies.
        let (held, limit) = (self.flights.len(), self.config.rows_max);
        if held.saturating_add(need.opens) > limit {
            return Err((Refusal::Rows { held, limit }, Some(self.backlog(job))));
        }
        let (held, limit) = (self.held_bytes, self.config.bytes_max);
        let bytes = job.row_bytes.saturating_mul(need.opens as u64);
        if held.saturating_add(bytes) > limit {
            return Err((Refusal::Bytes { held, limit }, Some(self.backlog(job))));
        }
        self.feasible(job, need.opens)
    }

    /// Refuses what would be late: its rows stand behind all rows that are queued now.
    fn feasible(&self, job: &Job, opens: usize) -> Result<(), (Refusal, Option<Duration>)> {
        let Some(deadline) = job.deadline else { return Ok(()) };
        let left = deadline.since(self.now);
        let expected = self.expected(job, opens);
        if left.is_zero() || expected > left {
            let retry_after = expected.saturating_sub(left).max(Duration::from_millis(1));
            return Err((Refusal::Infeasible { expected, left }, Some(retry_after)));
        }
        Ok(())
    }

    /// The time until the last of `opens` more rows would be done; zero while nothing was learned.
    fn expected(&self, job: &Job, opens: usize) -> Duration {
        let stage = &self.stages[&job.stage];
        let size = stage.config.batch_rows_max.max(1);
        let sessions = self.sessions.serving(job.stage).count().max(1);
        let in_hand: usize = self.sessions.serving(job.stage).map(|(_, s)| s.in_hand.len()).sum();
        let rows = stage.queue.rows() + opens;
        let Some(run) = stage.costs.expected(rows.min(size)) else { return Duration::ZERO };
        // Every session has its own work first, then takes an equal share of the batches.
        let rounds = (rows.div_ceil(size) + in_hand).div_ceil(sessions);
        run.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// The time until the queue in front of a job is worked off, as a hint when to try again.
    fn backlog(&self, job: &Job) -> Duration {
        let sessions = self.sessions.serving(job.stage).count().max(1);
        let least = Duration::from_millis(10 * (IN_HAND_MAX / sessions).max(1) as u64);
        self.expected(job, 0).max(least)
    }

    fn commit(&mut self, job: &Job, ways: &[Way]) {
        let id = job.request;
        let mut tally = Tally::default();
        let mut flights = Vec::with_capacity(ways.len());
        let mut lending = 0;
        for ((number, way), key) in (0_u32..).zip(ways).zip(&job.rows) {
            let row = RowRef { request: id, row: number };
            // An equal row earlier in this very job may have opened a flight meanwhile.
            let way = match *way {
                Way::Open if number > 0 => self.way_within(job, key),
                way => way,
            };
            match way {
                Way::Hit(slot) => {
                    tally.hit += 1;
                    self.actions.push_back(Action::Hit { row, slot });
                }
                Way::Join(flight) => {
                    tally.join += 1;
                    self.join(flight, row, job);
                    flights.push(flight);
                }
                Way::Open => {
                    tally.run += 1;
                    lending += 1;
                    flights.push(self.open(job, *key, row));
                }
            }
        }
        if flights.is_empty() {
            self.reply(id, Outcome::Complete(tally));
            return self.actions.push_back(Action::Release { request: id });
        }
        if let Some(deadline) = job.deadline {
            self.timers.set(deadline, Timer::Deadline(id));
        }
        let missing = flights.len();
        let (stage, deadline) = (job.stage, job.deadline);
        let request = Request { stage, flights, missing, lending, deadline, tally, ended: false };
        self.requests.insert(id, request);
    }

    fn way_within(&self, job: &Job, key: &RowKey) -> Way {
        let joinable = job.sharing.join && self.stages[&job.stage].config.join;
        match self.flights.joinable(key).filter(|_| joinable) {
            Some(flight) => Way::Join(flight),
            None => Way::Open,
        }
    }

    fn rank(&mut self, job: &Job, arrival: MonoTime) -> Rank {
        self.sequence += 1;
        let late = self.config.priority_step * u32::from(job.priority.level());
        Rank { due: arrival.after(late), sequence: self.sequence }
    }

    fn open(&mut self, job: &Job, key: RowKey, row: RowRef) -> FlightId {
        let rank = self.rank(job, self.now);
        let stage = self.stages.get_mut(&job.stage).expect("submit found the stage");
        let flight = self.flights.open(Flight {
            stage: job.stage,
            class: job.class,
            key,
            joinable: job.sharing.join && stage.config.join,
            store: job.sharing.store && stage.config.store,
            source: row,
            waiters: smallvec![row],
            arrival: self.now,
            sequence: rank.sequence,
            bytes: job.row_bytes,
            state: State::Queued(rank),
        });
        stage.queue.insert(job.class, rank, flight);
        if stage.flights == 0 {
            stage.moved = self.now;
        }
        stage.flights += 1;
        self.queued_rows += 1;
        self.held_bytes += job.row_bytes;
        flight
    }

    /// Attaches a row to a flight; a more urgent one takes a queued flight forward with it.
    fn join(&mut self, id: FlightId, row: RowRef, job: &Job) {
        let Some(flight) = self.flights.get_mut(id) else { return };
        flight.waiters.push(row);
        // Whoever wants the row kept decides, whatever the others asked for.
        flight.store |= job.sharing.store && self.stages[&job.stage].config.store;
        let (state, arrival, class, stage) =
            (flight.state, flight.arrival, flight.class, flight.stage);
        let State::Queued(old) = state else { return };
        let due = arrival.after(self.config.priority_step * u32::from(job.priority.level()));
        if due < old.due {
            let new = Rank { due, sequence: old.sequence };
            if let Some(stage) = self.stages.get_mut(&stage) {
                stage.queue.remove(class, old);
                stage.queue.insert(class, new, id);
            }
            if let Some(flight) = self.flights.get_mut(id) {
                flight.state = State::Queued(new);
            }
        }
    }

    /// Ends a request before its rows are there: it leaves its flights, and nobody else notices.
    pub(super) fn end_early(&mut self, id: RequestId, outcome: Option<Outcome>) {
        let Some((flights, deadline)) = self.requests.end(id) else { return };
        if let Some(deadline) = deadline {
            self.timers.cancel(deadline, Timer::Deadline(id));
        }
        // Before its flights go: the last of them releases the request, and then nobody can be told.
        if let Some(outcome) = outcome {
            self.reply(id, outcome);
        }
        for flight in flights {
            if self.flights.leave(flight, id) {
                self.abandoned(flight);
            }
        }
        self.release(id);
    }

    /// The last waiter left: queued work goes, work in a session's hands ends in its own time.
    fn abandoned(&mut self, id: FlightId) {
        let Some(flight) = self.flights.get(id) else { return };
        match flight.state {
            State::Queued(rank) => {
                let (stage, class) = (flight.stage, flight.class);
                if let Some(stage) = self.stages.get_mut(&stage) {
                    stage.queue.remove(class, rank);
                }
                self.queued_rows -= 1;
                self.close(id);
            }
            State::Suspect => {
                if let Some(stage) = self.stages.get_mut(&flight.stage) {
                    stage.suspects.remove(id);
                }
                self.close(id);
            }
            State::InBatch(_) => {}
        }
    }

    /// Ends a flight and gives its borrowed input back.
    pub(super) fn close(&mut self, id: FlightId) -> Option<Flight> {
        let flight = self.flights.close(id)?;
        self.held_bytes -= flight.bytes;
        if let Some(stage) = self.stages.get_mut(&flight.stage) {
            stage.flights -= 1;
        }
        let lender = flight.source.request;
        if let Some(request) = self.requests.get_mut(lender) {
            request.lending -= 1;
        }
        self.release(lender);
        self.sweep_stage(flight.stage);
        Some(flight)
    }

    pub(super) fn release(&mut self, id: RequestId) {
        if self.requests.release(id) {
            self.actions.push_back(Action::Release { request: id });
        }
    }
}
