//! What becomes of the rows of a batch: answered, run again, or told what went wrong.

use super::event::{Action, Failure, Outcome, Purpose, SettledRow, Slot, Store};
use super::flight::{Flight, FlightId, State};
use super::queue::Rank;
use super::retry::Isolation;
use super::timer::Timer;
use super::{Batch, Scheduler};
use crate::id::{BatchId, RequestId, SessionId, StageId};
use std::time::Duration;

impl Scheduler {
    pub(super) fn done(&mut self, id: SessionId, batch: BatchId, service: Duration, bytes: u64) {
        let slots = self.sessions.0.get(&id).map_or(1, |session| session.slots);
        let Some(batch_state) = self.take_in_hand(id, batch) else { return };
        self.devices.learn(slots, batch_state.flights.len(), service);
        let first = batch_state.flights.first().and_then(|&flight| self.flights.get(flight));
        if let (Some(class), Some(stage)) =
            (first.map(|flight| flight.class), self.stages.get_mut(&batch_state.stage))
        {
            stage.learn(class, batch_state.flights.len(), service);
        }
        let size = batch_state.flights.len();
        let costs = self.stages.get(&batch_state.stage).map(|stage| &stage.costs);
        let run = costs.and_then(|costs| costs.expected(size)).unwrap_or(service);
        let cost = run / u32::try_from(size.max(1)).unwrap_or(u32::MAX);
        let mut rows = Vec::with_capacity(size);
        let (mut answered, mut fed) = (Vec::new(), Vec::new());
        for flight in batch_state.flights {
            let Some(flight) = self.close(flight) else {
                rows.push(SettledRow::default());
                continue;
            };
            let kept_in = self.stages.get(&flight.stage).map(|stage| stage.config.kept_in);
            let store = match kept_in.unwrap_or_default() {
                Store::Answers => &mut self.answers,
                Store::Bases => &mut self.bases,
            };
            let kept = if flight.store { store.admit(flight.key, bytes, cost) } else { None };
            let keep = kept.map(|(slot, victims)| {
                victims.into_iter().for_each(|victim| self.evict(victim, &mut rows));
                slot
            });
            answered.extend(flight.waiters.iter().map(|waiter| waiter.request));
            fed.extend(flight.above.iter().copied());
            rows.push(SettledRow { waiters: flight.waiters, above: flight.above, keep });
        }
        self.actions.push_back(Action::Settle { batch, rows });
        fed.into_iter().for_each(|flight| self.fed(flight));
        answered.into_iter().for_each(|request| self.row_arrived(request, batch_state.stage));
    }

    /// Forgets a kept row; one of the batch at hand was not written yet, and now never is.
    fn evict(&mut self, slot: Slot, rows: &mut [SettledRow]) {
        match rows.iter_mut().find(|row| row.keep == Some(slot)) {
            Some(row) => row.keep = None,
            None => self.actions.push_back(Action::Evict { slot }),
        }
    }

    fn row_arrived(&mut self, id: RequestId, by: StageId) {
        let Some(request) = self.requests.get_mut(id) else { return };
        request.missing -= 1;
        if request.missing > 0 {
            return;
        }
        let tally = request.tally;
        self.was_it_late(id, by);
        if let Some((_, deadline)) = self.requests.end(id) {
            if let Some(deadline) = deadline {
                self.timers.cancel(deadline, Timer::Deadline(id));
            }
            self.reply(id, Outcome::Complete(tally));
            self.release(id);
        }
    }

    /// Learns from a request that is answered by a run of a stage whether it was late.
    fn was_it_late(&mut self, id: RequestId, by: StageId) {
        let Some(needed) = self.requests.needed_by(id) else { return };
        let Some(request) = self.requests.get_mut(id) else { return };
        let (late, horizon, asked) =
            (self.now > needed, needed.since(request.since), request.stage);
        let own = self.single(by);
        if let Some(stage) = self.stages.get_mut(&asked) {
            stage.margin.saw(late, stage.config.quantile, (horizon, own));
        }
    }

    pub(super) fn failed(&mut self, id: SessionId, batch: BatchId, failure: Failure) {
        let Some(batch) = self.take_in_hand(id, batch) else { return };
        if batch.terminated {
            return self.killed(batch);
        }
        if let [flight] = batch.flights[..] {
            return self.fail(flight, &Outcome::Failed(failure));
        }
        self.suspect(batch.stage, batch.flights, batch.apart);
    }

    /// The session's process died or was ended. The batch it ran is suspect, the next one only goes back.
    pub(super) fn session_down(&mut self, id: SessionId) {
        let Some(session) = self.sessions.0.remove(&id) else { return };
        if let Some(stage) = self.stages.get_mut(&session.stage)
            && stage.suspects.isolation == Isolation::Up(id)
        {
            stage.suspects.isolation = Isolation::None;
        }
        if !session.in_hand.is_empty() {
            self.devices.give_back(session.device, session.slots, self.now);
        }
        for (place, batch) in session.in_hand.into_iter().enumerate() {
            let Some(batch) = self.batches.remove(&batch) else { continue };
            self.unwatch(&batch);
            if place == 0 { self.killed(batch) } else { self.requeue(batch) }
        }
    }

    /// A batch whose run ended its process, or had to be ended.
    fn killed(&mut self, batch: Batch) {
        match batch.flights[..] {
            // Alone in a process of its own: nobody else can have done it.
            [flight] if batch.apart => {
                if let Some(state) = self.flights.get(flight) {
                    let until = self.now.after(self.config.quarantine_ttl);
                    self.quarantine.add(state.key, until, self.config.quarantine_max);
                }
                self.fail(flight, &Outcome::Crashed);
            }
            _ => self.suspect(batch.stage, batch.flights, true),
        }
    }

