//! Rows of differing size made equal, so that they share batches.
//!
//! Only where the model's files declare it, and only where a trial at load showed that nothing changes. A
//! row's key is of the row as it came; what is padded is what runs, and its outputs are cut back to the size
//! of the request when the answer is put together.

mod declared;

pub use declared::{Axis, Declared, DeclaredInput};

use crate::error::InferError;
use crate::model::TensorSpec;
use crate::rows::{Block, BlockTensor, InputTensor, Inputs};
use crate::tensor::{DataType, OutputTensor, Shape, Tensor};
use bytes::Bytes;

/// Bytes of padded inputs past which a request of less than half of that runs as it came: what a client sends
/// must not cost a multiple of it in memory.
const PADDED_BYTES_MAX: usize = 64 << 20;

/// The axes of a model that are padded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Padding {
    groups: Vec<Group>,
}

/// One size that varies, wherever it stands.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    inputs: Vec<PaddedInput>,
    /// Which of these inputs says what is real; a request may leave it out.
    mask: Option<PaddedInput>,
    sizes: Sizes,
    /// Outputs with the axis that is as long as the input's.
    outputs: Vec<(usize, usize)>,
}

/// An input and how it is made longer.
#[derive(Clone, Debug, PartialEq)]
struct PaddedInput {
    input: usize,
    axis: usize,
    /// One element of padding, in the wire layout.
    element: Vec<u8>,
}

/// The sizes that rows are padded to.
#[derive(Clone, Debug, PartialEq)]
enum Sizes {
    /// The next of these, ascending; past the last one, none.
    To(Vec<usize>),
    /// The next multiple.
    Multiple(usize),
}

/// An output whose axis is cut back to the request's own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The output's number.
    pub output: usize,
    /// The axis.
    pub axis: usize,
    /// The size it is padded to.
    pub padded: usize,
    /// The request's own size.
    pub size: usize,
}

impl Sizes {
    /// The size to pad to; none where the size is past all.
    fn target(&self, size: usize) -> Option<usize> {
        match self {
            Self::To(sizes) => sizes.iter().copied().find(|&to| to >= size),
            Self::Multiple(of) => size.max(1).checked_next_multiple_of(*of),
        }
    }

    /// Sizes worth trying: the least and the most padding before every size, up to a few.
    fn trials(&self) -> Vec<usize> {
        const TRIED_MAX: usize = 4;
        match self {
            Self::To(sizes) => {
                let before = std::iter::once(0).chain(sizes.iter().copied());
                let ends = before.zip(sizes).flat_map(|(before, &to)| [before + 1, to - 1]);
                ends.filter(|size| self.target(*size).is_some_and(|to| to > *size))
                    .take(2 * TRIED_MAX)
                    .collect()
            }
            Self::Multiple(of) => {
                let sizes = [1, of - 1, of + 1, 2 * of - 1, 3 * of + 1, 4 * of - 1];
                sizes.into_iter().filter(|size| size % of != 0).collect()
            }
        }
    }
}

