//! The outputs of one batch, and how answers are put together from rows of such blocks.

use super::{Layout, Storage, half};
use crate::tensor::{DataType, OutputTensor, Shape, bytes_element_ends};
use bytes::Bytes;
use std::sync::Arc;

/// One output of a batch.
#[derive(Clone, Debug)]
pub struct BlockTensor {
    /// The element type.
    pub datatype: DataType,
    /// The shape, all rows of the batch together.
    pub shape: Vec<usize>,
    /// The batch axis; none where the output is the same for every row.
    pub axis: Option<usize>,
    /// The elements in the wire layout.
    pub data: Bytes,
    /// For `BYTES` with a batch axis: the end of each row in `data`.
    pub row_ends: Vec<usize>,
    /// How the elements lie in `data`; exact in answers.
    pub storage: Storage,
}

/// The outputs of one batch, in the order of the model's outputs.
#[derive(Clone, Debug)]
pub struct Block {
    /// One tensor per output.
    pub tensors: Vec<BlockTensor>,
    /// The rows of the batch.
    pub rows: usize,
}

/// One row of a block: an answer that is shared, not copied.
#[derive(Clone, Debug)]
pub struct RowValue {
    /// The batch's outputs.
    pub block: Arc<Block>,
    /// Which row of it.
    pub index: usize,
}

impl BlockTensor {
    /// An output tensor of a batch of `rows` rows.
    ///
    /// # Errors
    /// A sentence, when the tensor is not one of so many rows: the model broke its own declaration.
    pub fn new(
        datatype: DataType,
        shape: Vec<usize>,
        axis: Option<usize>,
        data: Bytes,
        rows: usize,
    ) -> Result<Self, String> {
        let found = axis.map(|axis| shape.get(axis).copied());
        if found.is_some_and(|found| found != Some(rows)) {
            return Err(format!("shape {} for a batch of {rows} rows", Shape(shape)));
        }
        let mut row_ends = Vec::new();
        if datatype == DataType::Bytes {
            let ends = bytes_element_ends(&data)?;
            let shape = Shape(shape.clone());
            if shape.elements() != Some(ends.len()) {
                return Err(format!("{} strings for shape {shape}", ends.len()));
            }
            if axis.is_some() {
                let each = ends.len() / rows.max(1);
                let end = |row: usize| (row * each).checked_sub(1).map_or(0, |last| ends[last]);
                row_ends = (1..=rows).map(end).collect();
            }
        }
        Ok(Self { datatype, shape, axis, data, row_ends, storage: Storage::Exact })
    }

    /// The same tensor stored so, where it can be: FP16 stands for FP32 without numbers that are too large for it.
    ///
    /// # Cost
    /// Converts every element that is not stored so yet.
    #[must_use]
    pub fn stored(self, storage: Storage) -> Self {
        if (self.storage, storage, self.datatype) != (Storage::Exact, Storage::Half, DataType::Fp32)
        {
            return self;
        }
        match half::packed(&self.data) {
            Some(data) => Self { data, storage, ..self },
            None => self,
        }
    }

    /// Rows `first..first + count` as pieces in the order of the tensor.
    fn slice(&self, first: usize, count: usize) -> Vec<Bytes> {
        let Some(axis) = self.axis else { return vec![self.data.clone()] };
        let Some(element) = self.datatype.element_bytes() else {
            let end = |row: usize| row.checked_sub(1).map_or(0, |row| self.row_ends[row]);
            return vec![self.data.slice(end(first)..end(first + count))];
        };
        let element = self.storage.shrinks(element);
        let Some(Layout { outer, rows, inner }) = Layout::of(&self.shape, axis, element) else {
            return Vec::new();
        };
        (0..outer)
            .map(|o| (o * rows + first) * inner)
            .map(|at| self.data.slice(at..at + count * inner))
            .collect()
    }

    /// The shape of one row, its batch axis being 1.
    fn row_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(dim) = self.axis.and_then(|axis| shape.get_mut(axis)) {
            *dim = 1;
        }
        shape
    }
}

impl Block {
    /// Output bytes of one row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        let bytes: usize = self.tensors.iter().map(|tensor| tensor.data.len()).sum();
        bytes.div_ceil(self.rows.max(1))
    }

    /// Bytes of memory that a row takes by itself, all that stands around its elements included.
    #[must_use]
    pub fn kept_row_bytes(&self) -> usize {
        let tensor = |tensor: &BlockTensor| {
            let rows = if tensor.axis.is_some() { self.rows.max(1) } else { 1 };
            let ends = if tensor.row_ends.is_empty() { 0 } else { size_of::<usize>() };
            size_of::<BlockTensor>()
                + allocated(tensor.data.len().div_ceil(rows))
                + allocated(tensor.shape.len() * size_of::<usize>())
                + allocated(ends)
        };
        // An `Arc` counts its owners in two words; the tensors are one allocation more.
        let block = allocated(size_of::<Self>() + 2 * size_of::<usize>()) + allocated(1);
        block + self.tensors.iter().map(tensor).sum::<usize>()
    }
}

