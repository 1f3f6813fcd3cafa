//! What a job must become: an answer from kept rows, a place in flights, or a refusal with a reason.

use super::{Checker, Flight, Owed, Place, Request, Verdict, ensure};
use graftd::id::{RequestId, RowKey};
use graftd::sched::event::{Action, Job, Outcome, Refusal, RowRef, Tally};
use std::collections::BTreeMap;

/// What a row of a job does.
enum Way {
    Hit,
    Join(u64),
    Open,
}

/// What accepting a job would take.
#[derive(Default)]
struct Need {
    opens: usize,
    /// Waiters of the flight that would have most.
    waiters: usize,
}

impl Checker {
    pub(super) fn submit(&mut self, job: &Job, actions: &[Action]) -> Verdict {
        let refused = actions.iter().find_map(|action| match action {
            Action::Reply { request, outcome } if *request == job.request => match outcome {
                Outcome::Refused { .. } | Outcome::Quarantined => Some(outcome),
                _ => None,
            },
            _ => None,
        });
        let mut request = Request {
            job: job.clone(),
            accepted: refused.is_none(),
            flights: Vec::new(),
            arrived: vec![false; job.rows.len()],
            left: 0,
            tally: Tally::default(),
            lending: 0,
            ended: refused.is_some(),
            replied: false,
            released: false,
        };
        match refused {
            Some(Outcome::Refused { refusal, .. }) => {
                self.may_refuse(job, *refusal)?;
                self.owed.insert(job.request, Owed::Refused);
            }
            Some(_) => {
                let guilty = |key| self.convicted.iter().any(|(held, _)| held == key);
                ensure!(job.rows.iter().any(guilty), "quarantined without a guilty row");
                self.owed.insert(job.request, Owed::Quarantined);
            }
            None => {
                self.must_accept(job)?;
                self.commit(&mut request);
            }
        }
        let earlier = self.requests.insert(job.request, request);
        ensure!(earlier.is_none(), "the world submits {} twice", job.request);
        Ok(())
    }

    fn commit(&mut self, request: &mut Request) {
        let job = request.job.clone();
        let id = job.request;
        for (number, key) in (0_u32..).zip(&job.rows) {
            let row = RowRef { request: id, row: number };
            match self.way(&job, key) {
                Way::Hit => {
                    request.tally.hit += 1;
                    self.hits_due.insert(row);
                    continue;
                }
                Way::Join(id) => {
                    request.tally.join += 1;
                    request.flights.push(id);
                    let flight = self.flights.get_mut(&id).expect("open flights are flights");
                    flight.waiters.push(row);
                    flight.store |= job.sharing.store && self.stages[&job.stage].config.store;
                    // A more urgent one takes a queued flight forward with it.
                    if flight.place == Place::Queued && job.priority.level() < flight.level {
                        flight.level = job.priority.level();
                        flight.plain = false;
                    }
                }
                Way::Open => {
                    request.tally.whole += 1;
                    request.lending += 1;
                    request.flights.push(self.open_flight(&job, *key, row));
                }
            }
            request.left += 1;
        }
        if request.left == 0 {
            request.ended = true;
            self.owed.insert(id, Owed::Complete(request.tally));
            self.releases_due.insert(id);
        } else {
            self.waiting.insert(id);
        }
    }

    fn way(&self, job: &Job, key: &RowKey) -> Way {
        let stage = &self.stages[&job.stage].config;
        if job.sharing.lookup && stage.store && self.kept.contains_key(key) {
            return Way::Hit;
        }
        match self.open.get(key) {
            Some(&flight) if job.sharing.join && stage.join => Way::Join(flight),
            _ => Way::Open,
        }
    }

    fn open_flight(&mut self, job: &Job, key: RowKey, source: RowRef) -> u64 {
        let stage = &self.stages[&job.stage].config;
        let id = self.flights_opened;
        self.flights_opened += 1;
        let flight = Flight {
            stage: job.stage,
            class: job.class,
            key,
            joinable: job.sharing.join && stage.join,
            store: job.sharing.store && stage.store,
            source,
            waiters: vec![source],
            level: job.priority.level(),
            plain: true,
            arrival: self.now,
            bytes: job.row_bytes,
            place: Place::Queued,
            runs: 0,
            widest: 1,
            last: 0,
        };
        if flight.joinable {
            self.open.insert(key, id);
        }
        self.sources.insert(source, id);
        self.flights.insert(id, flight);
        id
    }

