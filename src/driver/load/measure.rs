//! Timing batches on a session that does not serve yet.

use super::Loader;
use super::own::Own;
use super::rehearsal::Rehearsal;
use super::trial::{Probed, sample_plan};
use crate::engine::{BatchPlan, Lane};
use crate::model::Rows;
use std::sync::Arc;
use std::time::Duration;

/// Time spent at most on measuring one batch size.
const MEASURE: Duration = Duration::from_millis(40);

impl Loader {
    /// Times batches of growing size until larger ones stop helping.
    pub(super) async fn measure(
        &self,
        own: &Own,
        probed: &Probed,
        rehearsal: &Rehearsal,
        lane: &dyn Lane,
    ) -> Vec<(usize, u64)> {
        let Some(sample) = probed.sample else { return Vec::new() };
        let limit = if matches!(probed.rows, Rows::Independent { .. }) { 64 } else { 1 };
        let set = own.settings.batch_rows_max.or(self.config.batch_rows_max);
        let declared = own.setup.request_rows_max();
        let limit = set.unwrap_or(limit).min(limit).min(declared.unwrap_or(limit));
        let mut times: Vec<(usize, u64)> = Vec::new();
        let mut rows = 1;
        while rows <= limit {
            let plan = sample_plan(probed, sample, rows);
            let Some(ns) = best_time(rehearsal, lane, &plan).await else { break };
            times.push((rows, ns));
            let rate = |&(rows, ns): &(usize, u64)| rows as f64 / ns.max(1) as f64;
            let best = times.iter().map(rate).fold(0.0, f64::max);
            let first = times.iter().position(|time| rate(time) >= 0.97 * best).unwrap_or(0);
            if times.len() - first > 2 {
                break;
            }
            rows *= 2;
        }
        times
    }
}

/// The shortest of a few runs, which is what the batch costs when nobody disturbs it.
async fn best_time(rehearsal: &Rehearsal, lane: &dyn Lane, plan: &Arc<BatchPlan>) -> Option<u64> {
    let clock = crate::clock::Clock::start();
    let mut best = None;
    for round in 0..50 {
        let start = clock.now();
        rehearsal.run(lane, plan).await.ok()?;
        let took = crate::time::nanos(clock.now().since(start));
        best = Some(best.map_or(took, |best: u64| best.min(took)));
        if round >= 2 && clock.now().since(crate::time::MonoTime::ZERO) > MEASURE {
            break;
        }
    }
    best
}
