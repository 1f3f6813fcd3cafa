//! How the runs of a stage are best spread over the cores: few with many threads each, or many with few.
//!
//! What pays differs from model to model and is not to be read off a graph: a large matrix product gains from threads,
//! a chain of small operators only waits for them. So it is measured. Here is what is tried, and what is made of the
//! figures; who runs them is the loader.
//!
//! # Source
//! Erlang (1917) for the share of those who wait where all of several servers may be busy, and the usual correction of
//! its tail for runs that take all the same time: waits then end twice as fast (Cosmetatos, 1975).

use crate::sched::quantile::Quantile;
use crate::time::nanos;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// By how much throughput must be better for a change, in hundredths.
const WORTH: u64 = 105;
/// Within how much of the best throughput spreads count as equally good, in hundredths: of these the quickest is best.
const EQUAL: u64 = 97;
/// By how much a row alone must be quicker for a change where throughput is equally good, in hundredths.
const QUICKER: u64 = 90;

/// Threads of one run, and runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spread {
    /// Threads of one run, the caller's included.
    pub threads: usize,
    /// Runs at a time.
    pub sessions: usize,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "" } else { "s" };
        let Self { threads, sessions } = *self;
        write!(f, "{sessions} session{} of {threads} thread{}", plural(sessions), plural(threads))
    }
}

impl Spread {
    /// Those that fill the cores: twice the threads each time, and as many sessions as then fit.
    #[must_use]
    pub fn filling(cores: usize) -> Vec<Self> {
        let cores = cores.max(1);
        let doubled = std::iter::successors(Some(1_usize), |threads| threads.checked_mul(2));
        let threads = doubled.take_while(|&threads| threads < cores).chain([cores]);
        threads.map(|threads| Self { threads, sessions: cores / threads }).collect()
    }

    /// The same, and beside each that with half the sessions: caches and memory may be what is short. Never more threads
    /// than cores: runs that would share one wait for it.
    #[must_use]
    pub fn around(cores: usize) -> Vec<Self> {
        let near = |Self { threads, sessions }: Self| {
            [sessions, sessions / 2].map(|sessions| Self { threads, sessions })
        };
        let mut all: Vec<Self> = Self::filling(cores).into_iter().flat_map(near).collect();
        all.retain(|spread| spread.sessions > 0);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What answers are to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Within what time they are to be there.
    pub target: Duration,
    /// Which share of them.
    pub quantile: Quantile,
}

/// What batches of one size came to while every session was busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The rows of a batch.
    pub rows: usize,
    /// Rows in a thousand seconds, over all sessions.
    pub rate: u64,
    /// What half of the runs took at most, in nanoseconds.
    pub run_ns: u64,
    /// What nineteen in twenty took at most.
    pub high_ns: u64,
}

/// What was measured of a spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The spread.
    pub spread: Spread,
    /// What a row takes that is alone on the machine, in nanoseconds.
    pub alone_ns: u64,
    /// Batches by their size, ascending; at least one.
    pub sizes: Vec<Size>,
}

impl Measured {
    /// The smallest size that answers as good as most rows towards a goal, or at all without one.
    #[must_use]
    pub fn best(&self, goal: Option<Goal>) -> Option<&Size> {
        let top = self.answers(goal);
        if top == 0 {
            // Where none is in time the quickest is the least late.
            return self.sizes.iter().min_by_key(|size| size.high_ns);
        }
        self.sizes.iter().find(|size| at_least(self.within(size, goal), top, EQUAL))
    }

    /// Rows in a thousand seconds that the best size answers towards a goal.
    #[must_use]
    pub fn answers(&self, goal: Option<Goal>) -> u64 {
        self.sizes.iter().map(|size| self.within(size, goal)).max().unwrap_or(0)
    }

    /// Rows in a thousand seconds of which as large a share as the goal says are answered in time, in batches of this
    /// size that come as chance will have it.
    #[must_use]
    pub fn within(&self, size: &Size, goal: Option<Goal>) -> u64 {
        let Some(goal) = goal else { return size.rate };
        let Some(bearable) = nanos(goal.target).checked_sub(size.high_ns) else { return 0 };
        let sessions = self.spread.sessions.max(1);
        // Runs that would end meanwhile if no session were ever idle.
        let runs = size.rate as f64 / size.rows.max(1) as f64 * bearable as f64 / 1e12;
        let allowed = goal.quantile.late();
        let late =
            |load: f64| wait_share(sessions, load) * (-2.0 * (1.0 - load) * runs).exp() > allowed;
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..20 {
            let load = f64::midpoint(low, high);
            if late(load) { high = load } else { low = load }
        }
        (size.rate as f64 * low) as u64
    }

