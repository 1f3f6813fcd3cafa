//! How often rows were asked for lately, kept or not, in a fixed number of bytes.
//!
//! # Source
//! The TinyLFU sketch with halving (ACM TOS'17).

use crate::id::RowKey;

/// How often a row was asked for lately: a count-min sketch of small counters that are halved in time.
///
/// Halving walks along with the counting, a counter at a time, so that no single call is slow.
#[derive(Debug)]
pub(super) struct Sketch {
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

    pub(super) fn new(budget: u64) -> Self {
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

    pub(super) fn count(&mut self, key: &RowKey) {
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

    pub(super) fn estimate(&self, key: &RowKey) -> u32 {
        self.places(key).iter().map(|&place| u32::from(self.counters[place])).min().unwrap_or(0)
    }
}
