//! What each action may be.

use super::{Apart, Batch, Checker, Flight, Owed, Place, Verdict, ensure};
use graftd::id::{BatchId, RequestId, SessionId, StageId};
use graftd::sched::event::{Action, Outcome, Purpose, RowRef, RunReason, SettledRow, Slot, Tally};
use graftd::sched::reuse::Route;

/// What the scheduler counts for an entry beside its bytes.
const OVERHEAD_BYTES: u64 = 320;

impl Checker {
    pub(super) fn action(&mut self, action: &Action) -> Verdict {
        match action {
            Action::Run { session, stage, batch, rows, bases, reason } => {
                let own = self.sessions.get(session).map(|session| session.stage);
                ensure!(own == Some(*stage), "a batch of {stage} for session {session}");
                ensure!(bases.is_empty(), "base outputs where there are no bases");
                self.run(*session, *batch, rows, *reason)
            }
            Action::Routes { request, routes } => self.routes(*request, routes),
            Action::Explain { .. } => Err("there is no choice".into()),
            Action::Reuse { .. } | Action::Spend { .. } => Err("there are no bases".into()),
            Action::Hit { row, slot } => self.hit(*row, *slot),
            Action::Settle { batch, rows } => self.settle_batch(*batch, rows),
            Action::Evict { slot } => self.evict(*slot),
            Action::Reply { request, outcome } => self.reply(*request, outcome),
            Action::Release { request } => {
                let model = self.requests.get_mut(request).ok_or("nobody is released")?;
                ensure!(model.accepted && !model.released, "released twice, or never accepted");
                model.released = true;
                self.releases_due.insert(*request);
                Ok(())
            }
            Action::Isolate { stage } => {
                let model = self.stages.get_mut(stage).ok_or("no such stage")?;
                ensure!(model.apart == Apart::None, "isolated twice");
                model.apart = Apart::Starting;
                self.isolated_now.push(*stage);
                Ok(())
            }
            Action::Retire { session } => self.retire(*session),
            // These worlds have no stage that could rest: `ways` has.
            Action::Rest { .. } | Action::Raise { .. } => Err("a stage rests unasked".into()),
            Action::Forget { stage } => {
                let model = self.stages.get_mut(stage).ok_or("no such stage")?;
                ensure!(model.retired, "forgotten, and it was never retired");
                ensure!(!std::mem::replace(&mut model.forgotten, true), "forgotten twice");
                Ok(())
            }
            Action::Terminate { session, batch } => self.terminate(*session, *batch),
            Action::Kill { session } => self.kill(*session),
        }
    }

    /// What is told of the rows one by one must be what is counted of them.
    fn routes(&self, id: RequestId, routes: &[Route]) -> Verdict {
        let request = self.requests.get(&id).ok_or("routes of nobody")?;
        let mut tally = Tally::default();
        routes.iter().for_each(|&route| tally.count(route));
        ensure!(tally == request.tally, "routes {routes:?} for {:?}", request.tally);
        let mixed = routes.iter().any(|route| *route != routes[0]);
        ensure!(mixed, "all rows of {id} go alike, which the tally says");
        Ok(())
    }

    fn run(
        &mut self,
        id: SessionId,
        batch: BatchId,
        rows: &[RowRef],
        reason: RunReason,
    ) -> Verdict {
        ensure!(!rows.is_empty(), "an empty batch");
        ensure!(self.batch_last.is_none_or(|last| last < batch), "a batch's number used twice");
        self.batch_last = Some(batch);
        self.may_take(id, reason)?;
        let mut flights = Vec::new();
        for row in rows {
            let flight = *self.sources.get(row).ok_or_else(|| format!("{row:?} is not open"))?;
            ensure!(!flights.contains(&flight), "{row:?} is in the batch twice");
            let released = self.requests[&row.request].released;
            ensure!(!released, "the inputs of {row:?} were released");
            flights.push(flight);
        }
        let session = &self.sessions[&id];
        let (stage, apart) = (session.stage, session.purpose == Purpose::Isolation);
        let suspect = reason == RunReason::Suspect;
        ensure!(!apart || suspect, "everyday traffic in a session apart");
        let class = self.flights[&flights[0]].class;
        for flight in &flights {
            let flight = &self.flights[flight];
            ensure!(flight.stage == stage, "{:?} is of another stage", flight.key);
            ensure!(flight.class == class, "classes are mixed");
            self.may_run(flight, flights.len(), suspect, apart)?;
        }
        if !suspect {
            let limit = self.stages[&stage].config.batch_rows_max;
            ensure!(flights.len() <= limit, "{} rows of {limit}", flights.len());
            self.in_order(stage, &flights, reason)?;
        }
        for flight in &flights {
            let flight = self.flights.get_mut(flight).expect("looked at above");
            flight.place = Place::Batch(batch);
            flight.last = flights.len();
        }
        let session = self.sessions.get_mut(&id).expect("looked at above");
        if session.in_hand.is_empty() {
            session.since = self.now;
            session.terminated = None;
        }
        session.in_hand.push_back(batch);
        self.batches.insert(batch, Batch { stage, flights, apart });
        Ok(())
    }

