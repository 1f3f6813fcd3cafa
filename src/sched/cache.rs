//! Which output rows are kept: an index with an order of eviction and a gate at the door. No bytes.
//!
//! Eviction is SIEVE: rows stand in order of arrival, a hand walks from the oldest and takes the first
//! that was not asked for since it last passed. Admission is by frequency: a row is only kept if it was
//! asked for more often than the rows that would have to go for it.
//!
//! # Source
//! SIEVE (NSDI'24) for eviction, the TinyLFU sketch with halving (ACM TOS'17) for admission.

use crate::id::RowKey;
use crate::sched::event::{Slot, Store};
use std::collections::BTreeMap;

/// What an entry costs beside its bytes: index, links, allocation headers.
const OVERHEAD_BYTES: u64 = 256;

/// Rows larger than this share of the budget are never kept: one of them would empty the cache.
const ROW_SHARE_MAX: u64 = 8;

const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: RowKey,
    bytes: u64,
    asked: bool,
    newer: u32,
    older: u32,
}

/// The index of kept rows.
#[derive(Debug)]
pub struct RowIndex {
    store: Store,
    budget: u64,
    bytes: u64,
    slots: BTreeMap<RowKey, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    hand: u32,
    sketch: Sketch,
}

impl RowIndex {
    /// An index that keeps at most `budget` bytes, bookkeeping included.
    #[must_use]
    pub fn new(store: Store, budget: u64) -> Self {
        Self {
            store,
            budget,
            bytes: 0,
            slots: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NIL,
            oldest: NIL,
            hand: NIL,
            sketch: Sketch::new(budget),
        }
    }

    /// Counts that a row was asked for, and says where it is kept.
    pub fn ask(&mut self, key: &RowKey) -> Option<Slot> {
        if self.budget == 0 {
            return None;
        }
        self.sketch.count(key);
        let &slot = self.slots.get(key)?;
        self.entries[slot as usize].asked = true;
        Some(self.slot(slot))
    }

    /// Where a row is kept, without counting that somebody looked.
    #[must_use]
    pub fn peek(&self, key: &RowKey) -> Option<Slot> {
        self.slots.get(key).map(|&slot| self.slot(slot))
    }

    /// Keeps a row if it is worth it; the slots that had to be emptied for it come with the answer.
    pub fn admit(&mut self, key: RowKey, row_bytes: u64) -> Option<(Slot, Vec<Slot>)> {
        let bytes = row_bytes.saturating_add(OVERHEAD_BYTES);
        if bytes > self.budget / ROW_SHARE_MAX || self.slots.contains_key(&key) {
            return None;
        }
        let victims = self.victims(&key, bytes)?;
        for &victim in &victims {
            self.remove(victim);
        }
        let slot = self.insert(key, bytes);
        Some((self.slot(slot), victims.into_iter().map(|victim| self.slot(victim)).collect()))
    }

    /// How often a row was asked for lately, kept or not; 15 stands for more.
    #[must_use]
    pub fn frequency(&self, key: &RowKey) -> u32 {
        if self.budget == 0 { 0 } else { self.sketch.estimate(key) }
    }

    fn slot(&self, number: u32) -> Slot {
        Slot { store: self.store, number }
    }

    /// Bytes kept, bookkeeping included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The budget in bytes.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// How many rows of a size fit.
    #[must_use]
    pub fn rows_fit(&self, row_bytes: u64) -> u64 {
        self.budget / row_bytes.saturating_add(OVERHEAD_BYTES)
    }

    /// Rows kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The rows that must go for `bytes` more; none where they are worth more than the newcomer.
    fn victims(&mut self, key: &RowKey, bytes: u64) -> Option<Vec<u32>> {
        let mut victims = Vec::new();
        let mut freed = 0;
        let mut worth = 0;
        let newcomer = self.sketch.estimate(key);
        while self.bytes - freed + bytes > self.budget {
            // Having come all the way round means that nothing is left to take.
            let victim = self.pass_hand().filter(|victim| !victims.contains(victim))?;
            freed += self.entries[victim as usize].bytes;
            worth += self.sketch.estimate(&self.entries[victim as usize].key);
            victims.push(victim);
            if worth > newcomer {
                return None;
            }
        }
        Some(victims)
    }

    /// Moves the hand to the next row that was not asked for, clearing marks on the way.
    fn pass_hand(&mut self) -> Option<u32> {
        // Twice round at most: the first round may clear every mark.
        for _ in 0..=2 * self.slots.len() {
            if self.hand == NIL {
                self.hand = self.oldest;
            }
            let entry = self.entries.get_mut(self.hand as usize)?;
            let at = self.hand;
            self.hand = entry.newer;
            if !std::mem::take(&mut entry.asked) {
                return Some(at);
            }
        }
        None
    }

