//! Declared padding put to the test: padded and unpadded runs of the same rows must agree.

use super::own::Own;
use super::rehearsal::Rehearsal;
use super::trial::Probed;
use crate::engine::{BatchPlan, EngineError, Lane};
use crate::model::Rows;
use crate::model::padding::{Cut, Padding, cut_block};
use crate::model::probe::{self, Kind, Sample};
use crate::rows::{Block, Inputs, RowValue};
use std::sync::Arc;

/// The padding of a model whose files declare some, with what the trial found; none where they do not.
///
/// # Errors
/// A sentence: what is declared wrongly, or by how much an answer changes.
pub(super) async fn tried(
    own: &Own,
    probed: &Probed,
    rehearsal: &Rehearsal,
    lane: &dyn Lane,
) -> Result<Option<(Padding, String)>, String> {
    if own.setup.padding.is_empty() {
        return Ok(None);
    }
    let place = |why: String| format!("[[padding]] in the model's settings: {why}");
    let sample = match (&probed.rows, probed.sample) {
        (Rows::Independent { .. }, Some(sample)) => sample,
        (Rows::Whole { why }, _) => {
            return Err(place(format!(
                "requests run as they come, not as rows ({why}); remove it"
            )));
        }
        _ => return Err(place("no made-up row was accepted, so it could not be tried".into())),
    };
    let padding = Padding::new(&own.setup.padding, &probed.inputs, &probed.outputs);
    let padding = padding.map_err(place)?;
    let trial = Trial { padding: &padding, probed, sample, rehearsal, lane };
    let found = trial.run().await.map_err(place)?;
    Ok(Some((padding, found)))
}

struct Trial<'a> {
    padding: &'a Padding,
    probed: &'a Probed,
    sample: Sample,
    rehearsal: &'a Rehearsal,
    lane: &'a dyn Lane,
}

/// A made-up row, padded, with the answer that it has unpadded.
struct Tried {
    size: usize,
    answer: Block,
    padded: Arc<Inputs>,
    cuts: Vec<Cut>,
}

impl Trial<'_> {
    async fn run(&self) -> Result<String, String> {
        let mut tried: Vec<Tried> = Vec::new();
        let mut worst = 0.0_f64;
        for size in self.padding.trials() {
            let Some(one) = self.alone(size).await? else { continue };
            worst = worst.max(self.compare(&[&one]).await?);
            let shapes = |one: &Tried| -> Vec<Vec<usize>> {
                one.padded.tensors.iter().map(|tensor| tensor.shape.clone()).collect()
            };
            // What is padded to one size will share a batch.
            if let Some(mate) = tried.last().filter(|mate| shapes(mate) == shapes(&one)) {
                worst = worst.max(self.compare(&[mate, &one]).await?);
            }
            tried.push(one);
        }
        if tried.is_empty() {
            return Err("the model accepted no made-up row of the sizes to be padded".into());
        }
        let sizes: Vec<String> = tried.iter().map(|one| one.size.to_string()).collect();
        Ok(format!("tried with sizes {}; answers differ by {worst:.0e} at most", sizes.join(", ")))
    }

    /// A row of a size and its answer unpadded; none where the model does not accept it.
    async fn alone(&self, size: usize) -> Result<Option<Tried>, String> {
        let specs = self.padding.sized(&self.probed.inputs, size);
        // Every size has values of its own.
        let seed = self.probed.seed.wrapping_add(size as u64);
        let mut row = probe::row(&specs, self.sample, Kind::Normal(seed));
        self.padding.unmask(&mut row);
        let row = Arc::new(row);
        let answer = match self.batch(std::slice::from_ref(&row)).await {
            Ok(answer) => answer,
            Err(EngineError::Protocol(why)) => return Err(why),
            Err(_) => return Ok(None),
        };
        let padded = self.padding.pad(&row, &specs).map_err(|error| error.message)?;
        Ok(padded.map(|(inputs, cuts)| Tried { size, answer, padded: Arc::new(inputs), cuts }))
    }

    /// How far the rows of one padded batch are from their answers unpadded.
    async fn compare(&self, rows: &[&Tried]) -> Result<f64, String> {
        let inputs: Vec<Arc<Inputs>> = rows.iter().map(|one| one.padded.clone()).collect();
        let block = self.batch(&inputs).await;
        let block = Arc::new(block.map_err(|error| format!("a padded row fails: {error}"))?);
        let mut worst = 0.0_f64;
        for (index, one) in rows.iter().enumerate() {
            let row = RowValue { block: block.clone(), index }.detached();
            let answer = cut_block(&row.block, &one.cuts)?;
            let floors = probe::floors(std::slice::from_ref(&one.answer));
            let apart = probe::difference(&one.answer, &answer, &floors);
            let limit = probe::tolerance(&one.answer);
            if apart > limit {
                return Err(format!(
                    "it changes results: a row of size {} {}; look at the values, the mask and the \
                     outputs to be cut",
                    one.size,
                    changed(&one.answer, &answer, apart, limit)
                ));
            }
            worst = worst.max(apart);
        }
        Ok(worst)
    }

    async fn batch(&self, rows: &[Arc<Inputs>]) -> Result<Block, EngineError> {
        let axes = self.probed.outputs.iter().map(|output| output.axis).collect();
        let mut plan = BatchPlan { output_axes: axes, ..BatchPlan::default() };
        rows.iter().for_each(|row| plan.push(row.clone(), 0));
        self.rehearsal.run(self.lane, &Arc::new(plan)).await.map(|(block, _)| block)
    }
}

fn changed(answer: &Block, padded: &Block, apart: f64, limit: f64) -> String {
    let shapes = answer.tensors.iter().zip(&padded.tensors).enumerate();
    let mut unequal = shapes.filter(|(_, (one, other))| one.shape != other.shape);
    match unequal.next() {
        Some((number, (one, other))) => format!(
            "gets output {number} with shape {:?} when it is padded and {:?} when it is not",
            other.shape, one.shape
        ),
        None => format!("differs by {apart:.1e} of its size; {limit:.0e} is allowed"),
    }
}
