//! From a job to flights: what each row does, whether the job is accepted, and who leaves early.

use super::Scheduler;
use super::event::{Action, Job, Outcome, Refusal, RowRef, Slot, Tally};
use super::flight::{Flight, FlightId, State};
use super::path::{Footing, Opening, Source};
use super::queue::Rank;
use super::request::Request;
use super::reuse::Route;
use super::timer::Timer;
use super::why::{ROWS_TOLD, Why};
use crate::id::{RequestId, RowKey};
use crate::time::MonoTime;
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeMap;
use std::time::Duration;

/// What accepting a job takes of what is bounded.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    /// Flights to be opened.
    opens: usize,
    /// Bytes that they hold.
    bytes: u64,
    /// Waiters of the flight that would have most.
    waiters: usize,
}

/// What a row of a job does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Hit(Slot),
    Join(FlightId),
    /// The whole model runs for it.
    Whole,
    /// Its way leads through bases.
    Bases(Footing),
}

impl Scheduler {
    pub(super) fn submit(&mut self, job: Job) {
        if let Err((refusal, retry_after)) = self.open_for(&job) {
            return self.reply(job.request, Outcome::Refused { refusal, retry_after });
        }
        if !self.quarantine.is_empty() && job.keys().any(|key| self.quarantine.holds(key, self.now))
        {
            return self.reply(job.request, Outcome::Quarantined);
        }
        // Joins and hits are nearly free, so they are found before anything is refused.
        let mut whys = Vec::new();
        let ways: Vec<Way> =
            (0..job.rows.len()).map(|row| self.way(&job, row, &mut whys)).collect();
        if let Err((refusal, retry_after)) = self.admit(&job, &ways) {
            return self.reply(job.request, Outcome::Refused { refusal, retry_after });
        }
        self.commit(&job, &ways, whys);
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

    /// What a row is to do; and why, where there is a choice that is told.
    fn way(&mut self, job: &Job, row: usize, whys: &mut Vec<Why>) -> Way {
        let (stage, key) = (&self.stages[&job.stage].config, &job.rows[row]);
        if job.sharing.lookup
            && stage.store
            && let Some(slot) = self.answers.ask(key)
        {
            return Way::Hit(slot);
        }
        if job.sharing.join
            && stage.join
            && let Some(flight) = self.flights.joinable(key)
        {
            return Way::Join(flight);
        }
        let Some(path) = self.path(job) else { return Way::Whole };
        let footing = self.ask_bases(job, path, row);
        let why = self.choose(job, path, row, footing);
        let choice = self.instead_of_resting(job.stage, path.policy, why.choice, footing.route());
        if row < ROWS_TOLD {
            whys.push(Why { choice, ..why });
        }
        if footing == Footing::Inputs {
            self.chosen(job.stage, choice);
        }
        match choice.route {
            Route::Whole => Way::Whole,
            _ => Way::Bases(footing),
        }
    }

    fn admit(&self, job: &Job, ways: &[Way]) -> Result<(), (Refusal, Option<Duration>)> {
        let joined = ways.iter().filter_map(|way| match way {
            Way::Join(flight) => self.flights.get(*flight).map(|flight| flight.waiters.len()),
            _ => None,
        });
        // As if equal rows of the job never met and yet all came together: only where that is too
        // much, they are counted one by one.
        let mut most = Need { waiters: joined.max().unwrap_or(0) + ways.len(), ..Need::default() };
        ways.iter().for_each(|&way| self.add(job, way, &mut most));
        self.within_bounds(job, ways, most)
            .or_else(|_| self.within_bounds(job, ways, self.exact_need(job, ways)))
    }

    /// Adds what a row opens.
    fn add(&self, job: &Job, way: Way, need: &mut Need) {
        let (opens, bytes) = match way {
            Way::Hit(_) | Way::Join(_) => return,
            Way::Whole => (1, job.row_bytes),
            Way::Bases(footing) => {
                job.path.as_ref().map_or((0, 0), |path| self.weight(job, path, footing))
            }
        };
        need.opens += opens;
        need.bytes = need.bytes.saturating_add(bytes);
    }

    fn exact_need(&self, job: &Job, ways: &[Way]) -> Need {
        let joinable = job.sharing.join && self.stages[&job.stage].config.join;
        let mut opened: BTreeMap<&RowKey, usize> = BTreeMap::new();
        let mut joined: BTreeMap<FlightId, usize> = BTreeMap::new();
        let mut need = Need::default();
        for (&way, key) in ways.iter().zip(&job.rows) {
            let waiters = match way {
                Way::Hit(_) => continue,
                Way::Join(flight) => joined
                    .entry(flight)
                    .or_insert_with(|| self.flights.get(flight).map_or(0, |f| f.waiters.len())),
                Way::Whole | Way::Bases(_) if joinable => {
                    let waiters = opened.entry(key).or_default();
                    if *waiters == 0 {
                        self.add(job, way, &mut need);
                    }
                    waiters
                }
                Way::Whole | Way::Bases(_) => {
                    self.add(job, way, &mut need);
                    continue;
                }
            };
            *waiters += 1;
            need.waiters = need.waiters.max(*waiters);
        }
        need
    }

    fn within_bounds(
        &self,
        job: &Job,
        ways: &[Way],
        need: Need,
    ) -> Result<(), (Refusal, Option<Duration>)> {
        let limit = self.config.flight_waiters_max;
        if need.waiters > limit {
            return Err((Refusal::Waiters { limit }, Some(self.backlog(job))));
        }
        if need.opens == 0 {
            return Ok(());
        }
        let stage = &self.stages[&job.stage];
        let held = stage.queue.rows() + self.above_bases(job);
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
        if held.saturating_add(need.bytes) > limit {
            return Err((Refusal::Bytes { held, limit }, Some(self.backlog(job))));
        }
        self.feasible(job, ways)
    }

    /// Rows of a job's head that wait for a session or for their base outputs.
    fn above_bases(&self, job: &Job) -> usize {
        let head = job.path.as_ref().and_then(|path| self.stages.get(&path.head));
        head.map_or(0, |head| head.queue.rows() + head.awaiting)
    }

    fn commit(&mut self, job: &Job, ways: &[Way], whys: Vec<Why>) {
        let id = job.request;
        let mut tally = Tally::default();
        let (mut whys, mut told) = (whys.into_iter().peekable(), Vec::new());
        let mut flights = Vec::with_capacity(ways.len());
        let mut routes = Vec::with_capacity(if ways.len() > 1 { ways.len() } else { 0 });
        let mut lending = 0;
        for (number, &way) in (0_u32..).zip(ways) {
            let row = RowRef { request: id, row: number };
            // An equal row earlier in this very job may have opened a flight meanwhile.
            let way = if number > 0 { self.way_within(job, number as usize, way) } else { way };
            let route = match way {
                Way::Hit(slot) => {
                    self.actions.push_back(Action::Hit { row, slot });
                    Route::Hit
                }
                Way::Join(flight) => {
                    self.join(flight, row, job);
                    flights.push(flight);
                    Route::Join
                }
                Way::Whole => {
                    lending += 1;
                    flights.push(self.open_whole(job, row));
                    Route::Whole
                }
                Way::Bases(_) => {
                    let (opened, route) = self.open_way(job, row);
                    lending += opened.len();
                    flights.extend(opened.last());
                    route
                }
            };
            tally.count(route);
            told.extend(whys.next_if(|why| why.row == number).and_then(|why| why.taken(route)));
            if ways.len() > 1 {
                routes.push(route);
            }
        }
        // Rows that all go the same way are told by the tally.
        if routes.iter().any(|route| *route != routes[0]) {
            self.actions.push_back(Action::Routes { request: id, routes });
        }
        if !told.is_empty() {
            self.actions.push_back(Action::Explain { request: id, rows: told });
        }
        if flights.is_empty() {
            self.reply(id, Outcome::Complete(tally));
            return self.actions.push_back(Action::Release { request: id });
        }
        if let Some(deadline) = job.deadline {
            self.timers.set(deadline, Timer::Deadline(id));
        }
        let missing = flights.len();
        let (deadline, target) = (job.deadline, job.target);
        let (stage, since, ended) = (job.stage, self.now, false);
        let request =
            Request { stage, since, flights, missing, lending, deadline, target, tally, ended };
        self.requests.insert(id, request);
    }

    fn way_within(&self, job: &Job, row: usize, way: Way) -> Way {
        let joinable = job.sharing.join && self.stages[&job.stage].config.join;
        if !joinable || matches!(way, Way::Hit(_)) {
            return way;
        }
        self.flights.joinable(&job.rows[row]).map_or(way, Way::Join)
    }

    fn rank(&mut self, job: &Job, arrival: MonoTime) -> Rank {
        self.sequence += 1;
        let late = self.config.priority_step * u32::from(job.priority.level());
        Rank { due: arrival.after(late), sequence: self.sequence }
    }

    fn open_whole(&mut self, job: &Job, row: RowRef) -> FlightId {
        self.open(
            job,
            Opening {
                stage: job.stage,
                class: job.class,
                key: job.rows[row.row as usize],
                row,
                waiters: smallvec![row],
                bytes: job.row_bytes,
                base: None,
            },
        )
    }

    /// Opens a flight and puts it where it belongs: into its stage's queue, or on the list of the base it awaits.
    pub(super) fn open(&mut self, job: &Job, opening: Opening) -> FlightId {
        let Opening { stage: stage_id, class, key, row, waiters, bytes, base } = opening;
        let rank = self.rank(job, self.now);
        // Of those that follow it one is told when they do; rows that a base ran for are never given up.
        let for_itself = base.is_none() && !waiters.is_empty();
        let state = match base {
            Some(Source::Flight(below)) => State::Awaits(below, rank),
            Some(Source::Kept(_)) | None => State::Queued(rank),
        };
        let stage = self.stages.get_mut(&stage_id).expect("submit found the stage");
        let id = self.flights.open(Flight {
            stage: stage_id,
            class,
            key,
            joinable: job.sharing.join && stage.config.join,
            store: job.sharing.store && stage.config.store,
            source: row,
            waiters,
            above: SmallVec::new(),
            takes_base: base.is_some(),
            needed_by: if for_itself { job.needed_by() } else { None },
            arrival: self.now,
            sequence: rank.sequence,
            bytes,
            state,
        });
        self.held_bytes += bytes;
        match base {
            Some(Source::Flight(_)) => stage.awaiting += 1,
            Some(Source::Kept(_)) | None => {
                stage.work_came(self.now);
                stage.queue.insert(class, rank, id);
                self.queued_rows += 1;
            }
        }
        stage.flights += 1;
        if stage.is_down() {
            self.raise(stage_id);
        }
        match base {
            Some(Source::Kept(slot)) => self.actions.push_back(Action::Reuse { flight: id, slot }),
            Some(Source::Flight(below)) => self.follow(below, id, job),
            None => {}
        }
        id
    }

    /// Attaches a row to a flight; a more urgent one takes the flight forward with it.
    fn join(&mut self, id: FlightId, row: RowRef, job: &Job) {
        let Some(flight) = self.flights.get_mut(id) else { return };
        flight.waiters.push(row);
        if !flight.takes_base {
            flight.needed_by = flight.needed_by.into_iter().chain(job.needed_by()).min();
        }
        // Whoever wants the row kept decides, whatever the others asked for.
        flight.store |= job.sharing.store && self.stages[&job.stage].config.store;
        self.hurry(id, self.config.priority_step * u32::from(job.priority.level()));
    }

    /// Attaches a flight to the base flight whose output it takes.
    fn follow(&mut self, id: FlightId, above: FlightId, job: &Job) {
        let needed = self.needed_below(above, job);
        let Some(flight) = self.flights.get_mut(id) else { return };
        flight.above.push(above);
        // Of those that take a base output none is given up: what it took would be lost.
        if !flight.takes_base {
            flight.needed_by = flight.needed_by.into_iter().chain(needed).min();
        }
        flight.store |= job.sharing.store && self.stages[&flight.stage].config.store;
        self.hurry(id, self.config.priority_step * u32::from(job.priority.level()));
    }

    /// When a job needs what a flight of it takes: the stages from there on take their time.
    fn needed_below(&self, above: FlightId, job: &Job) -> Option<MonoTime> {
        let (needed, from) = (job.needed_by()?, self.flights.get(above)?.stage);
        let path = job.path.as_ref()?;
        let stages = path.bases.iter().map(|leg| leg.stage).chain([path.head]);
        let then = stages.skip_while(|&stage| stage != from).map(|stage| self.single(stage));
        Some(needed.before(then.sum()))
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
    pub(super) fn abandoned(&mut self, id: FlightId) {
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
            State::Awaits(below, _) => {
                self.close(id);
                self.part(id, below);
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
            stage.awaiting -= usize::from(matches!(flight.state, State::Awaits(..)));
        }
        if flight.takes_base && !matches!(flight.state, State::Awaits(..)) {
            self.actions.push_back(Action::Spend { flight: id });
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
