//! How likely it is that a base output, once made, is wanted again while it can still be had.
//!
//! What counts is not how often rows were ever asked for, but whether the next ask comes before the output would be
//! gone: within as many other rows as the store holds, or, where nothing is kept, as are in flight together. So the
//! rows asked for last are remembered, whatever way they went, as many of them as that; of very many, a sample.
//!
//! # Source
//! Counting by reuse distance over a sample of the keys is from SHARDS (FAST'15).

use crate::id::RowKey;
use std::collections::BTreeMap;

/// Rows remembered, at most; once more were seen that could still be kept, only a share of all rows is looked at.
const ROWS_MAX: usize = 2_048;

/// Asks for one row that are told apart; those beyond count as the last.
const TURNS: usize = 4;

/// What one ask counts as.
const ONE: u32 = 1 << 16;

/// Every ask makes earlier ones count less by this power of two: some 256 of them are remembered.
const DECAY: u32 = 8;

/// A row asked for lately.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The last ask.
    number: u64,
    /// How many there were, up to the number of turns.
    asks: usize,
}

/// What is learned about the rows of one base.
#[derive(Debug)]
pub struct Again {
    rows: BTreeMap<u64, Seen>,
    by_age: BTreeMap<u64, u64>,
    number: u64,
    /// How many rows were asked for once, twice and so on, lately.
    reached: [u32; TURNS + 1],
    /// Rows looked at are one in `1 << sampled`.
    sampled: u32,
}

impl Default for Again {
    fn default() -> Self {
        // Sharing is what a base was cut for, so half of its rows are believed to come again until it shows.
        let reached = std::array::from_fn(|turn| (4 * ONE) >> turn);
        Self { rows: BTreeMap::new(), by_age: BTreeMap::new(), number: 0, reached, sampled: 0 }
    }
}

impl Again {
    /// A row was asked for; `fit` rows could be kept or are in flight together. Says whether it is known to have been
    /// asked for so lately that its base output could be there.
    pub fn asked(&mut self, key: &RowKey, fit: u64) -> bool {
        let tag = tag(key);
        if !self.is_sampled(tag) {
            return false;
        }
        self.number += 1;
        let before = self.rows.get(&tag).copied();
        if let Some(seen) = before {
            self.by_age.remove(&seen.number);
        }
        let asks = before.map_or(1, |seen| (seen.asks + 1).min(TURNS + 1));
        self.rows.insert(tag, Seen { number: self.number, asks: asks.min(TURNS) });
        self.by_age.insert(self.number, tag);
        self.reached.iter_mut().for_each(|asks| *asks -= *asks >> DECAY);
        self.reached[asks - 1] += ONE;
        self.forget(fit);
        before.is_some()
    }

    /// Forgets rows that could not be kept any more, and half of all where those that could are too many.
    fn forget(&mut self, fit: u64) {
        while self.rows.len() as u64 > (fit >> self.sampled).max(1) {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.rows.remove(&oldest);
        }
        if self.rows.len() > ROWS_MAX {
            self.sampled += 1;
            let sampled = self.sampled;
            self.rows.retain(|&tag, _| tag.trailing_zeros() >= sampled);
            self.by_age.retain(|_, tag| tag.trailing_zeros() >= sampled);
        }
    }

    const fn is_sampled(&self, tag: u64) -> bool {
        tag.trailing_zeros() >= self.sampled
    }

    /// The chance in 1024 that a row that was just asked for is asked for again in time; `asks` is how often it seems
    /// to have been asked for, where it is not of the sample.
    #[must_use]
    pub fn chance(&self, key: &RowKey, asks: u32) -> u32 {
        let unseen = (asks as usize).clamp(1, TURNS);
        let turn = self.rows.get(&tag(key)).map_or(unseen, |seen| seen.asks);
        let (mut now, next) = (u64::from(self.reached[turn - 1]), u64::from(self.reached[turn]));
        if turn == TURNS {
            // The last count takes all that go on, time and again.
            now += next;
        }
        u32::try_from(next * 1024 / now.max(1)).unwrap_or(1024).min(1024)
    }
}

/// What stands for a row; keys are digests, so any of their bytes will do.
fn tag(key: &RowKey) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| key.0[16 + byte]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> RowKey {
        let mut bytes = [0; 32];
        let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes[16..24].copy_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes());
        RowKey(bytes)
    }

    /// Asks for rows one after the other, each so often, and returns the chance of a new one.
    fn chance(times: u64, apart: u64, fit: u64) -> u32 {
        let mut again = Again::default();
        for step in 0..4_000 {
            for turn in 0..times {
                if let Some(row) = u64::checked_sub(step, turn * apart) {
                    again.asked(&key(row), fit);
                }
            }
        }
        again.chance(&key(1 << 40), 1)
    }

    #[test]
    fn the_chance_is_that_of_an_ask_within_what_is_kept() {
        assert_eq!(Again::default().chance(&key(0), 1), 512, "sharing is what bases are for");
        assert_eq!(chance(1, 1, 1_000), 0);
        assert!(chance(2, 5, 1_000) > 1_000);
        assert_eq!(chance(2, 50, 20), 0, "by then it is gone");
        assert!(chance(2, 50, 200) > 1_000);
        assert!(chance(2, 1_500, u64::MAX) > 900, "a sample tells it too");
    }

    #[test]
    fn rows_asked_for_before_are_told_apart_from_new_ones() {
        let mut again = Again::default();
        // One row in four is asked for ever again, the others once.
        for step in 0..4_000 {
            again.asked(&key(if step % 4 == 0 { step % 16 } else { step }), 100);
        }
        assert!(again.chance(&key(1 << 40), 1) < 50);
        assert!(again.chance(&key(0), 4) > 900);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut again = Again::default();
        for step in 0..100_000 {
            again.asked(&key(step), u64::MAX);
            assert!(again.rows.len() <= ROWS_MAX && again.rows.len() == again.by_age.len());
        }
        assert!(again.sampled > 0);
    }
}
