//! What a batch of a base or a head is gathered from: the inputs of requests and the outputs of the stage below.

use super::lineage::Made;
use crate::metrics::ModelMetrics;
use crate::model::stage::StageName;
use crate::rows::{Block, BlockTensor, InputTensor, Inputs, RowValue, Storage};
use std::sync::Arc;

/// Where an input of a leg comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An input of the request: by its number in the model for a head, among what the base reads for a base, as
    /// the models of a family may order theirs differently.
    Request(usize),
    /// The output of the leg below with this number.
    Below(usize),
}

/// A base or a head, as batches of it are put together.
#[derive(Clone, Debug)]
pub struct Leg {
    /// What it is called.
    pub called: Arc<StageName>,
    /// Where each of its inputs comes from.
    pub inputs: Vec<Source>,
    /// The batch axis of every output.
    pub output_axes: Arc<[Option<usize>]>,
    /// Where its batches are counted; none for a head, whose batches count for its model.
    pub counts: Option<Arc<ModelMetrics>>,
    /// How its outputs are kept and handed on; the same whether they are kept or not, so that no answer depends on it.
    pub storage: Storage,
}

/// One row of the output of the stage below.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The outputs of its batch.
    pub below: Arc<Inputs>,
    /// Which row of them.
    pub row: usize,
    /// How it came to be.
    pub made: Option<Arc<Made>>,
}

impl Part {
    /// # Cost
    /// Copies no tensor.
    pub(super) fn new(value: &RowValue, made: Option<Made>) -> Self {
        Self { below: as_inputs(&value.block), row: value.index, made: made.map(Arc::new) }
    }
}

/// A batch's outputs as inputs of the stage above; they are the same tensors.
pub(super) fn as_inputs(block: &Block) -> Arc<Inputs> {
    let tensor = |tensor: &BlockTensor| {
        let BlockTensor { datatype, shape, axis, data, row_ends, storage } = tensor.clone();
        InputTensor { datatype, shape, axis, data, row_ends, storage }
    };
    Arc::new(Inputs { tensors: block.tensors.iter().map(tensor).collect(), rows: block.rows })
}

impl Leg {
    /// Whether it takes nothing but inputs of requests: those that it reads, in order.
    fn takes_requests_alone(&self) -> bool {
        let in_order = |(number, source): (usize, &Source)| *source == Source::Request(number);
        self.inputs.iter().enumerate().all(in_order)
    }

    /// Whether its inputs are the outputs below, one by one.
    fn takes_all_below(&self, outputs: usize) -> bool {
        self.inputs.len() == outputs
            && self.inputs.iter().enumerate().all(|(n, source)| *source == Source::Below(n))
    }

    /// The inputs that hold a row, and its number there; none where its base output is missing.
    ///
    /// `reads` are the inputs that a base reads, and none for a head.
    pub(super) fn row(
        &self,
        (request, row): (&Arc<Inputs>, usize),
        reads: Option<&[usize]>,
        part: Option<&Part>,
        projected: &mut Option<Arc<Inputs>>,
    ) -> Option<(Arc<Inputs>, usize)> {
        let of_request = |number: usize| {
            request.tensors.get(reads.map_or(Some(number), |reads| reads.get(number).copied())?)
        };
        if self.takes_requests_alone() {
            // Made once a request, so that its rows stay neighbours.
            let project = || {
                let tensors = (0..self.inputs.len()).filter_map(|n| of_request(n).cloned());
                Arc::new(Inputs { tensors: tensors.collect(), rows: request.rows })
            };
            let inputs = projected.get_or_insert_with(project);
            return Some((inputs.clone(), row));
        }
        let Part { below, row: place, .. } = part?;
        if self.takes_all_below(below.tensors.len()) {
            return Some((below.clone(), *place));
        }
        let tensor = |source: &Source| match *source {
            Source::Request(number) => of_request(number)?.row(row),
            Source::Below(number) => below.tensors.get(number)?.row(*place),
        };
        let tensors = self.inputs.iter().map(tensor).collect::<Option<_>>()?;
        Some((Arc::new(Inputs { tensors, rows: 1 }), 0))
    }
}