impl Padding {
    /// Sizes at which a trial tells whether padding changes anything.
    #[must_use]
    pub fn trials(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> =
            self.groups.iter().flat_map(|group| group.sizes.trials()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The inputs with every padded axis of one size, for made-up rows.
    #[must_use]
    pub fn sized(&self, inputs: &[TensorSpec], size: usize) -> Vec<TensorSpec> {
        let mut sized = inputs.to_vec();
        for one in self.groups.iter().flat_map(|group| &group.inputs) {
            let dims = sized.get_mut(one.input).and_then(|spec| spec.dims.as_mut());
            if let Some(dim) = dims.and_then(|dims| dims.get_mut(one.axis)) {
                *dim = crate::graph::Dim::Fixed(size);
            }
        }
        sized
    }

    /// Says of a whole request that all of it is real.
    pub fn unmask(&self, inputs: &mut Inputs) {
        for mask in self.groups.iter().filter_map(|group| group.mask.as_ref()) {
            if let Some(tensor) = inputs.tensors.get_mut(mask.input) {
                let count = tensor.shape.iter().product();
                tensor.data = ones(tensor.datatype, count).into();
            }
        }
    }

    /// The mask that a request leaves out: all of it is real. None where the input is no mask, or the request
    /// lacks what says how long it is.
    #[must_use]
    pub fn mask(&self, input: usize, specs: &[TensorSpec], given: &[Tensor]) -> Option<Tensor> {
        let group =
            self.groups.iter().find(|g| g.mask.as_ref().is_some_and(|m| m.input == input))?;
        let (mask, spec) = (group.mask.as_ref()?, specs.get(input)?);
        let others = group.inputs.iter().filter(|one| one.input != input);
        let (other, tensor) = others
            .filter_map(|one| {
                let name = &specs.get(one.input)?.name;
                Some((one, given.iter().find(|tensor| tensor.name == *name)?))
            })
            .next()?;
        let rows = specs.get(other.input)?.axis;
        let size = |(axis, dim): (usize, &crate::graph::Dim)| match dim {
            _ if axis == mask.axis => tensor.shape.0.get(other.axis).copied(),
            _ if Some(axis) == spec.axis => tensor.shape.0.get(rows?).copied(),
            crate::graph::Dim::Fixed(size) => Some(*size),
            crate::graph::Dim::Named(_) | crate::graph::Dim::Unknown => None,
        };
        let shape = spec.dims.as_ref()?.iter().enumerate().map(size).collect::<Option<Vec<_>>>()?;
        let shape = Shape(shape);
        // Sizes that nothing backs with bytes are no reason to make many of our own.
        let count = shape.elements().filter(|count| *count <= tensor.data.len())?;
        let data = ones(spec.datatype, count).into();
        Some(Tensor { name: spec.name.clone(), datatype: spec.datatype, shape, data })
    }

    /// Pads a request; none where nothing is to be padded.
    ///
    /// # Errors
    /// `BadRequest`, when inputs that must be equally long are not.
    ///
    /// # Cost
    /// Copies the inputs that are padded.
    pub fn pad(
        &self,
        inputs: &Inputs,
        specs: &[TensorSpec],
    ) -> Result<Option<(Inputs, Vec<Cut>)>, InferError> {
        let mut targets = Vec::new();
        let mut cuts = Vec::new();
        for group in &self.groups {
            let size = group.size(inputs, specs)?;
            let Some(target) = group.sizes.target(size).filter(|&target| target > size) else {
                continue;
            };
            targets.extend(group.inputs.iter().map(|one| (one, target)));
            let cut = |&(output, axis): &(usize, usize)| Cut { output, axis, padded: target, size };
            cuts.extend(group.outputs.iter().map(cut));
        }
        if targets.is_empty() || !affordable(inputs, &targets) {
            return Ok(None);
        }
        let mut padded = inputs.clone();
        for (one, target) in targets {
            if let Some(tensor) = padded.tensors.get_mut(one.input) {
                one.lengthen(tensor, target);
            }
        }
        Ok(Some((padded, cuts)))
    }
}

/// Whether what is padded stays within bounds, or within twice of what came.
fn affordable(inputs: &Inputs, targets: &[(&PaddedInput, usize)]) -> bool {
    let came: usize = inputs.tensors.iter().map(|tensor| tensor.data.len()).sum();
    let bytes = |(number, tensor): (usize, &InputTensor)| {
        let mut shape = tensor.shape.clone();
        for (one, target) in targets.iter().filter(|(one, _)| one.input == number) {
            if let Some(dim) = shape.get_mut(one.axis) {
                *dim = *target;
            }
        }
        Shape(shape).elements()?.checked_mul(tensor.datatype.element_bytes().unwrap_or(1))
    };
    let sum = inputs
        .tensors
        .iter()
        .enumerate()
        .try_fold(0_usize, |sum, tensor| sum.checked_add(bytes(tensor)?));
    sum.is_some_and(|sum| sum <= PADDED_BYTES_MAX || sum / 2 <= came)
}

impl Group {
    /// How long the padded axis is in this request.
    fn size(&self, inputs: &Inputs, specs: &[TensorSpec]) -> Result<usize, InferError> {
        let size = |one: &PaddedInput| inputs.tensors.get(one.input)?.shape.get(one.axis).copied();
        let Some((first, length)) = self.inputs.first().and_then(|one| Some((one, size(one)?)))
        else {
            return Ok(0);
        };
        let name = |one: &PaddedInput| specs.get(one.input).map_or("?", |spec| spec.name.as_str());
        match self.inputs.iter().find(|one| size(one) != Some(length)) {
            None => Ok(length),
            Some(other) => Err(InferError::bad_request(format!(
                "input '{}' has size {length} along axis {} and input '{}' has {} along axis {}; \
                 expected the same of both",
                name(first),
                first.axis,
                name(other),
                size(other).unwrap_or(0),
                other.axis
            ))),
        }
    }
}

impl PaddedInput {
    fn lengthen(&self, tensor: &mut InputTensor, target: usize) {
        let Some(size) = tensor.shape.get(self.axis).copied() else { return };
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        let inner = product(&tensor.shape[self.axis + 1..]);
        let step = size * inner * self.element.len();
        let more = self.element.repeat(target.saturating_sub(size) * inner);
        let outer = product(&tensor.shape[..self.axis]);
        let mut data = Vec::with_capacity(outer * (step + more.len()));
        for o in 0..outer {
            data.extend_from_slice(tensor.data.get(o * step..(o + 1) * step).unwrap_or_default());
            data.extend_from_slice(&more);
        }
        tensor.data = data.into();
        tensor.shape[self.axis] = target;
    }
}

/// So many ones.
fn ones(datatype: DataType, count: usize) -> Vec<u8> {
    declared::element(datatype, 1.0).unwrap_or_default().repeat(count)
}

/// Cuts an axis back; none where the tensor is not as long as padded.
fn cut(datatype: DataType, shape: &[usize], data: &[u8], cut: &Cut) -> Option<(Vec<usize>, Bytes)> {
    let element = datatype.element_bytes()?;
    let (before, after) = shape.split_at_checked(cut.axis)?;
    let (&found, after) = after.split_first()?;
    if found != cut.padded {
        return None;
    }
    let inner = after.iter().product::<usize>() * element;
    let outer = before.iter().product::<usize>();
    let mut kept = Vec::with_capacity(outer * cut.size * inner);
    for o in 0..outer {
        let start = o * found * inner;
        kept.extend_from_slice(data.get(start..start + cut.size * inner)?);
    }
    let mut shape = shape.to_vec();
    shape[cut.axis] = cut.size;
    Some((shape, kept.into()))
}

/// Cuts an output back to the size of its request.
///
/// # Errors
/// A sentence, when the model did not keep the size that its input had.
///
/// # Cost
/// Copies what is kept.
pub fn cut_output(
    output: OutputTensor,
    cuts: &[Cut],
    index: usize,
) -> Result<OutputTensor, String> {
    let mut output = output;
    for one in cuts.iter().filter(|one| one.output == index) {
        let (shape, data) = cut(output.datatype, &output.shape.0, &output.contiguous(), one)
            .ok_or_else(|| {
                format!(
                    "output '{}' has shape {} and not {} along axis {}, to which its input was padded",
                    output.name, output.shape, one.padded, one.axis
                )
            })?;
        output = OutputTensor { shape: Shape(shape), pieces: vec![data], ..output };
    }
    Ok(output)
}

/// Cuts the outputs of a single row back.
///
/// # Errors
/// A sentence, when an output is not as long as its input was padded.
pub fn cut_block(block: &Block, cuts: &[Cut]) -> Result<Block, String> {
    let tensor = |(index, tensor): (usize, &BlockTensor)| {
        let mut cropped = tensor.clone();
        for one in cuts.iter().filter(|one| one.output == index) {
            let (shape, data) = cut(cropped.datatype, &cropped.shape, &cropped.data, one)
                .ok_or_else(|| {
                    format!(
                        "output {index} has shape {:?} and not {} along axis {}",
                        cropped.shape, one.padded, one.axis
                    )
                })?;
            cropped = BlockTensor { shape, data, ..cropped };
        }
        Ok(cropped)
    };
    let tensors = block.tensors.iter().enumerate().map(tensor).collect::<Result<_, String>>()?;
    Ok(Block { tensors, rows: block.rows })
}

#[cfg(test)]
mod tests;