    /// Whether a session may be given a batch now.
    fn may_take(&self, id: SessionId, reason: RunReason) -> Verdict {
        let session = self.sessions.get(&id).ok_or("no such session")?;
        let goes = session.retiring || session.killed || session.leaves;
        ensure!(!goes, "a batch for a session that goes");
        ensure!(session.in_hand.len() < 2, "a third batch in hand");
        let busy = !session.in_hand.is_empty();
        ensure!(busy == (reason == RunReason::Ahead), "not the reason");
        ensure!(
            busy || session.purpose == Purpose::Isolation || self.fits(session),
            "the device has no slot for it"
        );
        let starved = self.flights.values().any(|flight| {
            flight.stage == session.stage && flight.place == Place::Suspect { apart: false }
        });
        ensure!(!busy || !starved, "more ahead while rows wait to be run again");
        Ok(())
    }

    fn may_run(&self, flight: &Flight, rows: usize, suspect: bool, apart: bool) -> Verdict {
        let key = flight.key;
        let place = if suspect { Place::Suspect { apart } } else { Place::Queued };
        ensure!(flight.place == place, "{key:?} is run from {:?}", flight.place);
        ensure!(!flight.waiters.is_empty(), "{key:?} is run for nobody");
        let in_time = |waiter: &RowRef| {
            self.requests[&waiter.request].job.deadline.is_none_or(|at| at > self.now)
        };
        ensure!(flight.waiters.iter().any(in_time), "{key:?} is run too late for all");
        ensure!(
            !suspect || rows <= flight.last.div_ceil(2),
            "{rows} suspects again after {}",
            flight.last
        );
        Ok(())
    }

    /// Within a class nobody overtakes an equal or more urgent row that came before, or any row that came
    /// long before; without a queue delay this holds between classes too.
    fn in_order(&self, stage: StageId, flights: &[u64], reason: RunReason) -> Verdict {
        let bound = self.config.priority_step * 8;
        let any_class =
            reason != RunReason::Ahead && self.stages[&stage].config.queue_delay.is_zero();
        let class = self.flights[&flights[0]].class;
        let overtakes = |&&run: &&u64, left_id: u64, left: &Flight| {
            let run_model = &self.flights[&run];
            let sooner = run_model.plain && left.level <= run_model.level && left_id < run;
            sooner || run_model.arrival > left.arrival.after(bound)
        };
        for (&id, left) in &self.flights {
            if left.stage != stage || left.place != Place::Queued || flights.contains(&id) {
                continue;
            }
            if left.class == class {
                let worst = flights.iter().find(|run| overtakes(run, id, left));
                ensure!(worst.is_none(), "{:?} is overtaken", left.key);
            } else if any_class {
                let all = flights.iter().all(|run| overtakes(&run, id, left));
                ensure!(!all, "{:?} is overtaken by another class", left.key);
            }
        }
        Ok(())
    }

    fn hit(&mut self, row: RowRef, slot: Slot) -> Verdict {
        ensure!(self.hits_due.remove(&row), "{row:?} is not to be hit");
        let asked = self.requests[&row.request].job.rows[row.row as usize];
        let (kept, _) = self.slots.get(&slot).ok_or("nothing is kept there")?;
        ensure!(*kept == asked, "{slot:?} holds {kept:?}, {asked:?} was asked for");
        self.arrive(row)
    }

    fn evict(&mut self, slot: Slot) -> Verdict {
        let (key, _) = self.slots.remove(&slot).ok_or("nothing is kept there")?;
        self.kept.remove(&key);
        Ok(())
    }

