//! Runs before a model serves: at the sizes that will be used, and those that its own files ask for.

use super::own::Own;
use super::rehearsal::Rehearsal;
use super::trial::{Probed, sample_plan};
use crate::engine::{BatchPlan, Lane};
use crate::id::Tenant;
use crate::model::ModelSpec;
use crate::model::check::{self, Checked};
use crate::model::config::Warmup;
use std::sync::Arc;

/// Runs at the sizes that will be used.
pub(super) fn plans(
    probed: &Probed,
    spec: &ModelSpec,
    times: &[(usize, u64)],
    batch_rows_max: usize,
) -> Vec<Arc<BatchPlan>> {
    let Some(sample) = probed.sample else { return Vec::new() };
    let largest = if spec.cuts_rows() { batch_rows_max } else { 1 };
    let mut sizes: Vec<usize> = times.iter().map(|&(rows, _)| rows).collect();
    sizes.push(largest);
    sizes.retain(|&rows| rows <= largest);
    sizes.sort_unstable();
    sizes.dedup();
    sizes.into_iter().map(|rows| sample_plan(probed, sample, rows)).collect()
}

/// A request that the model's files want run, checked as any other.
///
/// # Errors
/// A sentence with the request's name.
pub(super) fn checked(warmup: &Warmup, spec: &ModelSpec) -> Result<Checked, String> {
    let request = warmup.request(&spec.name).map_err(|why| place(warmup, &why))?;
    let checked = check::check(&request, spec, Tenant(0), usize::MAX);
    checked.map_err(|error| place(warmup, &error.message))
}

fn place(warmup: &Warmup, why: &str) -> String {
    format!("config.pbtxt: model_warmup '{}': {why}", warmup.name)
}

/// Runs the requests that the model's files want run, on every session.
///
/// # Errors
/// A sentence with the request's name, when one is refused or fails.
pub(super) async fn declared(
    own: &Own,
    spec: &ModelSpec,
    rehearsal: &Rehearsal,
    lanes: &[Arc<dyn Lane>],
) -> Result<(), String> {
    for warmup in &own.setup.warmup {
        let checked = checked(warmup, spec)?;
        let axes = if checked.whole { &spec.whole_axes } else { &spec.output_axes };
        let (output_axes, whole) = (axes.clone(), checked.whole);
        let mut plan = BatchPlan { output_axes, whole, ..BatchPlan::default() };
        plan.runs.push((checked.inputs.clone(), 0, checked.inputs.rows));
        let plan = Arc::new(plan);
        for lane in lanes {
            for _ in 0..warmup.count {
                let run = rehearsal.run(lane.as_ref(), &plan).await;
                run.map_err(|error| place(warmup, &error.to_string()))?;
            }
        }
    }
    Ok(())
}