/// Bytes that an allocation takes, with what common allocators put around it.
const fn allocated(bytes: usize) -> usize {
    let taken = (bytes + size_of::<usize>()).next_multiple_of(16);
    match bytes {
        0 => 0,
        _ if taken < 32 => 32,
        _ => taken,
    }
}

impl RowValue {
    /// The same row in memory of its own, so that keeping it does not keep its whole batch.
    ///
    /// # Cost
    /// Copies the row, unless its batch had no other.
    #[must_use]
    pub fn detached(&self) -> Self {
        if self.block.rows == 1 {
            return self.clone();
        }
        let tensors = self.block.tensors.iter().map(|tensor| {
            let data = match tensor.slice(self.index, 1).as_slice() {
                [piece] => Bytes::copy_from_slice(piece),
                pieces => Bytes::from(pieces.concat()),
            };
            let row_ends = if tensor.row_ends.is_empty() { Vec::new() } else { vec![data.len()] };
            BlockTensor { shape: tensor.row_shape(), data, row_ends, ..tensor.clone() }
        });
        let block = Block { tensors: tensors.collect(), rows: 1 };
        Self { block: Arc::new(block), index: 0 }
    }
}

/// Puts output number `index` of an answer together from its rows.
///
/// # Errors
/// A sentence, when rows from different batches have different shapes and so are no one tensor.
///
/// # Cost
/// No copy where the batch axis is the first: neighbouring rows of one batch become one piece.
pub fn assemble(name: &str, index: usize, rows: &[RowValue]) -> Result<OutputTensor, String> {
    let Some(first) = rows.first() else { return Err("an answer without rows".into()) };
    let tensor = &first.block.tensors[index];
    let mut shape = tensor.row_shape();
    let mut pieces: Vec<Vec<Bytes>> = Vec::new();
    let mut at = 0;
    while let Some(row) = rows.get(at) {
        let source = &row.block.tensors[index];
        if !Arc::ptr_eq(&row.block, &first.block) && source.row_shape() != shape {
            let (a, b) = (Shape(shape), Shape(source.row_shape()));
            return Err(format!("output '{name}' has rows of shapes {a} and {b}"));
        }
        let run = rows[at..]
            .iter()
            .zip(row.index..)
            .take_while(|(next, index)| {
                Arc::ptr_eq(&next.block, &row.block) && next.index == *index
            })
            .count();
        pieces.push(source.slice(row.index, run));
        at += run;
        if tensor.axis.is_none() {
            break;
        }
    }
    if let Some(dim) = tensor.axis.and_then(|axis| shape.get_mut(axis)) {
        *dim = rows.len();
    }
    Ok(OutputTensor {
        name: name.to_owned(),
        datatype: tensor.datatype,
        shape: Shape(shape),
        pieces: interleave(pieces),
    })
}

