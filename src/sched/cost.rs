//! What a batch of so many rows costs a stage, learned from runs.
//!
//! Only service times are shown to it, never waiting, so a busy machine does not look like a slow model.
//! Whole numbers and shifts only, so that a recorded trace replays to the bit on any machine.

use crate::time::nanos;
use std::collections::BTreeMap;
use std::time::Duration;

/// Service times seen for one batch size.
#[derive(Clone, Copy, Debug)]
struct Series {
    runs: u32,
    /// Moving average with a memory of about eight runs.
    mean_ns: u64,
    /// A high-water mark that sinks towards the mean by 1/64 a run: near the 99th percentile.
    high_ns: u64,
}

impl Series {
    fn observe(&mut self, ns: u64) {
        self.runs = self.runs.saturating_add(1);
        self.mean_ns = self.mean_ns - (self.mean_ns >> 3) + (ns >> 3);
        let sunk = self.high_ns - (self.high_ns.saturating_sub(self.mean_ns) >> 6);
        self.high_ns = sunk.max(ns);
    }
}

/// Runs of a size after which its cost is believed.
const TRIALS: u32 = 3;

/// The cost model of one stage, or of one class of its rows.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    by_rows: BTreeMap<usize, Series>,
}

impl Costs {
    /// Learns from one run.
    pub fn observe(&mut self, rows: usize, service: Duration) {
        let ns = nanos(service);
        self.by_rows
            .entry(rows)
            .or_insert(Series { runs: 0, mean_ns: ns, high_ns: ns })
            .observe(ns);
    }

    /// The expected time of a run; none before the first run of any size.
    #[must_use]
    pub fn expected(&self, rows: usize) -> Option<Duration> {
        self.scaled(rows, |series| series.mean_ns)
    }

    /// A time that all but about one run in a hundred stay under.
    #[must_use]
    pub fn high(&self, rows: usize) -> Option<Duration> {
        self.scaled(rows, |series| series.high_ns)
    }

    /// The largest batch that is not slower a row than single rows are, as far as it was seen.
    ///
    /// What was measured at load was measured on made-up rows; real ones may be of a size at which a batch
    /// no longer pays. Once batches of a size are known, a few single rows are run to compare with, and then
    /// the size is halved for as long as it disappoints.
    #[must_use]
    pub fn useful_rows(&self, most: usize) -> usize {
        let seen = |rows: usize| self.by_rows.get(&rows).filter(|series| series.runs >= TRIALS);
        if most <= 1 {
            return most;
        }
        let Some(single) = seen(1) else {
            let known = self.by_rows.values().any(|series| series.runs >= TRIALS);
            return if known { 1 } else { most };
        };
        let disappoints = |rows: usize| {
            // Three percent of noise are granted.
            let limit = u128::from(single.mean_ns) * rows as u128 * 103;
            seen(rows).is_some_and(|series| u128::from(series.mean_ns) * 100 > limit)
        };
        let mut rows: usize = 1 << most.ilog2();
        if !disappoints(rows) {
            return most;
        }
        while rows > 1 && disappoints(rows) {
            rows /= 2;
        }
        rows
    }

    /// Sizes not seen cost what the next larger one does, or in proportion to the largest.
    fn scaled(&self, rows: usize, pick: impl Fn(&Series) -> u64) -> Option<Duration> {
        if let Some((_, series)) = self.by_rows.range(rows..).next() {
            return Some(Duration::from_nanos(pick(series)));
        }
        let (&seen, series) = self.by_rows.last_key_value()?;
        let ns = u128::from(pick(series)) * rows as u128 / seen.max(1) as u128;
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unseen_sizes_are_estimated_from_their_neighbours() {
        let us = Duration::from_micros;
        let mut costs = Costs::default();
        assert_eq!(costs.expected(1), None);
        costs.observe(1, us(100));
        costs.observe(8, us(400));
        assert_eq!(costs.expected(1), Some(us(100)));
        assert_eq!(costs.expected(4), Some(us(400)));
        assert_eq!(costs.expected(16), Some(us(800)));
    }

    #[test]
    fn a_size_that_disappoints_is_halved() {
        let us = Duration::from_micros;
        let mut costs = Costs::default();
        let run = |costs: &mut Costs, rows, per_row| {
            (0..TRIALS).for_each(|_| costs.observe(rows, us(per_row * rows as u64)));
        };
        assert_eq!(costs.useful_rows(16), 16, "nothing known");
        run(&mut costs, 16, 140);
        assert_eq!(costs.useful_rows(16), 1, "nothing to compare with");
        run(&mut costs, 1, 100);
        assert_eq!(costs.useful_rows(16), 8, "not tried yet");
        run(&mut costs, 8, 101);
        assert_eq!(costs.useful_rows(16), 8);
        assert_eq!(costs.useful_rows(1), 1);
    }

    #[test]
    fn the_mean_follows_a_step_and_the_high_mark_remembers() {
        let us = Duration::from_micros;
        let mut costs = Costs::default();
        (0..100).for_each(|_| costs.observe(1, us(100)));
        costs.observe(1, us(1_000));
        assert_eq!(costs.high(1), Some(us(1_000)));
        (0..100).for_each(|_| costs.observe(1, us(200)));
        let mean = costs.expected(1).unwrap();
        assert!(mean > us(190) && mean < us(210), "{mean:?}");
        assert!(costs.high(1).unwrap() > us(200));
    }
}
