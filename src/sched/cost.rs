//! What a batch of so many rows costs a stage, learned from runs.
//!
//! Only service times are shown to it, never waiting, so a busy machine does not look like a slow model. What was seen is
//! forgotten: averages go back some 32 runs, and high-water marks sink by a part of themselves with every run.
//! Whole numbers and shifts only, so that a recorded trace replays to the bit on any machine.

use crate::sched::curve::{Curve, Seen};
use crate::sched::quantile::{Judge, Quantile};
use crate::time::{MonoTime, nanos};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs that the mean goes back, about.
const MEMORY: u64 = 32;

/// Runs in a row far from the mean after which the cost counts as changed.
const STRAYS: u32 = 3;

/// Service times seen for one batch size.
#[derive(Clone, Copy, Debug, Default)]
struct Series {
    runs: u32,
    /// Runs one after the other that were far from the mean.
    strays: u32,
    /// A moving average that a disturbed run hardly moves.
    mean_ns: u64,
    /// A high-water mark that sinks towards the mean by 1/64 a run: near the 99th percentile.
    high_ns: u64,
    /// What nineteen runs in twenty stay under: up by nineteen steps where one does not, down by one where it does.
    likely_ns: u64,
}

impl Series {
    fn observe(&mut self, ns: u64) {
        let (low, high) = (self.mean_ns / 3 * 2, self.mean_ns.saturating_mul(3) / 2);
        self.strays = if (low..=high).contains(&ns) { 0 } else { self.strays + 1 };
        if self.strays > STRAYS {
            // That is no disturbance any more, so what was seen before says nothing.
            (self.runs, self.strays) = (0, 0);
        }
        self.runs = self.runs.saturating_add(1);
        self.mean_ns = match u64::from(self.runs).min(MEMORY) {
            1 => ns,
            // The first runs are often slow, and what looks dear is not run again.
            weight if weight <= u64::from(TRIALS) => self.mean_ns.min(ns),
            weight => self.mean_ns - self.mean_ns / weight + ns.clamp(low, high) / weight,
        };
        let step = self.mean_ns >> 8;
        self.likely_ns = match self.runs {
            1 => ns,
            // As the mean: whoever is refused for a slow first run never sees that it was one.
            runs if runs <= TRIALS => self.likely_ns.min(ns),
            _ if ns > self.likely_ns => (self.likely_ns + 19 * step).min(ns),
            // What is far from all that was seen lately is forgotten sooner.
            _ => {
                let far = self.likely_ns.saturating_sub(2 * self.mean_ns) >> 5;
                self.likely_ns.saturating_sub(step.max(far)).max(ns)
            }
        };
        let sunk = self.high_ns - (self.high_ns.saturating_sub(self.mean_ns) >> 6);
        self.high_ns = sunk.max(ns);
    }

    /// What a run is expected to take. Little seen gets credit for it: if that was too much, the next runs will show
    /// it, and if it was too little, no run would.
    const fn expected_ns(&self) -> u64 {
        self.mean_ns - self.mean_ns / 16 / if self.runs == 0 { 1 } else { self.runs as u64 }
    }
}

/// The time between rows that come to a stage, or would if they took the way through it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gap {
    last: Option<MonoTime>,
    /// A moving average over some 128 rows.
    mean_ns: u64,
}

impl Gap {
    /// A row came.
    pub fn came(&mut self, now: MonoTime) {
        if let Some(last) = self.last.replace(now) {
            let gap = nanos(now.since(last)).min(1 << 40);
            self.mean_ns = self.mean_ns - self.mean_ns / 128 + gap / 128;
        }
    }

    /// How many rows of these are together where so many that come by `other` do, if any are.
    #[must_use]
    pub fn share(&self, other: &Self, rows: usize) -> usize {
        let (these, all) = (u128::from(self.mean_ns).max(1), u128::from(other.mean_ns));
        // Those that come one by one by chance: where one is, half of what is expected comes with it.
        let expected = rows as u128 * all;
        let together = expected.max(these + expected / 2);
        usize::try_from((together + these / 2) / these).unwrap_or(usize::MAX)
    }

    /// How many rows are together once one that comes now has waited for so long.
    #[must_use]
    pub fn rows_in(&self, wait: Duration) -> usize {
        let more = nanos(wait) / self.mean_ns.max(1_000);
        usize::try_from(more).unwrap_or(usize::MAX).saturating_add(1)
    }
}

/// Runs of a size after which its cost is believed.
const TRIALS: u32 = 3;

/// Runs that what was learned before counts for, at most.
const RECALLED: u32 = TRIALS + 1;

/// What was learned of one batch size, to be kept and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The rows of the batch.
    pub rows: usize,
    /// Runs that it was seen in.
    pub runs: u32,
    /// What a run takes on average, in nanoseconds.
    pub mean_ns: u64,
    /// What nineteen runs in twenty stay under.
    pub likely_ns: u64,
    /// What all but about one in a hundred stay under.
    pub high_ns: u64,
}

/// The cost model of one stage, or of one class of its rows.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    by_rows: BTreeMap<usize, Series>,
    runs: u32,
    /// What all sizes come to together; worked out when it is first asked for after a run.
    curves: OnceCell<Curves>,
}

