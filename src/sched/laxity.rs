//! How large a batch its first rows can bear: rows that have to be there in time are not made late by those behind them.
//!
//! A row's laxity is the time that is left to it. Feasibility is judged by what nineteen runs in twenty stay under (unless the
//! target is for far fewer of the answers), throughput by what is expected of a run: with averages for both, every
//! other batch would be late under load.

use crate::sched::cost::Costs;
use crate::sched::quantile::Quantile;
use std::time::Duration;

/// What a class offers to be cut: rows in the order of their queue.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Rows that a batch would take if none of them were in a hurry.
    pub wanted: usize,
    /// Rows that wait.
    pub queued: usize,
    /// Sessions that share them.
    pub sessions: usize,
    /// The time that the first row had when it came; within it, all that wait now should be done.
    pub horizon: Duration,
    /// How surely they are to be in time.
    pub quantile: Quantile,
    /// What they must have to spare.
    pub margin: Duration,
}

/// Which rows to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// So many of the first are given up: with them no batch keeps pace with what comes.
    pub skip: usize,
    /// So many behind them run.
    pub rows: usize,
}

/// Chooses the largest batch that the first row can bear while that keeps pace with the queue; past that, gives up the
/// rows whose batch would hold back the most.
///
/// `lefts` are the times left to the rows, the first in the queue first; none of a row that may take as long as it does.
///
/// # Source
/// The largest batch of the earliest deadline, and Nexus' sliding window where that does not keep pace; the choice between
/// them is measured by the goodput benchmark.
///
/// # Cost
/// A few lookups for a batch that fits; so many times four batches' rows where it does not and the queue is long.
#[must_use]
pub fn cut(costs: &Costs, crowd: Crowd, lefts: impl Iterator<Item = Option<Duration>>) -> Cut {
    let all = Cut { skip: 0, rows: crowd.wanted };
    let mut lefts = lefts.enumerate().take(crowd.wanted.saturating_mul(4).max(1));
    let Some((_, Some(left))) = lefts.next() else { return all };
    let first = bears(costs, crowd, left, crowd.wanted);
    if first >= crowd.wanted || keeps_pace(costs, first, crowd) {
        return Cut { skip: 0, rows: first };
    }
    let mut best = Cut { skip: 0, rows: first };
    for (skip, left) in lefts {
        let most = crowd.wanted.min(crowd.queued - skip.min(crowd.queued));
        let rows = left.map_or(most, |left| bears(costs, crowd, left, most));
        if rows > 0 && faster(costs, rows, best.rows) {
            best = Cut { skip, rows };
        }
        if rows >= most {
            break;
        }
    }
    best
}

/// The largest batch that is likely done within a time; at least one row, since one that cannot be is not asked about.
fn bears(costs: &Costs, crowd: Crowd, left: Duration, most: usize) -> usize {
    let left = left.saturating_sub(crowd.margin);
    let surely = |rows: usize| costs.sure(rows, crowd.quantile);
    let fits = |rows: usize| surely(rows).is_none_or(|surely| surely <= left);
    if fits(most) {
        return most;
    }
    // Larger batches take longer, but for noise that does not matter here.
    let (mut fitting, mut too_many) = (1, most);
    while fitting + 1 < too_many {
        let middle = usize::midpoint(fitting, too_many);
        if fits(middle) { fitting = middle } else { too_many = middle }
    }
    fitting.min(most)
}

/// Whether batches of this size get all that waits done within the horizon.
fn keeps_pace(costs: &Costs, rows: usize, crowd: Crowd) -> bool {
    let Some(run) = costs.expected(rows) else { return true };
    let done = rows as u128 * crowd.horizon.as_nanos() * crowd.sessions.max(1) as u128;
    done >= crowd.queued as u128 * run.as_nanos()
}

/// Whether batches of one size get more rows done in a time than those of another, by a twentieth at least.
fn faster(costs: &Costs, rows: usize, than: usize) -> bool {
    let (Some(run), Some(other)) = (costs.expected(rows), costs.expected(than)) else {
        return false;
    };
    rows as u128 * other.as_nanos() * 100 >= than as u128 * run.as_nanos() * 105
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A run of `b` rows takes `fixed + b * each` milliseconds.
    fn costs(fixed: u32, each: u32) -> Costs {
        let mut costs = Costs::default();
        for rows in [1, 2, 4, 8, 16] {
            (0..50).for_each(|_| costs.observe(rows, MS * (fixed + each * rows as u32)));
        }
        costs
    }

    fn crowd(queued: usize) -> Crowd {
        let quantile = Quantile::default();
        Crowd {
            wanted: queued.min(16),
            queued,
            sessions: 1,
            horizon: 100 * MS,
            quantile,
            margin: Duration::ZERO,
        }
    }

    fn with(left: &[u32], crowd: Crowd) -> Cut {
        cut(&costs(10, 1), crowd, left.iter().map(|&ms| (ms > 0).then_some(MS * ms)))
    }

    #[test]
    fn the_first_row_bears_as_much_as_it_has_time_for() {
        assert_eq!(with(&[100; 8], crowd(8)), Cut { skip: 0, rows: 8 });
        assert_eq!(with(&[15; 4], crowd(4)), Cut { skip: 0, rows: 4 });
        assert_eq!(with(&[13; 8], crowd(8)), Cut { skip: 0, rows: 3 });
        assert_eq!(with(&[0; 8], crowd(8)), Cut { skip: 0, rows: 8 }, "none is in a hurry");
        assert_eq!(with(&[3; 2], crowd(2)), Cut { skip: 0, rows: 1 }, "whoever asks knows better");
    }

    #[test]
    fn rows_that_hold_back_the_queue_are_given_up() {
        let mut left = vec![13; 2];
        left.extend([60; 62]);
        let long = crowd(64);
        assert_eq!(with(&left, long), Cut { skip: 2, rows: 16 });
        // A short queue is worked off in small batches, too.
        let short = Crowd { horizon: 1_000 * MS, ..long };
        assert_eq!(with(&left, short), Cut { skip: 0, rows: 3 });
    }

    #[test]
    fn where_batches_gain_nothing_nobody_is_given_up() {
        let mut left = vec![12; 2];
        left.extend([60; 62]);
        let lefts = left.iter().map(|&ms| Some(MS * ms));
        assert_eq!(cut(&costs(0, 10), crowd(64), lefts), Cut { skip: 0, rows: 1 });
    }

    #[test]
    fn nothing_learned_holds_nothing_back() {
        let lefts = [Some(MS); 8];
        assert_eq!(cut(&Costs::default(), crowd(8), lefts.into_iter()).rows, 8);
    }
}