    /// Sets rows aside to be run again in halves; those that nobody waits for any more are let go.
    fn suspect(&mut self, stage: StageId, mut flights: Vec<FlightId>, apart: bool) {
        flights.retain(|&flight| self.still_wanted(flight));
        for &flight in &flights {
            if let Some(flight) = self.flights.get_mut(flight) {
                flight.state = State::Suspect;
            }
        }
        if let Some(stage) = self.stages.get_mut(&stage) {
            stage.suspects.add_halves(flights, apart);
        }
    }

    /// Puts the rows of a batch that never ran back where they were.
    fn requeue(&mut self, batch: Batch) {
        for id in batch.flights {
            if !self.still_wanted(id) {
                continue;
            }
            let Some(flight) = self.flights.get_mut(id) else { continue };
            // Due since it came, ahead of all that arrived later.
            let rank = Rank { due: flight.arrival, sequence: flight.sequence };
            flight.state = State::Queued(rank);
            self.queued_rows += 1;
            if let Some(stage) = self.stages.get_mut(&flight.stage) {
                stage.queue.insert(flight.class, rank, id);
            }
        }
    }

    /// Whether somebody waits for a flight; one without waiters is closed.
    fn still_wanted(&mut self, id: FlightId) -> bool {
        let Some(flight) = self.flights.get(id) else { return false };
        let wanted = flight.is_wanted();
        if !wanted {
            self.close(id);
        }
        wanted
    }

    /// Ends a flight without an output; all who wait for it learn why.
    fn fail(&mut self, id: FlightId, outcome: &Outcome) {
        let Some(flight) = self.close(id) else { return };
        for above in flight.above {
            self.fail(above, outcome);
        }
        for waiter in flight.waiters {
            self.end_early(waiter.request, Some(outcome.clone()));
        }
    }

    /// Tells everybody who waits for a stage that it will not answer; batches in hand end on their own.
    pub(super) fn stage_failed(&mut self, id: StageId, failure: &Failure) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        let queued: Vec<FlightId> = stage.queue.iter().map(|(_, _, flight)| flight).collect();
        if stage.awaiting > 0 {
            self.fail_awaiting(id, failure);
        }
        for flight in queued {
            let Some(state) = self.flights.get(flight) else { continue };
            if let (State::Queued(rank), class) = (state.state, state.class)
                && let Some(stage) = self.stages.get_mut(&id)
            {
                stage.queue.remove(class, rank);
                self.queued_rows -= 1;
                self.fail(flight, &Outcome::Failed(failure.clone()));
            }
        }
        self.isolation_failed(id, failure);
    }

    /// Tells those who still await a base output for a stage that will not run it.
    fn fail_awaiting(&mut self, id: StageId, failure: &Failure) {
        let awaits = |flight: &Flight| match flight.state {
            State::Awaits(below, _) if flight.stage == id => Some(below),
            _ => None,
        };
        let awaiting: Vec<(FlightId, FlightId)> =
            self.flights.iter().filter_map(|(id, flight)| Some((id, awaits(flight)?))).collect();
        for (flight, below) in awaiting {
            self.fail(flight, &Outcome::Failed(failure.clone()));
            self.part(flight, below);
        }
    }

    pub(super) fn isolation_failed(&mut self, id: StageId, failure: &Failure) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        // One that is there stays: what it has in hand still comes back through it.
        if stage.suspects.isolation == Isolation::Starting {
            stage.suspects.isolation = Isolation::None;
        }
        let mut groups = Vec::new();
        while let Some(group) = stage.suspects.take(true) {
            groups.push(group);
        }
        for flight in groups.into_iter().flat_map(|group| group.flights) {
            self.fail(flight, &Outcome::Failed(failure.clone()));
        }
    }

    /// Takes a batch that ended out of its session's hands, and lets the next one count as running.
    fn take_in_hand(&mut self, id: SessionId, batch: BatchId) -> Option<Batch> {
        let session = self.sessions.0.get_mut(&id)?;
        let place = session.in_hand.iter().position(|&held| held == batch)?;
        session.in_hand.remove(place);
        let next = session.in_hand.front().copied().filter(|_| place == 0);
        let (device, slots, purpose, stage) =
            (session.device, session.slots, session.purpose, session.stage);
        if session.in_hand.is_empty() {
            self.devices.give_back(device, slots, self.now);
            self.let_leave(id);
        }
        if let Some(stage) = self.stages.get_mut(&stage) {
            stage.moved = self.now;
        }
        let state = self.batches.remove(&batch)?;
        self.unwatch(&state);
        if let Some(next) = next {
            self.watch(next);
        }
        if purpose == Purpose::Isolation {
            self.rest_apart(stage);
        }
        Some(state)
    }

    /// Lets a session apart wait a while for more suspects.
    pub(super) fn rest_apart(&mut self, id: StageId) {
        let at = self.now.after(self.config.isolation_idle);
        let Some(stage) = self.stages.get_mut(&id) else { return };
        if let Some(earlier) = stage.suspects.idle_at.replace(at) {
            self.timers.cancel(earlier, Timer::IsolationIdle(id));
        }
        self.timers.set(at, Timer::IsolationIdle(id));
    }

    fn unwatch(&mut self, batch: &Batch) {
        if let Some((at, timer)) = batch.watch {
            self.timers.cancel(at, timer);
        }
    }
}