/// A curve for each of what is told of a size.
#[derive(Clone, Debug, Default)]
struct Curves {
    expected: Curve,
    likely: Curve,
    high: Curve,
}

impl Costs {
    /// What was learned before, believed as a few runs are: fresh ones soon count more, and where they are far from it
    /// it is forgotten.
    #[must_use]
    pub fn recall(learned: &[Learned]) -> Self {
        let mut costs = Self::default();
        for &Learned { rows, runs, mean_ns, likely_ns, high_ns } in learned {
            let runs = runs.min(RECALLED);
            costs.by_rows.insert(rows, Series { runs, strays: 0, mean_ns, high_ns, likely_ns });
            costs.runs = costs.runs.saturating_add(runs);
        }
        costs
    }

    /// What was learned of the `most` batch sizes that were seen most often, the smallest first.
    #[must_use]
    pub fn learned(&self, most: usize) -> Vec<Learned> {
        let learned = |(&rows, series): (&usize, &Series)| {
            let Series { runs, mean_ns, high_ns, .. } = *series;
            // It sinks by steps of its own, and the mean may be above it for a while.
            Learned { rows, runs, mean_ns, likely_ns: series.likely_ns.max(mean_ns), high_ns }
        };
        let mut all: Vec<Learned> = self.by_rows.iter().map(learned).collect();
        all.sort_by_key(|learned| (u32::MAX - learned.runs, learned.rows));
        all.truncate(most);
        all.sort_unstable_by_key(|learned| learned.rows);
        all
    }

    /// Learns from one run.
    pub fn observe(&mut self, rows: usize, service: Duration) {
        let ns = nanos(service);
        self.curves.take();
        self.by_rows.entry(rows).or_default().observe(ns);
        self.runs = self.runs.saturating_add(1);
    }

    /// Whether there were so many runs that their cost is believed.
    #[must_use]
    pub const fn are_known(&self) -> bool {
        self.runs >= TRIALS
    }

    /// The expected time of a run; none before the first run of any size.
    #[must_use]
    pub fn expected(&self, rows: usize) -> Option<Duration> {
        self.curve(|curves| &curves.expected, rows)
    }

    /// A time that all but about one run in a hundred stay under.
    #[must_use]
    pub fn high(&self, rows: usize) -> Option<Duration> {
        self.curve(|curves| &curves.high, rows)
    }

    /// A time that nineteen runs in twenty stay under.
    #[must_use]
    pub fn likely(&self, rows: usize) -> Option<Duration> {
        self.curve(|curves| &curves.likely, rows)
    }

    /// A time that runs stay under as surely as rows are to be in time.
    #[must_use]
    pub fn sure(&self, rows: usize, quantile: Quantile) -> Option<Duration> {
        match quantile.judge() {
            Judge::Expected => self.expected(rows),
            Judge::Likely => self.likely(rows),
        }
    }

    /// The same, and for larger ones than were seen no more than for these: whoever refuses what would be slow never
    /// sees whether it is.
    #[must_use]
    pub fn sure_at_least(&self, rows: usize, quantile: Quantile) -> Option<Duration> {
        self.sure(rows.min(self.largest_believed()?), quantile)
    }

    /// The expected time of a run, where larger ones than were seen gain from their size what those of `like` do.
    #[must_use]
    pub fn expected_like(&self, rows: usize, like: &Self) -> Option<Duration> {
        let (seen, larger) = (self.largest_believed()?, like.largest_believed().unwrap_or(0));
        if rows <= seen || larger <= seen {
            return self.expected(rows);
        }
        let known = rows.min(larger);
        let (from, to) = (like.expected(seen)?.as_nanos(), like.expected(known)?.as_nanos());
        let ns = self.expected(seen)?.as_nanos() * to / from.max(1) * rows as u128 / known as u128;
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }

