//! What is kept free of the time that rows have, so that no more of them are late than may be.
//!
//! Runs take longer now and then than nineteen in twenty do, waits are misjudged, other work gets in between: how much of
//! that there is shows only in the rows that are late. Each of them widens the margin, each in time narrows it, in such
//! a proportion that it rests where as many are late as may be.
//!
//! # Source
//! The stochastic approximation of a quantile (Robbins and Monro, 1951), with steps that stay so large that it follows.

use crate::sched::quantile::Quantile;
use crate::time::nanos;
use std::time::Duration;

/// A step, as a part of what a row alone takes.
const STEP: u64 = 16;
/// The part of the time that a row has beside its own run which the margin may take: past that, it would refuse those
/// that need not wait.
const SHARE: u64 = 2;

/// Time that rows must have to spare to be held to be in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margin {
    ns: u64,
}

impl Margin {
    /// A row ended that had so much time when it came, of which `own` is its run: whether it was late.
    pub fn saw(&mut self, late: bool, quantile: Quantile, (horizon, own): (Duration, Duration)) {
        let step = nanos(own) / STEP;
        let share = |parts: u32| u64::try_from(u128::from(step) * u128::from(parts) / 1_000_000);
        self.ns = if late {
            self.ns.saturating_add(share(quantile.parts()).unwrap_or(u64::MAX))
        } else {
            self.ns.saturating_sub(share(1_000_000 - quantile.parts()).unwrap_or(0).max(1))
        };
        self.ns = self.ns.min(nanos(horizon.saturating_sub(own)) / SHARE);
    }

    /// The margin now.
    #[must_use]
    pub const fn time(self) -> Duration {
        Duration::from_nanos(self.ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_rests_where_as_many_are_late_as_may_be() {
        let quantile: Quantile = "0.9".parse().unwrap();
        let mut margin = Margin::default();
        let mut late = 0;
        // Ends are spread evenly over 20 ms past what is judged; rows have so much more to spare as the margin is.
        for row in 0..20_000_u32 {
            let over = MS * (row * 7_919 % 20);
            let is_late = over > margin.time();
            margin.saw(is_late, quantile, (100 * MS, 4 * MS));
            late += u32::from(is_late && row >= 10_000);
        }
        assert!((800..1_200).contains(&late), "{late} of 10,000");
        assert!(margin.time() > 15 * MS && margin.time() < 20 * MS, "{margin:?}");
    }

    #[test]
    fn rows_that_need_not_wait_are_let_in_whatever_was_late() {
        let mut margin = Margin::default();
        (0..1_000).for_each(|_| margin.saw(true, Quantile::default(), (10 * MS, 6 * MS)));
        assert_eq!(margin.time(), 2 * MS);
        (0..100_000).for_each(|_| margin.saw(false, Quantile::default(), (10 * MS, 6 * MS)));
        assert_eq!(margin.time(), Duration::ZERO);
        margin.saw(true, Quantile::default(), (Duration::ZERO, 6 * MS));
        assert_eq!(margin.time(), Duration::ZERO);
    }
}
