//! The grid of decisions: the learned choice against both fixed ones at every point.

use super::device::{Outcome, run};
use super::trace::{Point, Shape, trace};
use graftd::sched::reuse::Policy;

/// Every point of these axes; loads are shares of what the better fixed choice bears, more than 1 is too much for any.
pub(crate) fn points(shares: &[f64], reuse: &[f64], loads: &[f64], heads: &[u32]) -> Vec<Point> {
    let mut points = Vec::new();
    for &share in shares {
        for &reuse in reuse {
            for &load in loads {
                points.extend(heads.iter().map(|&heads| Point { share, reuse, load, heads }));
            }
        }
    }
    points
}

/// One point, served three ways.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub point: Point,
    pub auto: Outcome,
    pub always: Outcome,
    pub never: Outcome,
}

/// Requests a second that the better fixed choice bears, measured with more than it can.
fn capacity(point: &Point, shape: &Shape, requests: usize, seed: u64) -> f64 {
    let asks = trace(point, 1.2 * point.limit(shape), requests, seed);
    let by = |policy| run(point, shape, &asks, policy).rate;
    by(Policy::Always).max(by(Policy::Never))
}

/// Serves the same requests under the learned choice and under both fixed ones.
pub(crate) fn compare(point: Point, shape: &Shape, requests: usize, seed: u64) -> Compared {
    let rate = point.load * capacity(&point, shape, requests, seed);
    let asks = trace(&point, rate, requests, seed);
    let by = |policy| run(&point, shape, &asks, policy);
    Compared { point, auto: by(Policy::Auto), always: by(Policy::Always), never: by(Policy::Never) }
}

impl Compared {
    /// What a choice costs: the mean time to an answer; near saturation, where that says little, the inverse of the
    /// answers a second that came in time; and of all answers a second where more is asked than any can bear.
    fn objective(&self, outcome: &Outcome) -> f64 {
        match self.point.load {
            load if load > 1.0 => 1.0 / outcome.rate,
            load if load > 0.9 => 1.0 / outcome.good,
            _ => outcome.mean,
        }
    }

    /// What the learned choice costs over what the better fixed one does: 1 is as good, less is better.
    pub(crate) fn to_best(&self) -> f64 {
        let fixed = self.objective(&self.always).min(self.objective(&self.never));
        self.objective(&self.auto) / fixed
    }

    /// What the worse fixed choice costs over what the learned one does.
    pub(crate) fn to_worst(&self) -> f64 {
        let fixed = self.objective(&self.always).max(self.objective(&self.never));
        fixed / self.objective(&self.auto)
    }

    /// The mean time to an answer over that of the better fixed choice, whatever the load.
    pub(crate) fn mean_to_best(&self) -> f64 {
        self.auto.mean / self.always.mean.min(self.never.mean)
    }
}
