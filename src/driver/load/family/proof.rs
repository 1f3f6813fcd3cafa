//! A way through bases tried against the whole model, over the very machinery that will serve it.

use super::Material;
use crate::digest;
use crate::driver::{Call, Driver, Reply};
use crate::id::{StageId, Tenant};
use crate::model::ModelSpec;
use crate::model::check::path;
use crate::model::probe::{self, Kind, Sample};
use crate::model::way::Way;
use crate::rows::Inputs;
use crate::sched::event::{Event, Outcome, Priority, Sharing};
use crate::sched::reuse::{Policy, Route};
use std::sync::Arc;
use std::time::Duration;

/// How long a trial may take before the model is served whole.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time after which no more shapes are tried: the machine serves meanwhile.
const ENOUGH: Duration = Duration::from_secs(5);

/// What becomes of base outputs between base and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Nothing.
    None,
    /// They are rounded to FP16.
    Half,
}

impl Rounding {
    /// What it may move an answer by, in parts of the answer's size.
    const fn tolerance(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Half => 1e-2,
        }
    }

    /// The rows to try it on: exaggerated ones say nothing of what rounding does to ordinary ones.
    const fn kinds(self, all: &[Kind]) -> &[Kind] {
        match self {
            Self::None => all,
            Self::Half => all.split_at(ORDINARY).0,
        }
    }
}

/// Runs a way and the whole model on made-up rows; the largest difference, in parts of the answer's size.
///
/// # Errors
/// A sentence: what differs by more than rounding, or what fails.
pub(super) async fn prove(
    driver: &Arc<Driver>,
    spec: &Arc<ModelSpec>,
    way: &Way,
    material: &Material,
    rounding: Rounding,
) -> Result<f64, String> {
    let bases = way.bases.iter().map(|base| base.stage);
    let stages: Vec<StageId> = bases.chain([way.head, spec.stage]).collect();
    stages.iter().for_each(|&stage| driver.event(Event::TrialBegun { stage }));
    let proved = compare(driver, spec, way, material, rounding).await;
    stages.iter().for_each(|&stage| driver.event(Event::TrialOver { stage }));
    proved
}

async fn compare(
    driver: &Arc<Driver>,
    spec: &Arc<ModelSpec>,
    way: &Way,
    material: &Material,
    rounding: Rounding,
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
        for &kind in rounding.kinds(&kinds(material.seed)) {
            for rows in [1, 2, 3, largest] {
                let row = |row| probe::row(&spec.inputs, sample, kind.of_row(row));
                let made: Vec<Inputs> = (0..rows).map(row).collect();
                let Ok(whole) = run(driver, spec, &made, None).await else {
                    // What the whole model refuses proves nothing.
                    continue;
                };
                let split = run(driver, spec, &made, Some(&way)).await;
                let split =
                    split.map_err(|why| format!("its base and head fail together: {why}"))?;
                worst = worst.max(apart(&whole, &split, rounding)?);
                if rows > 1 && kind == kinds(material.seed)[0] {
                    let mut turned = made;
                    turned.reverse();
                    let mut split = run(driver, spec, &turned, Some(&way)).await?;
                    split.rows.reverse();
                    let apart = apart(&whole, &split, rounding);
                    worst = worst.max(apart.map_err(|why| format!("in another order {why}"))?);
                }
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

/// Kinds of rows that are not exaggerated.
const ORDINARY: usize = 4;

/// What rows are made of: ordinary numbers first, then none and one, negative, tiny and large ones.
fn kinds(seed: u64) -> [Kind; 7] {
    [
        Kind::Normal(seed),
        Kind::Constant(0.0),
        Kind::Constant(1.0),
        Kind::Constant(-1.0),
        Kind::Scaled(seed + 200, 1e3),
        Kind::Scaled(seed + 300, 1e-6),
        Kind::Scaled(seed + 400, 1e6),
    ]
}

impl Kind {
    /// The same for one row of several, each another.
    fn of_row(self, row: usize) -> Self {
        match self {
            Self::Normal(seed) => Self::Normal(seed + row as u64),
            Self::Scaled(seed, factor) => Self::Scaled(seed + row as u64, factor),
            Self::Constant(value) => Self::Constant(value * (1.0 + row as f32)),
        }
    }
}

/// Runs one request, whole or along a way.
async fn run(
    driver: &Arc<Driver>,
    spec: &Arc<ModelSpec>,
    made: &[Inputs],
    way: Option<&Arc<Way>>,
) -> Result<Reply, String> {
    let inputs = Arc::new(Inputs::stack(made));
    let (keys, class) = digest::keys(&spec.digest, Tenant(0), &inputs);
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
            target: None,
            way: way.cloned(),
            path: way.map(|way| path(way, Tenant(0), &inputs)),
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
fn apart(whole: &Reply, split: &Reply, rounding: Rounding) -> Result<f64, String> {
    let solo: Vec<_> = whole.rows.iter().map(|row| row.detached().block).collect();
    let solo: Vec<_> = solo.iter().map(|block| (**block).clone()).collect();
    let floors = probe::floors(&solo);
    let mut worst = 0.0_f64;
    for (whole, split) in solo.iter().zip(&split.rows) {
        let difference = probe::difference(whole, &split.detached().block, &floors);
        let limit = probe::tolerance(whole).max(rounding.tolerance());
        if difference.is_nan() || difference > limit {
            return Err(format!(
                "base and head give another answer than the whole: {difference:.1e} of its size, {limit:.1e} may be"
            ));
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}
