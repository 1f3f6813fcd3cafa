//! Finding out by trying whether a model's rows are independent, and what made-up rows it accepts.

use super::rehearsal::Rehearsal;
use crate::engine::{BatchPlan, EngineError, Lane};
use crate::graph::Model;
use crate::graph::rules::{BatchVerdict, batch_axes};
use crate::model::config::Fitted;
use crate::model::probe::{self, Kind, Sample};
use crate::model::{Face, Rows, TensorSpec};
use crate::rows::{Block, BlockTensor, Inputs, RowValue};
use crate::tensor::DataType;
use std::sync::Arc;

/// Tries at a made-up row that the model accepts.
const ROW_TRIES: usize = 16;

/// What probing found.
pub(super) struct Probed {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub rows: Rows,
    pub sample: Option<Sample>,
    /// The seed of a made-up row that the model accepts.
    pub seed: u64,
    pub difference: f64,
}

/// A batch of so many made-up rows, each a request of its own.
pub(super) fn sample_plan(probed: &Probed, sample: Sample, rows: usize) -> Arc<BatchPlan> {
    let independent = matches!(probed.rows, Rows::Independent { .. });
    let axes = probed.outputs.iter().map(|output| output.axis.filter(|_| independent)).collect();
    let mut plan = BatchPlan { output_axes: axes, whole: !independent, ..BatchPlan::default() };
    for _ in 0..rows {
        // Requests of their own, as they come in life.
        let row = probe::row(&probed.inputs, sample, Kind::Normal(probed.seed));
        plan.push(Arc::new(row), 0);
    }
    Arc::new(plan)
}

pub(super) fn unprobed(fitted: &Fitted) -> Probed {
    let plain = |faces: &[Face]| faces.iter().map(|face| TensorSpec::of(face, None)).collect();
    Probed {
        inputs: plain(&fitted.inputs),
        outputs: plain(&fitted.outputs),
        rows: Rows::Whole { why: "not tried".into() },
        sample: None,
        seed: 1,
        difference: 0.0,
    }
}

/// Why rows of strings cannot be told apart, where their batch axis is none that they can be cut along.
pub(super) fn strings_behind(model: &Model, axes: &[Option<usize>]) -> Option<String> {
    let behind = |(port, axis): (&crate::graph::Port, &Option<usize>)| {
        port.datatype == DataType::Bytes && axis.is_some_and(|axis| axis != 0)
    };
    let any = model.inputs().iter().zip(axes).any(behind);
    any.then(|| "strings have their batch axis behind another".to_owned())
}

/// Finds out whether rows are independent: by the graph where it is clear, and by running rows alone and
/// beside mates of very different magnitude in any case.
pub(super) async fn probe_model(
    model: &Model,
    fitted: &Fitted,
    rehearsal: &Rehearsal,
    lane: &dyn Lane,
) -> Probed {
    let whole = |why: String| Probed { rows: Rows::Whole { why }, ..unprobed(fitted) };
    let (axes, declared, how) = match batch_axes(model) {
        BatchVerdict::Independent { inputs, outputs } => {
            (inputs, Some(outputs), "every operator keeps them apart".to_owned())
        }
        BatchVerdict::Undecided { inputs, why } => (inputs, None, format!("tried out, as {why}")),
        BatchVerdict::Mixes { why } | BatchVerdict::None { why } => {
            return with_sample(whole(why), rehearsal, lane).await;
        }
    };
    if let Some(why) = strings_behind(model, &axes) {
        return with_sample(whole(why), rehearsal, lane).await;
    }
    let inputs: Vec<TensorSpec> =
        fitted.inputs.iter().zip(&axes).map(|(face, &axis)| TensorSpec::of(face, axis)).collect();
    let trial = Trial { inputs: &inputs, rehearsal, lane };
    match trial.run(declared).await {
        Ok(Tried { outputs, sample, seed, difference }) => {
            let outputs = fitted.outputs.iter().zip(outputs);
            Probed {
                outputs: outputs.map(|(face, axis)| TensorSpec::of(face, axis)).collect(),
                rows: Rows::Independent { how },
                sample: Some(sample),
                seed,
                difference,
                inputs,
            }
        }
        Err(why) => with_sample(whole(why), rehearsal, lane).await,
    }
}

/// Finds a sample that a model without rows accepts, so that it can be warmed.
async fn with_sample(mut probed: Probed, rehearsal: &Rehearsal, lane: &dyn Lane) -> Probed {
    let trial = Trial { inputs: &probed.inputs, rehearsal, lane };
    probed.sample = trial.sample().await.ok().map(|(sample, _)| sample);
    probed
}

struct Tried {
    outputs: Vec<Option<usize>>,
    sample: Sample,
    seed: u64,
    difference: f64,
}

/// Rows tried on a model that may keep them apart.
struct Trial<'a> {
    inputs: &'a [TensorSpec],
    rehearsal: &'a Rehearsal,
    lane: &'a dyn Lane,
}

