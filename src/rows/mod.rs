//! Tensors addressed by row: what a request brings, what a batch yields, and how rows are put together.
//!
//! A row is one element along the batch axis. Where that is the first axis a row is one contiguous piece;
//! on a later axis it is several. A tensor without a batch axis belongs to every row alike.

mod block;
mod inputs;

pub use block::{Block, BlockTensor, RowValue, assemble};
pub use inputs::{InputTensor, Inputs};

/// How a tensor's bytes are laid out around its batch axis: `[outer, rows, inner]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Product of the axes before the batch axis.
    pub outer: usize,
    /// Size of the batch axis.
    pub rows: usize,
    /// Bytes of one row in one outer step.
    pub inner: usize,
}

impl Layout {
    /// The layout of a tensor of fixed-size elements; none where `axis` is not an axis of it.
    ///
    /// A row without elements is in no place: its other axes may claim more than can be counted.
    pub(crate) fn of(shape: &[usize], axis: usize, element_bytes: usize) -> Option<Self> {
        let (before, after) = shape.split_at_checked(axis)?;
        let (&rows, after) = after.split_first()?;
        if before.contains(&0) || after.contains(&0) {
            return Some(Self { outer: 0, rows, inner: 0 });
        }
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        Some(Self { outer: product(before), rows, inner: product(after) * element_bytes })
    }
}
