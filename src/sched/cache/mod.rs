//! Which output rows are kept: an index with an order of eviction and a gate at the door. No bytes.
//!
//! Answers go in the order of SIEVE: asking for one costs next to nothing. Base outputs differ in size and in what they
//! save, so they go by compute saved a byte. A row is only let in if the asks for it lately save as much as those for the
//! rows that would have to go; of answers all count the same.

mod gdsf;
mod sieve;
mod sketch;

use crate::id::RowKey;
use crate::sched::event::{Slot, Store};
use crate::time::nanos;
use gdsf::Gdsf;
use sieve::Sieve;
use sketch::Sketch;
use std::collections::BTreeMap;
use std::time::Duration;

/// What an entry costs beside its row: its place in the index, in the order of eviction and in the list of what is
/// kept, each of which may have room for as many again, and how it came to be.
pub const OVERHEAD_BYTES: u64 = 320;

/// Rows larger than this share of the budget are never kept: one of them would empty the cache.
const ROW_SHARE_MAX: u64 = 8;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: RowKey,
    bytes: u64,
    /// What making it again takes.
    cost_ns: u64,
}

/// In which order rows go.
#[derive(Debug)]
enum Order {
    Sieve(Sieve),
    Gdsf(Gdsf),
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
    order: Order,
    sketch: Sketch,
}

impl RowIndex {
    /// An index that keeps at most `budget` bytes, bookkeeping included.
    #[must_use]
    pub fn new(store: Store, budget: u64) -> Self {
        let order = match store {
            Store::Answers => Order::Sieve(Sieve::new()),
            Store::Bases => Order::Gdsf(Gdsf::default()),
        };
        Self {
            store,
            budget,
            bytes: 0,
            slots: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            order,
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
        match &mut self.order {
            Order::Sieve(order) => order.asked(slot),
            Order::Gdsf(order) => {
                let Entry { bytes, cost_ns, .. } = self.entries[slot as usize];
                order.place(slot, saved(&self.sketch, key, cost_ns), bytes);
            }
        }
        Some(self.slot(slot))
    }

    /// Where a row is kept, without counting that somebody looked.
    #[must_use]
    pub fn peek(&self, key: &RowKey) -> Option<Slot> {
        self.slots.get(key).map(|&slot| self.slot(slot))
    }

    /// Keeps a row that takes `cost` to make if it is worth it; the slots that had to be emptied for it come with the
    /// answer.
    pub fn admit(
        &mut self,
        key: RowKey,
        row_bytes: u64,
        cost: Duration,
    ) -> Option<(Slot, Vec<Slot>)> {
        let bytes = row_bytes.saturating_add(OVERHEAD_BYTES);
        if bytes > self.budget / ROW_SHARE_MAX || self.slots.contains_key(&key) {
            return None;
        }
        let cost_ns = match self.order {
            // Every answer counts the same.
            Order::Sieve(_) => 1,
            Order::Gdsf(_) => nanos(cost).max(1),
        };
        let entry = Entry { key, bytes, cost_ns };
        let victims = self.victims(&entry)?;
        for &victim in &victims {
            self.remove(victim);
        }
        let slot = self.insert(entry);
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

    /// The rows that must go for a newcomer; none where they save more than it does.
    fn victims(&mut self, newcomer: &Entry) -> Option<Vec<u32>> {
        let mut victims = Vec::new();
        let (mut freed, mut lost) = (0, 0_u64);
        let won = saved(&self.sketch, &newcomer.key, newcomer.cost_ns);
        while self.bytes - freed + newcomer.bytes > self.budget {
            let victim = match &mut self.order {
                Order::Sieve(order) => order.victim(&victims),
                Order::Gdsf(order) => order.victim(victims.len()),
            }?;
            let Entry { key, bytes, cost_ns } = &self.entries[victim as usize];
            freed += bytes;
            lost = lost.saturating_add(saved(&self.sketch, key, *cost_ns));
            victims.push(victim);
            if lost > won {
                return None;
            }
        }
        Some(victims)
    }

    fn insert(&mut self, entry: Entry) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1)
                    .expect("fewer rows than the budget has bytes/320")
            }
        };
        match &mut self.order {
            Order::Sieve(order) => order.insert(slot),
            Order::Gdsf(order) => {
                order.place(slot, saved(&self.sketch, &entry.key, entry.cost_ns), entry.bytes);
            }
        }
        self.bytes += entry.bytes;
        self.slots.insert(entry.key, slot);
        slot
    }

    fn remove(&mut self, slot: u32) {
        let Entry { key, bytes, .. } = self.entries[slot as usize];
        match &mut self.order {
            Order::Sieve(order) => order.remove(slot),
            Order::Gdsf(order) => order.remove(slot),
        }
        self.bytes -= bytes;
        self.slots.remove(&key);
        self.free.push(slot);
    }
}

