//! The scheduler's own invariants, checked from the inside.
//!
//! Separate from the code that keeps them: the same facts are counted here by another path.

use super::Scheduler;
use super::flight::State;
use super::spare::Presence;
use std::collections::BTreeMap;

impl Scheduler {
    /// Checks every table against the others.
    ///
    /// # Errors
    /// A sentence on the first contradiction found: a bug of the scheduler.
    ///
    /// # Cost
    /// Linear in everything that is in flight; for tests and simulations.
    pub fn verify(&self) -> Result<(), String> {
        self.verify_queues()?;
        self.verify_batches()?;
        self.verify_requests()?;
        let lent = self.flights.iter().count();
        let lending: usize = self.requests.iter().map(|(_, request)| request.lending).sum();
        if lent != lending {
            return Err(format!("{lent} flights, but {lending} inputs are lent"));
        }
        for store in [&self.answers, &self.bases] {
            if store.bytes() > store.budget() {
                return Err(format!("{} bytes kept of {}", store.bytes(), store.budget()));
            }
        }
        self.verify_ways()?;
        self.verify_spare()
    }

    /// What rests has no session and nothing to do.
    fn verify_spare(&self) -> Result<(), String> {
        for (&id, stage) in &self.stages {
            if stage.is_down() && self.sessions.serving(id).next().is_some() {
                return Err(format!("stage {id} has sessions, but is {:?}", stage.presence));
            }
            if matches!(stage.presence, Presence::Resting(_)) && stage.flights > 0 {
                return Err(format!("stage {id} rests with {} flights", stage.flights));
            }
        }
        Ok(())
    }

    fn verify_queues(&self) -> Result<(), String> {
        let mut rows = 0;
        for (id, stage) in &self.stages {
            for (class, rank, flight) in stage.queue.iter() {
                let Some(state) = self.flights.get(flight) else {
                    return Err(format!("stage {id} queues {flight:?}, which is closed"));
                };
                if state.state != State::Queued(rank) || state.class != class || state.stage != *id
                {
                    return Err(format!(
                        "stage {id} queues {flight:?}, which is {:?}",
                        state.state
                    ));
                }
                if !state.is_wanted() {
                    return Err(format!("{flight:?} is queued and nobody waits for it"));
                }
                rows += 1;
            }
            let flights = self.flights.iter().filter(|(_, flight)| flight.stage == *id).count();
            if flights != stage.flights {
                return Err(format!("stage {id} counts {} flights of {flights}", stage.flights));
            }
        }
        let bytes: u64 = self.flights.iter().map(|(_, flight)| flight.bytes).sum();
        if (rows, bytes) != (self.queued_rows, self.held_bytes) {
            let counted = (self.queued_rows, self.held_bytes);
            return Err(format!("{rows} rows queued and {bytes} bytes held, counted {counted:?}"));
        }
        if self.flights.len() > self.config.rows_max || bytes > self.config.bytes_max {
            return Err(format!("{} rows and {bytes} bytes: over the bounds", self.flights.len()));
        }
        Ok(())
    }

    /// Every flight that awaits a base output is on that base's list, and nobody else is.
    fn verify_ways(&self) -> Result<(), String> {
        let mut awaiting: BTreeMap<_, usize> = BTreeMap::new();
        for (id, flight) in self.flights.iter() {
            if !self.stages.contains_key(&flight.stage) {
                return Err(format!("{id:?} is of stage {}, which is gone", flight.stage));
            }
            if let State::Awaits(below, _) = flight.state {
                let listed = self.flights.get(below).is_some_and(|base| base.above.contains(&id));
                if !listed || !flight.takes_base || !flight.is_wanted() {
                    return Err(format!("{id:?} awaits {below:?}, which does not know it"));
                }
                *awaiting.entry(flight.stage).or_default() += 1;
            }
            for above in &flight.above {
                let awaits = self.flights.get(*above).map(|above| above.state);
                if !matches!(awaits, Some(State::Awaits(below, _)) if below == id) {
                    return Err(format!("{id:?} feeds {above:?}, which is {awaits:?}"));
                }
            }
        }
        for (id, stage) in &self.stages {
            let found = awaiting.get(id).copied().unwrap_or(0);
            if found != stage.awaiting {
                return Err(format!("stage {id} counts {} awaiting of {found}", stage.awaiting));
            }
        }
        Ok(())
    }

    fn verify_batches(&self) -> Result<(), String> {
        let mut slots = 0;
        for (id, session) in &self.sessions.0 {
            if !self.stages.contains_key(&session.stage) {
                return Err(format!("session {id} is of stage {}, which is gone", session.stage));
            }
            if session.in_hand.len() > super::session::IN_HAND_MAX {
                return Err(format!("session {id} has {} batches", session.in_hand.len()));
            }
            slots += if session.in_hand.is_empty() { 0 } else { session.slots };
            for batch in &session.in_hand {
                let state =
                    self.batches.get(batch).ok_or_else(|| format!("batch {batch} is nowhere"))?;
                if state.session != *id || state.stage != session.stage {
                    return Err(format!("batch {batch} is not of session {id}"));
                }
                self.verify_batch(*batch, &state.flights)?;
            }
        }
        let in_hand: usize = self.sessions.0.values().map(|session| session.in_hand.len()).sum();
        if in_hand != self.batches.len() {
            return Err(format!("{in_hand} batches in hand of {}", self.batches.len()));
        }
        if slots != self.devices.used() {
            return Err(format!("{slots} slots run, {} are counted", self.devices.used()));
        }
        Ok(())
    }

    fn verify_batch(
        &self,
        id: crate::id::BatchId,
        flights: &[super::flight::FlightId],
    ) -> Result<(), String> {
        let mut class = None;
        for &flight in flights {
            let state = self
                .flights
                .get(flight)
                .ok_or_else(|| format!("{flight:?} closed in batch {id}"))?;
            if state.state != State::InBatch(id) {
                return Err(format!("{flight:?} of batch {id} is {:?}", state.state));
            }
            if *class.get_or_insert(state.class) != state.class {
                return Err(format!("batch {id} mixes classes"));
            }
        }
        Ok(())
    }

    fn verify_requests(&self) -> Result<(), String> {
        let mut waits: BTreeMap<_, usize> = BTreeMap::new();
        for (_, flight) in self.flights.iter() {
            for waiter in &flight.waiters {
                *waits.entry(waiter.request).or_default() += 1;
            }
        }
        for (id, request) in self.requests.iter() {
            let rows = waits.remove(&id).unwrap_or(0);
            let missing = if request.ended { 0 } else { request.missing };
            if rows != missing {
                return Err(format!("request {id} misses {missing} rows, {rows} are in flight"));
            }
            if request.ended && request.lending == 0 {
                return Err(format!("request {id} ended, lends nothing and is still there"));
            }
        }
        match waits.first_key_value() {
            Some((request, _)) => Err(format!("request {request} is unknown, but a flight has it")),
            None => Ok(()),
        }
    }
}
