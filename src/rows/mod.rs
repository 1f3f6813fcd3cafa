//! Tensors addressed by row: what a request brings, what a batch yields, and how rows are put together.
//!
//! A row is one element along the batch axis. Where that is the first axis a row is one contiguous piece;
//! on a later axis it is several. A tensor without a batch axis belongs to every row alike.

mod block;
mod half;
mod inputs;

use serde::Deserialize;
use std::str::FromStr;

pub use block::{Block, BlockTensor, RowValue, assemble};
pub use inputs::{InputTensor, Inputs};

/// How the elements of a tensor lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// As its datatype says.
    #[default]
    Exact,
    /// As FP16, though the tensor is FP32: half the bytes, eleven bits of every number.
    #[serde(rename = "float16")]
    Half,
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exact" => Ok(Self::Exact),
            "float16" => Ok(Self::Half),
            other => Err(format!("is '{other}'; expected exact or float16")),
        }
    }
}

impl Storage {
    /// Bytes of an element in memory for each byte that its datatype takes.
    pub(crate) const fn shrinks(self, bytes: usize) -> usize {
        match self {
            Self::Exact => bytes,
            Self::Half => bytes / 2,
        }
    }

    /// Copies elements from memory to where they are to be as their datatype says.
    pub(crate) fn copy(self, from: &[u8], to: &mut [u8]) {
        match self {
            Self::Exact => to.copy_from_slice(from),
            Self::Half => half::unpack(from, to),
        }
    }

    /// Bytes that so many in memory stand for.
    pub(crate) const fn grows(self, bytes: usize) -> usize {
        match self {
            Self::Exact => bytes,
            Self::Half => bytes * 2,
        }
    }
}

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