/// What keeping a row saves as often as it is asked for.
fn saved(sketch: &Sketch, key: &RowKey, cost_ns: u64) -> u64 {
    cost_ns.saturating_mul(u64::from(sketch.estimate(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const STORES: [Store; 2] = [Store::Answers, Store::Bases];

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
    fn a_row_asked_for_often_survives_a_scan() {
        for store in STORES {
            let mut index = RowIndex::new(store, 64 << 10);
            for _ in 0..8 {
                index.ask(&key(0));
            }
            index.admit(key(0), 680, MS).unwrap();
            for n in 1..5_000 {
                index.ask(&key(n));
                index.admit(key(n), 680, MS);
            }
            assert!(index.ask(&key(0)).is_some());
        }
    }

    #[test]
    fn base_outputs_that_save_more_a_byte_stay() {
        let mut index = RowIndex::new(Store::Bases, 64 << 10);
        for n in 0..200 {
            index.ask(&key(n));
            // One in four is dear.
            index.admit(key(n), 680, if n % 4 == 0 { 10 * MS } else { MS });
        }
        let index = &index;
        let kept = |dear: bool| {
            (0..200).filter(move |n| (n % 4 == 0) == dear && index.peek(&key(*n)).is_some())
        };
        assert_eq!(kept(true).count(), 50, "all of them");
        assert_eq!(kept(false).count(), 15, "what fits beside");
    }

    #[test]
    fn an_oversized_row_or_an_empty_budget_keeps_nothing() {
        for store in STORES {
            let mut index = RowIndex::new(store, 64 << 10);
            assert_eq!(index.admit(key(1), 9 << 10, MS), None);
            let mut none = RowIndex::new(store, 0);
            assert_eq!(none.ask(&key(1)), None);
            assert_eq!(none.admit(key(1), 8, MS), None);
        }
    }

    /// What the index of base outputs is to do, as plainly as it can be said.
    struct Naive {
        rows: Vec<(u64, u64, u64, u64)>,
        floor: u64,
        sketch: Sketch,
    }

    impl Naive {
        fn saved(&self, n: u64, cost_ns: u64) -> u64 {
            u64::from(self.sketch.estimate(&key(n))) * cost_ns
        }

        fn ask(&mut self, n: u64) -> bool {
            self.sketch.count(&key(n));
            let Some(at) = self.rows.iter().position(|row| row.0 == n) else { return false };
            let (_, bytes, cost_ns, _) = self.rows[at];
            self.rows[at].3 = self.floor + self.saved(n, cost_ns) * 100 / bytes;
            true
        }

        /// The rows that go, or none where the newcomer is not let in.
        fn admit(&mut self, n: u64, bytes: u64, cost_ns: u64, budget: u64) -> Option<usize> {
            let bytes = bytes + OVERHEAD_BYTES;
            if bytes > budget / ROW_SHARE_MAX || self.rows.iter().any(|row| row.0 == n) {
                return None;
            }
            let mut rows = self.rows.clone();
            rows.sort_by_key(|&(_, _, _, rank)| rank);
            let room = |rows: &[(u64, u64, u64, u64)]| {
                rows.iter().map(|row| row.1).sum::<u64>() + bytes <= budget
            };
            let gone = (0..).find(|&gone| room(&rows[gone..])).unwrap();
            let lost: u64 = rows[..gone].iter().map(|row| self.saved(row.0, row.2)).sum();
            if lost > self.saved(n, cost_ns) {
                return None;
            }
            self.floor = rows[..gone].last().map_or(self.floor, |row| row.3.max(self.floor));
            let rank = self.floor + self.saved(n, cost_ns) * 100 / bytes;
            self.rows = rows.split_off(gone);
            self.rows.push((n, bytes, cost_ns, rank));
            Some(gone)
        }
    }

    proptest! {
        #[test]
        fn never_above_budget_and_slots_are_given_back(
            asks in proptest::collection::vec((0_u64..200, 0_u64..3_000, 1_u64..1_000), 1..600),
            budget in 4_u64 << 10..128 << 10,
        ) {
            for store in STORES {
                let mut index = RowIndex::new(store, budget);
                let mut kept = std::collections::BTreeSet::new();
                for &(n, bytes, cost) in &asks {
                    if index.ask(&key(n)).is_some() {
                        continue;
                    }
                    if let Some((slot, victims)) = index.admit(key(n), bytes, MS * cost as u32) {
                        victims.iter().for_each(|victim| assert!(kept.remove(victim), "{victim:?}"));
                        prop_assert!(kept.insert(slot), "{:?} given twice", slot);
                    }
                    prop_assert!(index.bytes() <= index.budget());
                    prop_assert_eq!(kept.len(), index.len());
                }
            }
        }

        #[test]
        fn base_outputs_go_as_a_plain_model_says(
            // Costs that are all different, so that no two ranks are the same but by rare chance.
            asks in proptest::collection::vec((0_u64..60, 0_u64..4, 1_000_000_u64..900_000_000), 1..400),
        ) {
            let budget = 16 << 10;
            let mut index = RowIndex::new(Store::Bases, budget);
            let mut plain = Naive { rows: Vec::new(), floor: 0, sketch: Sketch::new(budget) };
            for (n, size, cost_ns) in asks {
                prop_assert_eq!(index.ask(&key(n)).is_some(), plain.ask(n));
                let (bytes, cost) = (200 + 300 * size, Duration::from_nanos(cost_ns));
                let gone = index.admit(key(n), bytes, cost).map(|(_, victims)| victims.len());
                prop_assert_eq!(gone, plain.admit(n, bytes, cost_ns, budget));
                let mut rows: Vec<u64> = plain.rows.iter().map(|row| row.0).collect();
                rows.retain(|&n| index.peek(&key(n)).is_none());
                prop_assert!(rows.is_empty(), "{:?} are not kept", rows);
                prop_assert_eq!(index.len(), plain.rows.len());
            }
        }
    }
}
