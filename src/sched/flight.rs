//! The flight table: one piece of work for equal rows, and who waits for it.
//!
//! A flight belongs to the scheduler. The request that opened it only lends its input, so whoever
//! leaves is taken off the list and no other waiter notices.
//!
//! A flight of a base is waited for by the flights above it, which take its output.
//!
//! Invariants: at most one joinable flight per row key; a flight in a queue is wanted by somebody.

use crate::id::{BatchId, ClassKey, RowKey, StageId};
use crate::sched::event::{RowRef, Waiters};
use crate::sched::queue::Rank;
use crate::time::MonoTime;
use slotmap::SlotMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

slotmap::new_key_type! {
    /// One flight; never reused.
    pub struct FlightId;
}

/// Where a flight is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Until this flight gives the base output that it takes; then it is queued at this place.
    Awaits(FlightId, Rank),
    /// In its stage's queue, at this place.
    Queued(Rank),
    /// In a batch that a session has in hand.
    InBatch(BatchId),
    /// Waiting to be run again, apart.
    Suspect,
}

/// One piece of work shared by equal rows.
#[derive(Debug)]
pub struct Flight {
    /// The stage that runs it.
    pub stage: StageId,
    /// What it may share a batch with.
    pub class: ClassKey,
    /// Its content.
    pub key: RowKey,
    /// Others may join it.
    pub joinable: bool,
    /// Its output may be kept.
    pub store: bool,
    /// The request row whose input it uses.
    pub source: RowRef,
    /// The request rows that it answers.
    pub waiters: Waiters,
    /// The flights that take its output.
    pub above: SmallVec<[FlightId; 1]>,
    /// It takes a base output, and has it unless it still awaits it.
    pub takes_base: bool,
    /// When the first of those who wait for it, or for what is made of it, needs it, or did before they left; none of one that
    /// takes a base output.
    pub needed_by: Option<MonoTime>,
    /// When it was opened.
    pub arrival: MonoTime,
    /// Its place among those that came at the same time.
    pub sequence: u64,
    /// Its input bytes.
    pub bytes: u64,
    /// Where it is.
    pub state: State,
}

impl Flight {
    /// Whether a request's row or another flight waits for it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !(self.waiters.is_empty() && self.above.is_empty())
    }
}

/// All flights, and those that can be joined by content.
#[derive(Debug, Default)]
pub struct FlightTable {
    flights: SlotMap<FlightId, Flight>,
    open: BTreeMap<RowKey, FlightId>,
}

impl FlightTable {
    /// Starts a flight.
    pub fn open(&mut self, flight: Flight) -> FlightId {
        let joinable = flight.joinable.then_some(flight.key);
        let id = self.flights.insert(flight);
        if let Some(key) = joinable {
            let earlier = self.open.insert(key, id);
            debug_assert!(earlier.is_none(), "two joinable flights for one key");
        }
        id
    }

    /// The flight that an equal row can join.
    #[must_use]
    pub fn joinable(&self, key: &RowKey) -> Option<FlightId> {
        self.open.get(key).copied()
    }

    /// Detaches all rows of a request from a flight and says whether the last waiter left.
    pub fn leave(&mut self, id: FlightId, request: crate::id::RequestId) -> bool {
        let Some(flight) = self.flights.get_mut(id) else { return false };
        let before = flight.waiters.len();
        flight.waiters.retain(|waiter| waiter.request != request);
        before > 0 && !flight.is_wanted()
    }

    /// Ends a flight: nobody can join it any more.
    pub fn close(&mut self, id: FlightId) -> Option<Flight> {
        let flight = self.flights.remove(id)?;
        if flight.joinable {
            self.open.remove(&flight.key);
        }
        Some(flight)
    }

    /// Looks at a flight.
    #[must_use]
    pub fn get(&self, id: FlightId) -> Option<&Flight> {
        self.flights.get(id)
    }

    /// Looks at a flight to change it; its key and whether it is joinable must stay.
    pub fn get_mut(&mut self, id: FlightId) -> Option<&mut Flight> {
        self.flights.get_mut(id)
    }

    /// The number of flights.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether there is no flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// All flights, for checks.
    pub fn iter(&self) -> impl Iterator<Item = (FlightId, &Flight)> {
        self.flights.iter()
    }
}