    fn need(&self, job: &Job) -> Need {
        let mut need = Need::default();
        let mut opened: BTreeMap<RowKey, usize> = BTreeMap::new();
        let mut joined: BTreeMap<u64, usize> = BTreeMap::new();
        let joinable = job.sharing.join && self.stages[&job.stage].config.join;
        for key in &job.rows {
            match self.way(job, key) {
                Way::Hit => {}
                Way::Join(flight) => *joined.entry(flight).or_default() += 1,
                Way::Open if joinable => *opened.entry(*key).or_default() += 1,
                Way::Open => need.opens += 1,
            }
        }
        need.opens += opened.len();
        let new = opened.values().copied().max().unwrap_or(0);
        let more = joined.iter().map(|(id, more)| self.flights[id].waiters.len() + more).max();
        need.waiters = new.max(more.unwrap_or(0)).max(usize::from(need.opens > 0));
        need
    }

    fn queued_rows(&self, job: &Job) -> usize {
        let queued = |f: &&Flight| f.stage == job.stage && f.place == Place::Queued;
        self.flights.values().filter(queued).count()
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.flights.values().map(|flight| flight.bytes).sum()
    }

    /// A refusal must be true.
    fn may_refuse(&self, job: &Job, refusal: Refusal) -> Verdict {
        let known = self.stages.get(&job.stage).is_some_and(|stage| !stage.retired);
        let true_one = match refusal {
            Refusal::Draining => self.draining,
            Refusal::NoStage => !known,
            _ if !known => false,
            Refusal::Requests { limit } => {
                limit == self.config.requests_max && self.waiting.len() >= limit
            }
            Refusal::Rows { held, limit } => {
                limit == self.config.rows_max
                    && held == self.flights.len()
                    && held + self.need(job).opens > limit
            }
            Refusal::Queue { held, limit } => {
                Some(limit) == self.stages[&job.stage].config.queue_rows_max
                    && held == self.queued_rows(job)
                    && held >= limit
                    && self.need(job).opens > 0
            }
            Refusal::Bytes { held, limit } => {
                limit == self.config.bytes_max
                    && held == self.held_bytes()
                    && held + self.need(job).opens as u64 * job.row_bytes > limit
            }
            Refusal::Waiters { limit } => {
                limit == self.config.flight_waiters_max && self.need(job).waiters > limit
            }
            Refusal::Infeasible { expected, left } | Refusal::Target { expected, left } => {
                let by = if matches!(refusal, Refusal::Target { .. }) {
                    job.target
                } else {
                    job.deadline
                };
                let given = by.map(|by| by.since(self.now));
                given == Some(left)
                    && (left.is_zero() || expected > left)
                    && self.need(job).opens > 0
            }
        };
        ensure!(true_one, "refused with {refusal:?}, which is not so");
        Ok(())
    }

    /// What no acceptance may overlook; the bounds are counted when the step is over.
    fn must_accept(&self, job: &Job) -> Verdict {
        ensure!(!self.draining, "accepted while draining");
        let known = self.stages.get(&job.stage).is_some_and(|stage| !stage.retired);
        ensure!(known, "accepted for a stage that is not there");
        if let Some(limit) = self.stages[&job.stage].config.queue_rows_max {
            let full = self.queued_rows(job) >= limit && self.need(job).opens > 0;
            ensure!(!full, "accepted although {limit} rows wait");
        }
        // The newest convictions are in quarantine whatever made room for whom.
        let newest = self.convicted.iter().rev().take(self.config.quarantine_max);
        for (key, until) in newest {
            ensure!(*until <= self.now || !job.rows.contains(key), "{key:?} is in quarantine");
        }
        Ok(())
    }

    /// A row of a request is there.
    pub(super) fn arrive(&mut self, row: RowRef) -> Verdict {
        let request = self.requests.get_mut(&row.request).ok_or("a row of nobody arrives")?;
        let arrived = request.arrived.get_mut(row.row as usize).ok_or("no such row")?;
        ensure!(!std::mem::replace(arrived, true), "{row:?} arrives twice");
        Ok(())
    }

    /// A row that was in a flight is there.
    pub(super) fn settle(&mut self, row: RowRef) -> Verdict {
        self.arrive(row)?;
        let id: RequestId = row.request;
        let request = self.requests.get_mut(&id).ok_or("no such request")?;
        ensure!(!request.ended, "{row:?} arrives after its request's end");
        request.left -= 1;
        if request.left == 0 {
            request.ended = true;
            ensure!(request.arrived.iter().all(|&arrived| arrived), "{id} lacks a row");
            self.owed.insert(id, Owed::Complete(request.tally));
            self.waiting.remove(&id);
            self.releases_due.insert(id);
        }
        Ok(())
    }
}
