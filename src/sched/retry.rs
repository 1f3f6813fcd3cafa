//! Rows that are run again because their batch failed or ended its process, and rows that are not.
//!
//! A batch that failed is halved until the guilty row stands alone, so only that row's requests see the
//! error and a row runs at most log2(batch) + 2 times. After a death the halves run in a process of
//! their own, apart from other traffic; a row that kills alone is guilty and goes into quarantine.

use crate::id::{RowKey, SessionId};
use crate::sched::flight::FlightId;
use crate::time::MonoTime;
use std::collections::{BTreeMap, VecDeque};

/// Rows to be run again together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The rows.
    pub flights: Vec<FlightId>,
    /// Run in a process of their own.
    pub apart: bool,
}

/// Whether a stage has a session apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// None, and none asked for.
    #[default]
    None,
    /// Asked for.
    Starting,
    /// There.
    Up(SessionId),
}

/// The suspects of one stage.
#[derive(Debug, Default)]
pub struct Suspects {
    /// To be run again, the first first.
    pub groups: VecDeque<Group>,
    /// The session apart.
    pub isolation: Isolation,
    /// When the session apart has waited long enough for more suspects.
    pub idle_at: Option<MonoTime>,
}

impl Suspects {
    /// Adds the rows of a batch, in halves.
    pub fn add_halves(&mut self, mut flights: Vec<FlightId>, apart: bool) {
        let rest = flights.split_off(flights.len().div_ceil(2));
        for flights in [rest, flights] {
            if !flights.is_empty() {
                self.groups.push_front(Group { flights, apart });
            }
        }
    }

    /// Takes the next group that may run in the asking kind of session.
    pub fn take(&mut self, apart: bool) -> Option<Group> {
        let index = self.groups.iter().position(|group| group.apart == apart)?;
        self.groups.remove(index)
    }

    /// Takes out a row that nobody waits for any more.
    pub fn remove(&mut self, flight: FlightId) {
        for group in &mut self.groups {
            group.flights.retain(|&held| held != flight);
        }
        self.groups.retain(|group| !group.flights.is_empty());
    }

    /// Whether some group waits for an everyday session.
    #[must_use]
    pub fn wants_serving(&self) -> bool {
        self.groups.iter().any(|group| !group.apart)
    }

    /// Whether some group waits for a session apart.
    #[must_use]
    pub fn wants_isolation(&self) -> bool {
        self.groups.iter().any(|group| group.apart)
    }
}

/// Rows that ended a process lately: answered without running until their time is over.
#[derive(Debug, Default)]
pub struct Quarantine {
    until: BTreeMap<RowKey, MonoTime>,
    order: VecDeque<(MonoTime, RowKey)>,
}

impl Quarantine {
    /// Adds a row; the oldest goes where more than `max` would be held.
    pub fn add(&mut self, key: RowKey, until: MonoTime, max: usize) {
        self.until.insert(key, until);
        self.order.push_back((until, key));
        while self.order.len() > max {
            self.pop();
        }
    }

    /// Whether a row is in quarantine.
    pub fn holds(&mut self, key: &RowKey, now: MonoTime) -> bool {
        while self.order.front().is_some_and(|&(until, _)| until <= now) {
            self.pop();
        }
        self.until.contains_key(key)
    }

    fn pop(&mut self) {
        if let Some((until, key)) = self.order.pop_front()
            && self.until.get(&key) == Some(&until)
        {
            self.until.remove(&key);
        }
    }

    /// The rows held, for checks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no row is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn a_batch_is_halved_in_order() {
        let mut ids: SlotMap<FlightId, ()> = SlotMap::with_key();
        let flights: Vec<_> = (0..5).map(|_| ids.insert(())).collect();
        let mut suspects = Suspects::default();
        suspects.add_halves(flights.clone(), true);
        assert_eq!(suspects.take(false), None);
        assert_eq!(suspects.take(true).unwrap().flights, flights[..3]);
        assert_eq!(suspects.take(true).unwrap().flights, flights[3..]);
        assert_eq!(suspects.take(true), None);
    }

    #[test]
    fn quarantine_ends_by_time_and_by_number() {
        let at = MonoTime::from_nanos;
        let key = |n| RowKey([n; 32]);
        let mut quarantine = Quarantine::default();
        quarantine.add(key(1), at(10), 2);
        quarantine.add(key(2), at(20), 2);
        assert!(quarantine.holds(&key(1), at(9)));
        assert!(!quarantine.holds(&key(1), at(10)));
        quarantine.add(key(3), at(30), 2);
        quarantine.add(key(4), at(40), 2);
        assert!(!quarantine.holds(&key(2), at(11)), "pushed out");
        assert!(quarantine.holds(&key(4), at(11)));
    }
}