    fn settle_batch(&mut self, id: BatchId, rows: &[SettledRow]) -> Verdict {
        let due = self.settle_due.take();
        let (_, row_bytes) =
            due.filter(|(batch, _)| *batch == id).ok_or("this batch is not done")?;
        let batch = self.batches.remove(&id).ok_or("no such batch")?;
        ensure!(batch.flights.len() == rows.len(), "{} rows of another number", rows.len());
        for (flight, row) in batch.flights.into_iter().zip(rows) {
            let flight = self.close(flight).ok_or("a closed flight")?;
            let key = flight.key;
            let (mut asked, mut told) = (flight.waiters.clone(), row.waiters.to_vec());
            asked.sort_unstable();
            told.sort_unstable();
            ensure!(asked == told, "{key:?} is for {asked:?}, not {told:?}");
            for &waiter in &row.waiters {
                let job = &self.requests[&waiter.request].job;
                ensure!(job.rows[waiter.row as usize] == key, "{waiter:?} gets another row");
                ensure!(job.stage == batch.stage, "{waiter:?} gets a row of another stage");
                let own = waiter == flight.source;
                ensure!(own || job.sharing.join, "{waiter:?} gets a row that it does not share");
                self.settle(waiter)?;
            }
            if let Some(slot) = row.keep {
                ensure!(flight.store, "{key:?} is kept against all wishes");
                let most = self.config.cache_bytes / OVERHEAD_BYTES;
                ensure!(u64::from(slot.number) < most, "{slot:?}: so many rows are never kept");
                ensure!(!self.slots.contains_key(&slot), "{slot:?} is written twice");
                ensure!(!self.kept.contains_key(&key), "{key:?} is kept twice");
                self.slots.insert(slot, (key, row_bytes + OVERHEAD_BYTES));
                self.kept.insert(key, slot);
            }
        }
        Ok(())
    }

    fn reply(&mut self, id: RequestId, outcome: &Outcome) -> Verdict {
        let given_up = matches!(outcome, Outcome::Shed { .. });
        if *outcome == Outcome::Expired || given_up {
            let request = self.requests.get(&id).ok_or("no such request")?;
            ensure!(!request.ended, "expired after its end");
            let job = &request.job;
            let due = !given_up && job.deadline.is_some_and(|deadline| deadline <= self.now);
            // Or it could not be answered in time any more, of which only rows that wait can be judged.
            let waits = |flight: &Flight| {
                flight.place == Place::Queued && flight.waiters.iter().any(|row| row.request == id)
            };
            let hurried = if given_up { job.target } else { job.deadline }.is_some();
            ensure!(due || hurried && self.flights.values().any(waits), "expired before its time");
            self.end(id, None);
        } else {
            let owed = self.owed.remove(&id);
            let same = match outcome {
                Outcome::Complete(tally) => owed == Some(Owed::Complete(*tally)),
                Outcome::Refused { .. } => owed == Some(Owed::Refused),
                Outcome::Failed(_) => owed == Some(Owed::Failed),
                Outcome::Crashed => owed == Some(Owed::Crashed),
                Outcome::Quarantined => owed == Some(Owed::Quarantined),
                Outcome::Expired | Outcome::Shed { .. } => false,
            };
            ensure!(same, "it is owed {owed:?}");
        }
        let request = self.requests.get_mut(&id).ok_or("no such request")?;
        ensure!(!std::mem::replace(&mut request.replied, true), "a second reply");
        Ok(())
    }

    fn retire(&mut self, id: SessionId) -> Verdict {
        let session = self.sessions.get_mut(&id).ok_or("no such session")?;
        ensure!(session.in_hand.is_empty(), "retired with a batch in hand");
        ensure!(!std::mem::replace(&mut session.retiring, true), "retired twice");
        if let Some(stage) = self.stages.get_mut(&session.stage)
            && stage.apart == Apart::Up(id)
        {
            stage.apart = Apart::None;
        }
        self.retired_now.push(id);
        Ok(())
    }

    fn terminate(&mut self, id: SessionId, batch: BatchId) -> Verdict {
        let session = self.sessions.get_mut(&id).ok_or("no such session")?;
        ensure!(session.in_hand.front() == Some(&batch), "terminated before it runs");
        ensure!(session.terminated.is_none(), "terminated twice");
        let ran = self.now.since(session.since);
        ensure!(ran >= self.config.watchdog_floor, "terminated after {ran:?}");
        session.terminated = Some(self.now);
        Ok(())
    }

    fn kill(&mut self, id: SessionId) -> Verdict {
        let session = self.sessions.get_mut(&id).ok_or("no such session")?;
        let asked = session.terminated.ok_or("killed without being asked to end")?;
        ensure!(self.now.since(asked) >= self.config.watchdog_grace, "killed too early");
        ensure!(!std::mem::replace(&mut session.killed, true), "killed twice");
        Ok(())
    }
}
