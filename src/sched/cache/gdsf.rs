//! Eviction by what rows save: those go first that save least compute a byte.
//!
//! A row's rank is what it saves a byte, `asks * cost / bytes`, on top of the rank of the last row that had to go. So
//! ranks rise as rows come and go, and one that is asked for no more is in time overtaken, however much it once saved.
//!
//! # Source
//! Greedy-Dual-Size-Frequency (HP Labs, 1998).

use std::collections::BTreeSet;

/// The order in which rows go, by their slots.
#[derive(Debug, Default)]
pub(super) struct Gdsf {
    /// In hundredths of a nanosecond a byte.
    ranks: Vec<u64>,
    order: BTreeSet<(u64, u32)>,
    /// The rank of the last row that had to go.
    floor: u64,
}

impl Gdsf {
    /// What a row saves a byte, on top of the last that had to go.
    fn rank(&self, saved_ns: u64, bytes: u64) -> u64 {
        self.floor.saturating_add(saved_ns.saturating_mul(100) / bytes.max(1))
    }

    /// A row was asked for, or came: all asks for it save so much.
    pub(super) fn place(&mut self, slot: u32, saved_ns: u64, bytes: u64) {
        let rank = self.rank(saved_ns, bytes);
        match self.ranks.get_mut(slot as usize) {
            Some(old) => {
                self.order.remove(&(std::mem::replace(old, rank), slot));
            }
            None => self.ranks.push(rank),
        }
        self.order.insert((rank, slot));
    }

    /// The next row to go once so many others did.
    pub(super) fn victim(&self, taken: usize) -> Option<u32> {
        self.order.iter().nth(taken).map(|&(_, slot)| slot)
    }

    /// A row had to go.
    pub(super) fn remove(&mut self, slot: u32) {
        let rank = self.ranks[slot as usize];
        self.order.remove(&(rank, slot));
        self.floor = self.floor.max(rank);
    }
}
