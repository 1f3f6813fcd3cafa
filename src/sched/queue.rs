//! The queue of one stage: rows in order of rank, sorted by what can share a batch.
//!
//! A rank is the time of arrival moved later by priority: an urgent row overtakes, but only rows that
//! came within a bounded time before it, so nothing starves.

use crate::id::ClassKey;
use crate::sched::flight::FlightId;
use crate::time::MonoTime;
use std::collections::{BTreeMap, BTreeSet};

/// A place in a queue: smaller goes first, and no two flights have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// When the row counts as arrived.
    pub due: MonoTime,
    /// Breaks ties in the order of arrival.
    pub sequence: u64,
}

/// The rows of one stage that wait for a session.
#[derive(Debug, Default)]
pub struct Queue {
    classes: BTreeMap<ClassKey, BTreeMap<Rank, FlightId>>,
    /// The first rank of every class: which class is to run next.
    heads: BTreeSet<(Rank, ClassKey)>,
    rows: usize,
}

impl Queue {
    /// Adds a row.
    pub fn insert(&mut self, class: ClassKey, rank: Rank, flight: FlightId) {
        let rows = self.classes.entry(class).or_default();
        let head = rows.first_key_value().map(|(&rank, _)| rank);
        rows.insert(rank, flight);
        self.rows += 1;
        if head.is_none_or(|head| rank < head) {
            if let Some(head) = head {
                self.heads.remove(&(head, class));
            }
            self.heads.insert((rank, class));
        }
    }

    /// Removes a row, if it is there.
    pub fn remove(&mut self, class: ClassKey, rank: Rank) {
        let Some(rows) = self.classes.get_mut(&class) else { return };
        if rows.remove(&rank).is_none() {
            return;
        }
        self.rows -= 1;
        if self.heads.remove(&(rank, class))
            && let Some((&head, _)) = rows.first_key_value()
        {
            self.heads.insert((head, class));
        }
        if rows.is_empty() {
            self.classes.remove(&class);
        }
    }

    /// Takes the first `count` rows of a class.
    pub fn take(&mut self, class: ClassKey, count: usize) -> Vec<FlightId> {
        let Some(rows) = self.classes.get_mut(&class) else { return Vec::new() };
        if let Some((&head, _)) = rows.first_key_value() {
            self.heads.remove(&(head, class));
        }
        let mut taken = Vec::with_capacity(count.min(rows.len()));
        while taken.len() < count
            && let Some((_, flight)) = rows.pop_first()
        {
            taken.push(flight);
        }
        self.rows -= taken.len();
        match rows.first_key_value() {
            Some((&head, _)) => {
                self.heads.insert((head, class));
            }
            None => {
                self.classes.remove(&class);
            }
        }
        taken
    }

    /// The classes by the rank of their first row, most urgent first.
    pub fn classes(&self) -> impl Iterator<Item = (Rank, ClassKey)> + '_ {
        self.heads.iter().copied()
    }

    /// The first row of a class.
    #[must_use]
    pub fn head(&self, class: ClassKey) -> Option<FlightId> {
        self.classes.get(&class)?.first_key_value().map(|(_, &flight)| flight)
    }

    /// The rows of a class, the first one first.
    pub fn class(&self, class: ClassKey) -> impl Iterator<Item = FlightId> + '_ {
        self.classes.get(&class).into_iter().flat_map(|rows| rows.values().copied())
    }

    /// The number of rows of a class.
    #[must_use]
    pub fn class_rows(&self, class: ClassKey) -> usize {
        self.classes.get(&class).map_or(0, BTreeMap::len)
    }

    /// The first rank over all classes.
    #[must_use]
    pub fn first(&self) -> Option<Rank> {
        self.heads.first().map(|&(rank, _)| rank)
    }

    /// The rows over all classes.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Every queued row, for checks.
    pub fn iter(&self) -> impl Iterator<Item = (ClassKey, Rank, FlightId)> + '_ {
        self.classes.iter().flat_map(|(&class, rows)| {
            rows.iter().map(move |(&rank, &flight)| (class, rank, flight))
        })
    }
}