    fn insert(&mut self, key: RowKey, bytes: u64) -> u32 {
        let entry = Entry { key, bytes, asked: false, newer: NIL, older: self.newest };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1)
                    .expect("fewer rows than the budget has bytes/256")
            }
        };
        match self.newest {
            NIL => self.oldest = slot,
            newest => self.entries[newest as usize].newer = slot,
        }
        self.newest = slot;
        self.bytes += bytes;
        self.slots.insert(key, slot);
        slot
    }

    fn remove(&mut self, slot: u32) {
        let Entry { key, bytes, newer, older, .. } = self.entries[slot as usize];
        match older {
            NIL => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
        match newer {
            NIL => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        if self.hand == slot {
            self.hand = newer;
        }
        self.bytes -= bytes;
        self.slots.remove(&key);
        self.free.push(slot);
    }
}

/// How often a row was asked for lately: a count-min sketch of small counters that are halved in time.
///
/// Halving walks along with the counting, a counter at a time, so that no single call is slow.
#[derive(Debug)]
struct Sketch {
    counters: Vec<u8>,
    /// The counter to be halved next.
    aging: usize,
    /// Counts since then, in tenths of a counter.
    due: usize,
}

impl Sketch {
    const LINES: usize = 4;
    const COUNT_MAX: u8 = 15;
    /// Every counter is halved once in so many counts per counter of a line.
    const WINDOW: usize = 10;

    fn new(budget: u64) -> Self {
        // One counter a line for every KiB of budget: about as many as rows fit.
        let width = (budget >> 10).clamp(1 << 10, 1 << 20).next_power_of_two();
        let width = if budget == 0 { 1 } else { usize::try_from(width).unwrap_or(1 << 20) };
        Self { counters: vec![0; width * Self::LINES], aging: 0, due: 0 }
    }

    /// The counters of a row. Keys are digests, so their own bytes are the hash.
    fn places(&self, key: &RowKey) -> [usize; Self::LINES] {
        let width = self.counters.len() / Self::LINES;
        std::array::from_fn(|line| {
            let bytes: [u8; 4] = std::array::from_fn(|byte| key.0[line * 4 + byte]);
            line * width + (u32::from_le_bytes(bytes) as usize & (width - 1))
        })
    }

    fn count(&mut self, key: &RowKey) {
        for place in self.places(key) {
            let counter = &mut self.counters[place];
            *counter = (*counter + 1).min(Self::COUNT_MAX);
        }
        self.due += Self::LINES;
        if self.due >= Self::WINDOW {
            self.due -= Self::WINDOW;
            self.counters[self.aging] /= 2;
            self.aging = (self.aging + 1) % self.counters.len();
        }
    }

    fn estimate(&self, key: &RowKey) -> u32 {
        self.places(key).iter().map(|&place| u32::from(self.counters[place])).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> RowKey {
        // Spread like a digest: the sketch reads the first sixteen bytes.
        let mut bytes = [0; 32];
        for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17 * i as u32);
            chunk.copy_from_slice(&mixed.to_le_bytes());
        }
        RowKey(bytes)
    }

    #[test]
    fn never_above_budget_and_slots_are_given_back() {
        let mut index = RowIndex::new(Store::Answers, 64 << 10);
        let mut kept = std::collections::BTreeSet::new();
        for n in 0..10_000 {
            index.ask(&key(n));
            index.ask(&key(n));
            if let Some((slot, victims)) = index.admit(key(n), 744) {
                victims.iter().for_each(|victim| assert!(kept.remove(victim), "{victim:?}"));
                assert!(kept.insert(slot), "{slot:?} given twice");
            }
            assert!(index.bytes() <= index.budget());
            assert_eq!(kept.len(), index.len());
        }
        assert_eq!(index.len(), 65);
    }

    #[test]
    fn a_row_asked_for_often_survives_a_scan() {
        let mut index = RowIndex::new(Store::Answers, 64 << 10);
        for _ in 0..8 {
            index.ask(&key(0));
        }
        index.admit(key(0), 744).unwrap();
        for n in 1..5_000 {
            index.ask(&key(n));
            index.admit(key(n), 744);
        }
        assert!(index.ask(&key(0)).is_some());
    }

    #[test]
    fn an_oversized_row_or_an_empty_budget_keeps_nothing() {
        let mut index = RowIndex::new(Store::Answers, 64 << 10);
        assert_eq!(index.admit(key(1), 9 << 10), None);
        let mut none = RowIndex::new(Store::Answers, 0);
        assert_eq!(none.ask(&key(1)), None);
        assert_eq!(none.admit(key(1), 8), None);
    }
}