impl Trial<'_> {
    /// A sample that the model accepts, with its answer.
    async fn sample(&self) -> Result<(Sample, Block), String> {
        let mut last = "it has no inputs to make up".to_owned();
        for sample in probe::samples(self.inputs) {
            match self.batch(&[probe::row(self.inputs, sample, Kind::Normal(1))]).await {
                Ok(block) => return Ok((sample, block)),
                Err(EngineError::Protocol(why)) => return Err(why),
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("no made-up row was accepted: {last}"))
    }

    /// Runs rows as one batch; outputs are not cut, as their axes are not known yet.
    async fn batch(&self, rows: &[Inputs]) -> Result<Block, EngineError> {
        // One output axis list of the right length is only known after the first run, so none is given.
        let mut plan = BatchPlan { whole: true, ..BatchPlan::default() };
        rows.iter().for_each(|row| plan.push(Arc::new(row.clone()), 0));
        self.rehearsal.run(self.lane, &Arc::new(plan)).await.map(|(block, _)| block)
    }

    /// The first made-up row of a form that the model accepts: some values are errors by themselves.
    async fn accepted(
        &self,
        row: &impl Fn(Kind) -> Inputs,
        form: fn(u64) -> Kind,
        first: u64,
    ) -> Result<(Kind, Block), EngineError> {
        let mut seed = first;
        loop {
            let result = self.batch(&[row(form(seed))]).await;
            seed += 1;
            match result {
                Ok(block) => return Ok((form(seed - 1), block)),
                Err(error @ EngineError::Protocol(_)) => return Err(error),
                Err(error) if seed == first + ROW_TRIES as u64 => return Err(error),
                Err(_) => {}
            }
        }
    }

    async fn run(&self, declared: Option<Vec<Option<usize>>>) -> Result<Tried, String> {
        let (sample, _) = self.sample().await?;
        let row = |kind| probe::row(self.inputs, sample, kind);
        let text = |error: EngineError| format!("made-up rows failed together: {error}");
        let forms: [fn(u64) -> Kind; 4] = [
            Kind::Normal,
            |seed| Kind::Scaled(seed, 1e3),
            |seed| Kind::Scaled(seed, 1e-3),
            Kind::Normal,
        ];
        let (mut kinds, mut solo) = (Vec::new(), Vec::new());
        for (form, first) in forms.into_iter().zip((1..).step_by(ROW_TRIES)) {
            let (kind, block) = self.accepted(&row, form, first).await.map_err(text)?;
            kinds.push(kind);
            solo.push(block);
        }
        let two = self.batch(&[row(kinds[0]), row(kinds[1])]).await.map_err(text)?;
        let three = self.batch(&kinds[..3].iter().map(|&k| row(k)).collect::<Vec<_>>()).await;
        let three = three.map_err(text)?;
        let found = probe::output_axes(&solo[0], &two, &three)?;
        if declared.is_some_and(|declared| declared != found) {
            return Err("its outputs' shapes are not what its graph says".into());
        }
        let orders: [&[usize]; 6] =
            [&[0, 1], &[1, 0], &[0, 1, 2], &[2, 0, 1], &[3, 2, 1, 0], &[1, 1, 0]];
        let floors = probe::floors(&solo);
        let near = |block: &Block, place, own| apart_at(block, place, own, &found, &floors);
        let mut worst = 0.0_f64;
        for order in orders {
            let rows: Vec<Inputs> = order.iter().map(|&k| row(kinds[k])).collect();
            let block = self.batch(&rows).await.map_err(text)?;
            for (place, &kind) in order.iter().enumerate() {
                worst = worst.max(near(&block, place, &solo[kind])?);
            }
        }
        for mate in [1e6, f32::INFINITY, f32::NAN] {
            let rows = [row(kinds[0]), row(Kind::Constant(mate)), row(kinds[3])];
            // A mate that makes the whole batch fail shows as an error, and is run apart.
            let Ok(block) = self.batch(&rows).await else { continue };
            worst = worst.max(near(&block, 0, &solo[0])?);
            worst = worst.max(near(&block, 2, &solo[3])?);
        }
        let limit = probe::tolerance(&solo[0]);
        if worst > limit {
            return Err(format!(
                "rows influence each other: a row's answer moved by {worst:.1e} of its size beside other rows"
            ));
        }
        let seed = match kinds[0] {
            Kind::Normal(seed) | Kind::Scaled(seed, _) => seed,
            Kind::Constant(_) => 1,
        };
        Ok(Tried { outputs: found, sample, seed, difference: worst })
    }
}

/// How far a row of a batch is from its own answer alone.
fn apart_at(
    block: &Block,
    place: usize,
    own: &Block,
    axes: &[Option<usize>],
    floors: &[f64],
) -> Result<f64, String> {
    let sizes = block.tensors.iter().zip(axes);
    let rows = sizes.filter_map(|(tensor, &axis)| tensor.shape.get(axis?).copied()).next();
    let rows = rows.unwrap_or(1);
    let cut = block.tensors.iter().zip(axes).map(|(tensor, &axis)| {
        let (shape, data) = (tensor.shape.clone(), tensor.data.clone());
        BlockTensor::new(tensor.datatype, shape, axis, data, rows)
    });
    let cut = Arc::new(Block { tensors: cut.collect::<Result<_, _>>()?, rows });
    let row = RowValue { block: cut, index: place }.detached();
    Ok(probe::difference(own, &row.block, floors))
}
