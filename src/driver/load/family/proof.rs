//! A way through bases tried against the whole model, over the very machinery that will serve it.

use super::Material;
use crate::digest;
use crate::driver::{Call, Driver, Reply};
use crate::id::Tenant;
use crate::model::ModelSpec;
use crate::model::check::path;
use crate::model::probe::{self, Kind, Sample};
use crate::model::way::Way;
use crate::rows::Inputs;
use crate::sched::event::{Outcome, Priority, Sharing};
use crate::sched::reuse::{Policy, Route};
use std::sync::Arc;
use std::time::Duration;

/// How long a trial may take before the model is served whole.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time after which no more shapes are tried: the machine serves meanwhile.
const ENOUGH: Duration = Duration::from_secs(5);

/// Runs a way and the whole model on made-up rows; the largest difference, in parts of the answer's size.
///
/// # Errors
/// A sentence: what differs by more than rounding, or what fails.
pub(super) async fn prove(
    driver: &Arc<Driver>,
    spec: &Arc<ModelSpec>,
    way: &Way,
    material: &Material,
) -> Result<f64, String> {
    let way = Arc::new(Way { policy: Policy::Always, ..way.clone() });
    let largest = material.config.batch_rows_max.max(3);
    let mut worst = 0.0_f64;
    let mut tried = 0;
    let begun = driver.clock().now();
    for sample in samples(spec, material.sample) {
        if tried > 0 && driver.clock().now().since(begun) > ENOUGH {
            break;
        }
        for kind in kinds(material.seed) {
            for rows in [1, 2, 3, largest] {
                let inputs = Arc::new(batch(spec, sample, kind, rows));
                let Ok(whole) = run(driver, spec, &inputs, None).await else {
                    // What the whole model refuses proves nothing.
                    continue;
                };
                let split = run(driver, spec, &inputs, Some(&way)).await;
                let split =
                    split.map_err(|why| format!("its base and head fail together: {why}"))?;
                worst = worst.max(apart(&whole, &split)?);
                tried += 1;
            }
        }
    }
    if tried == 0 {
        return Err("no made-up row was accepted, so that its base could not be tried".into());
    }
    Ok(worst)
}

/// The sizes of what varies: as it was found to be accepted, and around it.
fn samples(spec: &ModelSpec, sample: Sample) -> Vec<Sample> {
    let varies = spec.inputs.iter().any(|input| {
        let dims = input.dims.iter().flatten().enumerate();
        dims.into_iter().any(|(axis, dim)| {
            !matches!(dim, crate::graph::Dim::Fixed(_)) && Some(axis) != input.axis
        })
    });
    let mut all = vec![sample];
    if varies {
        let fills = [sample.fill / 2, sample.fill * 2, 1];
        all.extend(
            fills.into_iter().filter(|&fill| fill > 0).map(|fill| Sample { fill, ..sample }),
        );
    }
    all
}

fn kinds(seed: u64) -> [Kind; 5] {
    [
        Kind::Normal(seed),
        Kind::Normal(seed + 100),
        Kind::Scaled(seed + 200, 1e3),
        Kind::Constant(0.0),
        Kind::Constant(1.0),
    ]
}

/// A request of so many rows, each another.
fn batch(spec: &ModelSpec, sample: Sample, kind: Kind, rows: usize) -> Inputs {
    let kind = |row: usize| match kind {
        Kind::Normal(seed) => Kind::Normal(seed + row as u64),
        Kind::Scaled(seed, factor) => Kind::Scaled(seed + row as u64, factor),
        Kind::Constant(value) => Kind::Constant(value * (1.0 + row as f32)),
    };
    let all: Vec<Inputs> =
        (0..rows).map(|row| probe::row(&spec.inputs, sample, kind(row))).collect();
    Inputs::stack(&all)
}

/// Runs one request, whole or along a way.
async fn run(
    driver: &Arc<Driver>,
    spec: &Arc<ModelSpec>,
    inputs: &Arc<Inputs>,
    way: Option<&Arc<Way>>,
) -> Result<Reply, String> {
    let (keys, class) = digest::keys(&spec.digest, Tenant(0), inputs);
    let rows = keys.len();
    let reply = driver
        .call(Call {
            // Its runs are nobody's requests.
            spec: Arc::new(ModelSpec { counts: Arc::default(), ..ModelSpec::clone(spec) }),
            inputs: inputs.clone(),
            keys,
            class,
            whole: false,
            sharing: Sharing::NONE,
            priority: Priority::new(9),
            timeout: Some(PATIENCE),
            way: way.cloned(),
            path: way.map(|way| path(way, Tenant(0), inputs)),
        })
        .await;
    match &reply.outcome {
        Outcome::Complete(tally) => {
            let expected = if way.is_some() { Route::Recompute } else { Route::Whole };
            let taken = (0..rows).all(|row| tally.route(&reply.routes, row) == expected);
            if taken { Ok(reply) } else { Err(format!("its rows went another way: {tally:?}")) }
        }
        Outcome::Failed(failure) => Err(failure.message.to_string()),
        other => Err(format!("{other:?}")),
    }
}

/// How far two answers are apart, in parts of their size.
fn apart(whole: &Reply, split: &Reply) -> Result<f64, String> {
    let solo: Vec<_> = whole.rows.iter().map(|row| row.detached().block).collect();
    let solo: Vec<_> = solo.iter().map(|block| (**block).clone()).collect();
    let floors = probe::floors(&solo);
    let mut worst = 0.0_f64;
    for (whole, split) in solo.iter().zip(&split.rows) {
        let difference = probe::difference(whole, &split.detached().block, &floors);
        let limit = probe::tolerance(whole);
        if difference.is_nan() || difference > limit {
            return Err(format!(
                "base and head give another answer than the whole: {difference:.1e} of its size, {limit:.1e} may be"
            ));
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}