    /// The largest size that ran often enough, or at all where none did.
    fn largest_believed(&self) -> Option<usize> {
        let often = self.by_rows.iter().rev().find(|(_, series)| series.runs >= TRIALS);
        often.or_else(|| self.by_rows.last_key_value()).map(|(&rows, _)| rows)
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

    /// None of a stage that never ran: what was measured before it served shapes what its first runs teach, and refuses
    /// nobody.
    fn curve(&self, pick: impl Fn(&Curves) -> &Curve, rows: usize) -> Option<Duration> {
        if self.runs == 0 {
            return None;
        }
        let ns = pick(self.curves.get_or_init(|| self.fit())).at(rows)?;
        Some(Duration::from_nanos(ns))
    }

    fn fit(&self) -> Curves {
        let fit = |pick: fn(&Series) -> u64| {
            let seen = |(&rows, series): (&usize, &Series)| {
                let runs = u64::from(series.runs);
                let believed = series.runs >= TRIALS;
                Seen { rows, runs: runs.min(MEMORY), believed, ns: pick(series) }
            };
            Curve::fit(&self.by_rows.iter().map(seen).collect::<Vec<_>>())
        };
        Curves {
            expected: fit(Series::expected_ns),
            likely: fit(|series| series.likely_ns),
            high: fit(|series| series.high_ns),
        }
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
        (0..100).for_each(|_| costs.observe(1, us(100)));
        (0..100).for_each(|_| costs.observe(8, us(450)));
        let near = |rows, us: u128| {
            let found = costs.expected(rows).unwrap().as_micros();
            assert!(found.abs_diff(us) <= us / 50, "{rows} rows: {found} us, {us} expected");
        };
        near(1, 100);
        near(4, 250);
        near(8, 450);
        near(16, 900);
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
    fn batches_that_never_ran_gain_what_those_of_a_like_stage_do() {
        let us = Duration::from_micros;
        let (mut seen, mut like) = (Costs::default(), Costs::default());
        (0..100).for_each(|_| seen.observe(1, us(1_000)));
        (0..100).for_each(|_| like.observe(1, us(100)));
        assert_eq!(seen.expected_like(8, &like), seen.expected(8), "it knows no more");
        (0..100).for_each(|_| like.observe(8, us(400)));
        let guessed = seen.expected_like(8, &like).unwrap();
        assert!(guessed > us(3_800) && guessed < us(4_200), "{guessed:?}");
        assert_eq!(seen.expected_like(1, &like), seen.expected(1));
    }

    #[test]
    fn a_disturbed_run_hardly_moves_the_mean_and_a_change_does_at_once() {
        let us = Duration::from_micros;
        let mut costs = Costs::default();
        (0..100).for_each(|_| costs.observe(1, us(100)));
        costs.observe(1, us(5_000));
        assert!(costs.expected(1).unwrap() < us(102));
        assert_eq!(costs.high(1), Some(us(5_000)));
        (0..=STRAYS).for_each(|_| costs.observe(1, us(300)));
        assert!(costs.expected(1).unwrap() > us(280));
        assert!(costs.high(1).unwrap() > us(1_000), "it remembers");
    }

    #[test]
    fn what_was_learned_before_is_believed_until_runs_say_otherwise() {
        let us = Duration::from_micros;
        let mut costs = Costs::default();
        (0..1_000).for_each(|_| costs.observe(1, us(100)));
        (0..10).for_each(|_| costs.observe(8, us(400)));
        costs.observe(3, us(200));
        let learned = costs.learned(2);
        assert_eq!(learned.iter().map(|size| size.rows).collect::<Vec<_>>(), [1, 8]);
        let mut again = Costs::recall(&learned);
        assert!(again.are_known());
        let near =
            |found: Option<Duration>, us: u128| found.unwrap().as_micros().abs_diff(us) <= us / 20;
        assert!(near(again.expected(1), 100) && near(again.expected(8), 400));
        // The machine is another one now.
        (0..=STRAYS).for_each(|_| again.observe(1, us(300)));
        assert!(again.expected(1).unwrap() > us(270), "{:?}", again.expected(1));
        // Or a little slower.
        let mut slower = Costs::recall(&learned);
        (0..8).for_each(|_| slower.observe(1, us(130)));
        assert!(slower.expected(1).unwrap() > us(115), "{:?}", slower.expected(1));
    }

    #[test]
    fn what_was_measured_before_shapes_what_runs_teach_and_is_no_run() {
        let us = Duration::from_micros;
        let measured = |rows: usize, ns: u64| Learned {
            rows,
            runs: 0,
            mean_ns: ns,
            likely_ns: ns,
            high_ns: ns,
        };
        let mut costs = Costs::recall(&[measured(1, 100_000), measured(8, 200_000)]);
        assert_eq!((costs.expected(1), costs.likely(8)), (None, None));
        costs.observe(1, us(110));
        assert!(costs.expected(1).unwrap() > us(100), "its own run counts");
        assert!(costs.expected(8).unwrap() < us(210), "not eight times as much");
        // Real rows turn out to be larger than made-up ones were.
        (0..8).for_each(|_| costs.observe(1, us(900)));
        assert!(costs.expected(8).unwrap() >= costs.expected(1).unwrap());
    }

    #[test]
    fn first_runs_may_be_slow() {
        let us = Duration::from_micros;
        let mut costs = Costs::default();
        costs.observe(1, us(9_000));
        assert!(!costs.are_known());
        (1..TRIALS).for_each(|_| costs.observe(1, us(100)));
        assert!(costs.are_known());
        assert!(costs.expected(1).unwrap() <= us(100));
    }

    #[test]
    fn rows_that_come_together_follow_from_the_gaps_between_them() {
        let ms = |ms: u64| MonoTime::from_nanos(ms * 1_000_000);
        let (mut all, mut some) = (Gap::default(), Gap::default());
        for at in 0..2_000 {
            all.came(ms(at));
            if at % 4 == 0 {
                some.came(ms(at));
            }
        }
        assert_eq!(all.rows_in(Duration::ZERO), 1);
        assert_eq!(all.rows_in(Duration::from_micros(8_500)), 9);
        assert_eq!(some.share(&all, 32), 8, "a quarter of them");
        assert_eq!(some.share(&all, 4), 2, "one, and by chance another");
        assert_eq!(some.share(&all, 1), 1);
    }
}