/// Orders the pieces of runs of rows by outer step: all runs' first pieces, all their second ones, ...
fn interleave(mut runs: Vec<Vec<Bytes>>) -> Vec<Bytes> {
    if let [_] = runs.as_slice() {
        let only = runs.pop().unwrap_or_default();
        return if only.len() > 1 { vec![Bytes::from(only.concat())] } else { only };
    }
    let outer = runs.first().map_or(0, Vec::len);
    if outer <= 1 {
        return runs.into_iter().flatten().filter(|piece| !piece.is_empty()).collect();
    }
    let mut whole = Vec::new();
    for o in 0..outer {
        runs.iter().filter_map(|run| run.get(o)).for_each(|piece| whole.extend_from_slice(piece));
    }
    vec![Bytes::from(whole)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(shape: &[usize], axis: usize, first: u8) -> Arc<Block> {
        let count = u8::try_from(shape.iter().product::<usize>()).unwrap();
        let data: Vec<u8> = (first..first + count).collect();
        let rows = shape[axis];
        let tensor =
            BlockTensor::new(DataType::Uint8, shape.to_vec(), Some(axis), data.into(), rows)
                .unwrap();
        Arc::new(Block { tensors: vec![tensor], rows })
    }

    fn rows(block: &Arc<Block>, indices: &[usize]) -> Vec<RowValue> {
        indices.iter().map(|&index| RowValue { block: block.clone(), index }).collect()
    }

    #[test]
    fn neighbouring_rows_of_a_batch_are_one_piece() {
        let (a, b) = (block(&[4, 2], 0, 0), block(&[1, 2], 0, 100));
        let rows = [rows(&a, &[1, 2]), rows(&b, &[0]), rows(&a, &[0])].concat();
        let out = assemble("y", 0, &rows).unwrap();
        assert_eq!(out.shape.0, [4, 2]);
        assert_eq!(out.pieces.len(), 3);
        assert_eq!(out.contiguous(), [2, 3, 4, 5, 100, 101, 0, 1][..]);
    }

    #[test]
    fn rows_on_a_later_axis_are_interleaved_and_detach() {
        let a = block(&[2, 2, 2], 1, 0);
        let taken = rows(&a, &[1, 0]);
        assert_eq!(assemble("y", 0, &taken).unwrap().contiguous(), [2, 3, 0, 1, 6, 7, 4, 5][..]);
        let kept = [taken[0].detached(), taken[1].clone()];
        assert_eq!(assemble("y", 0, &kept).unwrap().contiguous(), [2, 3, 0, 1, 6, 7, 4, 5][..]);
        assert_eq!(kept[0].block.tensors[0].data, [2, 3, 6, 7][..]);
    }

    #[test]
    fn rows_of_different_shapes_are_no_tensor() {
        let rows = [rows(&block(&[1, 2], 0, 0), &[0]), rows(&block(&[1, 3], 0, 0), &[0])].concat();
        assert!(assemble("y", 0, &rows).unwrap_err().contains("[1,2] and [1,3]"));
    }

    #[test]
    fn strings_that_are_not_as_many_as_their_shape_says_are_refused() {
        for axis in [None, Some(0)] {
            let two = Bytes::from_static(&[0; 8]);
            let wrong = BlockTensor::new(DataType::Bytes, vec![2, 3], axis, two, 2);
            assert_eq!(wrong.unwrap_err(), "2 strings for shape [2,3]");
        }
    }

    #[test]
    fn rows_without_elements_are_in_no_place() {
        let shape = vec![1 << 40, 2, 0, 1 << 40];
        let tensor = BlockTensor::new(DataType::Fp32, shape, Some(1), Bytes::new(), 2).unwrap();
        let block = Arc::new(Block { tensors: vec![tensor], rows: 2 });
        let whole = assemble("y", 0, &rows(&block, &[1, 0])).unwrap();
        assert_eq!((whole.byte_len(), whole.shape.0[1]), (0, 2));
    }

    #[test]
    fn half_the_bytes_stand_for_the_same_rows() {
        use crate::rows::{InputTensor, Inputs};
        let values = [1.5_f32, -2.0, 0.25, 8.0];
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let exact = BlockTensor::new(DataType::Fp32, vec![2, 2], Some(0), data.clone().into(), 2);
        let exact = exact.unwrap();
        let half = exact.clone().stored(Storage::Half);
        assert_eq!((half.storage, half.data.len()), (Storage::Half, 8));
        let block = |tensor| Arc::new(Block { tensors: vec![tensor], rows: 2 });
        let inputs = |row: &RowValue| {
            let BlockTensor { datatype, shape, axis, data, row_ends, storage } =
                row.block.tensors[0].clone();
            let tensor = InputTensor { datatype, shape, axis, data, row_ends, storage };
            Inputs { tensors: vec![tensor], rows: row.block.rows }
        };
        // Those that are kept, rounded, beside those that are not.
        let kept = inputs(&rows(&block(half), &[1])[0].detached());
        let fresh = inputs(&rows(&block(exact), &[0])[0]);
        let runs = [(&kept, 0, 1), (&fresh, 0, 2)];
        let mut dest = vec![0; Inputs::batch_bytes(0, &runs)];
        Inputs::gather(0, &runs, &mut dest);
        assert_eq!(dest, [&data[8..], &data[..]].concat());
        let large = BlockTensor { data: 1e9_f32.to_le_bytes().to_vec().into(), ..fresh_of(&[1]) };
        assert_eq!(large.stored(Storage::Half).storage, Storage::Exact);
    }

    fn fresh_of(shape: &[usize]) -> BlockTensor {
        let data = vec![0; 4 * shape.iter().product::<usize>()].into();
        BlockTensor::new(DataType::Fp32, shape.to_vec(), Some(0), data, shape[0]).unwrap()
    }

    #[test]
    fn a_batch_with_the_wrong_number_of_rows_is_refused() {
        let wrong = BlockTensor::new(DataType::Uint8, vec![3], Some(0), Bytes::new(), 2);
        assert!(wrong.is_err());
    }
}