    /// The same figures as they would have been in another's company: scaled by what `reference`, measured beside it,
    /// came to there.
    #[must_use]
    pub fn rebased(&self, reference: &Self, elsewhere: &Self) -> Self {
        let scaled = |value: u64, from: u64, to: u64| {
            // What changed by more is no neighbour but a figure that came to nothing.
            let to = to.clamp(from / 2, from.saturating_mul(2));
            let scaled = u128::from(value) * u128::from(to) / u128::from(from.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let size = |size: &Size| {
            let of = |measured: &Self| {
                measured
                    .sizes
                    .iter()
                    .find(|other| other.rows == size.rows)
                    .copied()
                    .unwrap_or(*size)
            };
            let (from, to) = (of(reference), of(elsewhere));
            Size {
                rows: size.rows,
                rate: scaled(size.rate, from.rate, to.rate),
                run_ns: scaled(size.run_ns, from.run_ns, to.run_ns),
                high_ns: scaled(size.high_ns, from.run_ns, to.run_ns),
            }
        };
        Self {
            spread: self.spread,
            alone_ns: scaled(self.alone_ns, reference.alone_ns, elsewhere.alone_ns),
            sizes: self.sizes.iter().map(size).collect(),
        }
    }
}

/// Which of these is best, the first being what holds now: it stays unless another is better by more than noise.
///
/// Most rows answered towards the goal; among those that are as good, the one in which a row alone is quickest.
#[must_use]
pub fn choose(all: &[Measured], goal: Option<Goal>) -> usize {
    let scores: Vec<u64> = all.iter().map(|measured| measured.answers(goal)).collect();
    let top = scores.iter().copied().max().unwrap_or(0);
    let equal = (0..all.len()).filter(|&place| at_least(scores[place], top, EQUAL));
    let Some(place) = equal.min_by_key(|&place| all[place].alone_ns) else { return 0 };
    let more = top > 0 && at_least(scores[place], scores[0], WORTH);
    let quicker = at_least(scores[place], scores[0], EQUAL)
        && is_quicker(all[place].alone_ns, all[0].alone_ns);
    if more || quicker { place } else { 0 }
}

/// The share of those who come that have to wait, where `servers` are busy for this part of the time.
fn wait_share(servers: usize, load: f64) -> f64 {
    let offered = servers as f64 * load;
    let blocked = (1..=servers)
        .fold(1.0, |blocked: f64, server| offered * blocked / (server as f64 + offered * blocked));
    blocked / (1.0 - load * (1.0 - blocked))
}

fn at_least(value: u64, other: u64, hundredths: u64) -> bool {
    u128::from(value) * 100 >= u128::from(other) * u128::from(hundredths)
}

fn is_quicker(value: u64, other: u64) -> bool {
    u128::from(value) * 100 <= u128::from(other) * u128::from(QUICKER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spread(threads: usize, sessions: usize) -> Spread {
        Spread { threads, sessions }
    }

    fn within(target: Duration) -> Goal {
        Goal { target, quantile: Quantile::default() }
    }

    /// A spread that takes so many microseconds for a row alone, and for batches of 1, 2, ... when busy.
    fn measured(threads: usize, sessions: usize, alone_us: u64, runs_us: &[u64]) -> Measured {
        let size = |(place, &us): (usize, &u64)| {
            let rows = 1 << place;
            let rate = (rows * sessions) as u64 * 1_000_000_000 / us;
            Size { rows, rate, run_ns: us * 1_000, high_ns: us * 1_100 }
        };
        let sizes = runs_us.iter().enumerate().map(size).collect();
        Measured { spread: spread(threads, sessions), alone_ns: alone_us * 1_000, sizes }
    }

    #[test]
    fn cores_are_filled() {
        assert_eq!(Spread::filling(1), [spread(1, 1)]);
        assert_eq!(Spread::filling(2), [spread(1, 2), spread(2, 1)]);
        assert_eq!(Spread::filling(6), [spread(1, 6), spread(2, 3), spread(4, 1), spread(6, 1)]);
        let around = [spread(1, 1), spread(1, 2), spread(2, 1)];
        assert_eq!(Spread::around(2), around);
        assert_eq!(spread(2, 1).to_string(), "1 session of 2 threads");
    }

    #[test]
    fn throughput_comes_first_then_a_row_alone() {
        let ms = Duration::from_millis;
        let now = || measured(1, 2, 10_000, &[10_000]);
        let table = [
            // Two threads lose a fifth of the throughput: not for half the time alone.
            (measured(2, 1, 6_000, &[6_000]), None, 0),
            // They lose nothing, and a row alone is quicker.
            (measured(2, 1, 5_100, &[5_100]), None, 1),
            // More throughput, whatever a row alone takes.
            (measured(1, 4, 11_000, &[18_000]), None, 1),
            // A gain that noise could be.
            (measured(1, 4, 10_000, &[19_500]), None, 0),
            // Within 12 ms one row in a hundred hardly ever waits for two sessions, but often does for one.
            (measured(2, 1, 6_000, &[6_000]), Some(ms(15)), 0),
            // Only two threads are in time at all.
            (measured(2, 1, 6_000, &[6_000]), Some(ms(10)), 1),
            // Neither is in time; two threads are less late.
            (measured(2, 1, 6_000, &[6_000]), Some(ms(5)), 1),
            (measured(2, 1, 9_500, &[9_500]), Some(ms(5)), 0),
        ];
        for (then, target, expected) in table {
            let goal = target.map(within);
            let shown = format!("{then:?} {target:?}");
            assert_eq!(choose(&[now(), then], goal), expected, "{shown}");
        }
        assert_eq!(choose(&[], None), 0);
    }

    #[test]
    fn a_target_bounds_the_batch() {
        let batches = measured(1, 2, 1_000, &[1_000, 1_200, 1_600, 2_400]);
        let ms = Duration::from_millis;
        assert_eq!(batches.best(None).unwrap().rows, 8);
        assert_eq!(batches.best(Some(within(ms(4)))).unwrap().rows, 4);
        assert_eq!(batches.best(Some(within(Duration::from_micros(1_150)))).unwrap().rows, 1);
        assert_eq!(batches.best(Some(within(Duration::from_micros(100)))).unwrap().rows, 1);
    }

    #[test]
    fn figures_are_compared_by_what_was_measured_beside_them() {
        let reference = measured(1, 2, 1_000, &[1_000]);
        // A neighbour took half of the machine while these were measured.
        let slowed = measured(1, 2, 2_000, &[2_000]);
        let candidate = measured(2, 1, 1_000, &[1_000]);
        let rebased = candidate.rebased(&slowed, &reference);
        assert_eq!((rebased.alone_ns, rebased.sizes[0].run_ns), (500_000, 500_000));
        assert_eq!(rebased.sizes[0].rate, 2 * candidate.sizes[0].rate);
        let nothing = measured(1, 2, 1_000, &[30_000]);
        let rebased = candidate.rebased(&nothing, &reference);
        assert!(rebased.sizes[0].rate <= 2 * candidate.sizes[0].rate, "no figure at all");
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_there_and_no_worse_than_what_holds_now(
            figures in prop::collection::vec((1u64..1 << 40, 1u64..1 << 40, 1u64..1 << 40), 1..8),
            target in prop::option::of(1u64..1 << 41),
        ) {
            let all: Vec<Measured> = figures
                .iter()
                .map(|&(rate, run_ns, alone_ns)| {
                    let size = Size { rows: 1, rate, run_ns, high_ns: run_ns };
                    Measured { spread: spread(1, 1), alone_ns, sizes: vec![size] }
                })
                .collect();
            let goal = target.map(Duration::from_nanos).map(within);
            let chosen = choose(&all, goal);
            prop_assert!(chosen < all.len());
            let (now, then) = (&all[0], &all[chosen]);
            prop_assert!(at_least(then.answers(goal), now.answers(goal), EQUAL));
            prop_assert!(now.within(&now.sizes[0], goal) <= now.sizes[0].rate);
        }
    }
}
