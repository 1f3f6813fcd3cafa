//! The checked inputs of one request, and how its rows are gathered into a batch.

use super::{Layout, Storage};
use crate::tensor::DataType;
use bytes::Bytes;

/// One input of a request, in the order of the model's inputs.
#[derive(Clone, Debug)]
pub struct InputTensor {
    /// The element type.
    pub datatype: DataType,
    /// The shape as sent, all rows together.
    pub shape: Vec<usize>,
    /// The batch axis; none where all rows share the tensor.
    pub axis: Option<usize>,
    /// The elements in the wire layout.
    pub data: Bytes,
    /// For `BYTES` with a batch axis: the end of each row in `data`.
    pub row_ends: Vec<usize>,
    /// How the elements lie in `data`.
    pub storage: Storage,
}

/// The checked inputs of one request.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// One tensor per input of the model, in its order.
    pub tensors: Vec<InputTensor>,
    /// The rows of the request; 1 where it is not cut into rows.
    pub rows: usize,
}

impl InputTensor {
    /// The pieces that make up the rows `first..first + count`, in the order of the tensor.
    pub fn pieces(&self, first: usize, count: usize) -> impl Iterator<Item = &[u8]> {
        let (outer, step, start, length) = self.extent(first, count);
        (0..outer).map(move |o| {
            let at = o * step + start;
            self.data.get(at..at + length).unwrap_or_default()
        })
    }

    /// The number of pieces, the distance between them, where the first begins, and their length.
    fn extent(&self, first: usize, count: usize) -> (usize, usize, usize, usize) {
        let Some(axis) = self.axis else { return (1, 0, 0, self.data.len()) };
        let Some(element) = self.datatype.element_bytes() else {
            let end = |row: usize| row.checked_sub(1).map_or(0, |row| self.row_ends[row]);
            let start = end(first);
            return (1, 0, start, end(first + count) - start);
        };
        let element = self.storage.shrinks(element);
        let Some(layout) = Layout::of(&self.shape, axis, element) else { return (0, 0, 0, 0) };
        let Layout { outer, rows, inner } = layout;
        (outer, rows * inner, first * inner, count * inner)
    }

    /// Bytes of one row; of the largest one for `BYTES`.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        if self.axis.is_none() {
            return self.data.len();
        }
        if self.row_ends.is_empty() {
            return self.data.len() / self.rows().max(1);
        }
        let starts = std::iter::once(0).chain(self.row_ends.iter().copied());
        self.row_ends.iter().zip(starts).map(|(end, start)| end - start).max().unwrap_or(0)
    }

    /// One row as a tensor of its own; none where there is no such row.
    ///
    /// # Cost
    /// No copy where the batch axis is the first.
    #[must_use]
    pub fn row(&self, row: usize) -> Option<Self> {
        if self.axis.is_none() {
            return Some(self.clone());
        }
        let (outer, step, start, length) = self.extent(row, 1);
        let data = if outer == 1 {
            (start + length <= self.data.len()).then(|| self.data.slice(start..start + length))?
        } else {
            let piece = |o: usize| self.data.get(o * step + start..o * step + start + length);
            (0..outer).map(piece).collect::<Option<Vec<_>>>()?.concat().into()
        };
        let row_ends = if self.row_ends.is_empty() { Vec::new() } else { vec![length] };
        Some(Self { shape: self.batch_shape(1), data, row_ends, ..*self })
    }

    /// The size of the batch axis; 1 without one.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.axis.and_then(|axis| self.shape.get(axis)).copied().unwrap_or(1)
    }

    /// The shape of a batch of so many rows like these.
    #[must_use]
    pub fn batch_shape(&self, rows: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(dim) = self.axis.and_then(|axis| shape.get_mut(axis)) {
            *dim = rows;
        }
        shape
    }
}

impl Inputs {
    /// One request of these rows, each of which is a request of one row of the same form.
    ///
    /// # Cost
    /// Copies them.
    #[must_use]
    pub fn stack(rows: &[Self]) -> Self {
        let runs: Vec<(&Self, usize, usize)> = rows.iter().map(|row| (row, 0, 1)).collect();
        let Some(first) = rows.first() else { return Self { tensors: Vec::new(), rows: 0 } };
        let tensor = |(index, tensor): (usize, &InputTensor)| {
            let mut data = vec![0; Self::batch_bytes(index, &runs)];
            Self::gather(index, &runs, &mut data);
            let storage = Storage::Exact;
            let mut row_ends = Vec::new();
            if !tensor.row_ends.is_empty() {
                let ends = rows.iter().scan(0, |end, row| {
                    *end += row.tensors[index].data.len();
                    Some(*end)
                });
                row_ends.extend(ends);
            }
            let shape = tensor.batch_shape(rows.len());
            InputTensor { shape, data: data.into(), row_ends, storage, ..tensor.clone() }
        };
        let tensors = first.tensors.iter().enumerate().map(tensor).collect();
        Self { tensors, rows: rows.len() }
    }

    /// Bytes that one row holds over all inputs; of the largest one for `BYTES`.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.tensors.iter().map(InputTensor::row_bytes).sum()
    }

    /// Bytes that input number `index` of a batch of these rows takes.
    #[must_use]
    pub fn batch_bytes(index: usize, runs: &[(&Self, usize, usize)]) -> usize {
        let bytes = |&(inputs, first, count): &(&Self, usize, usize)| {
            let (outer, _, _, length) = inputs.tensors[index].extent(first, count);
            inputs.tensors[index].storage.grows(outer * length)
        };
        match runs.first() {
            Some((inputs, ..)) if inputs.tensors[index].axis.is_none() => {
                inputs.tensors[index].storage.grows(inputs.tensors[index].data.len())
            }
            _ => runs.iter().map(bytes).sum(),
        }
    }

    /// Copies input number `index` of the given runs of rows into one batch tensor.
    ///
    /// A run is a request's inputs, its first row and the number of rows. `dest` must have
    /// [`batch_bytes`](Self::batch_bytes) bytes.
    ///
    /// # Cost
    /// One copy of every byte; one `memcpy` a run where the batch axis is the first. What is kept as FP16 is converted
    /// instead of copied.
    pub fn gather(index: usize, runs: &[(&Self, usize, usize)], dest: &mut [u8]) {
        let Some((first, ..)) = runs.first() else { return };
        if first.tensors[index].axis.is_none() {
            first.tensors[index].storage.copy(&first.tensors[index].data, dest);
            return;
        }
        let mut pieces: Vec<_> = runs
            .iter()
            .map(|&(i, row, n)| (i.tensors[index].storage, i.tensors[index].pieces(row, n)))
            .collect();
        let mut rest = dest;
        loop {
            let mut more = false;
            let next =
                pieces.iter_mut().filter_map(|(storage, pieces)| Some((*storage, pieces.next()?)));
            for (storage, piece) in next {
                let (head, tail) = rest.split_at_mut(storage.grows(piece.len()));
                storage.copy(piece, head);
                rest = tail;
                more = true;
            }
            if !more {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], axis: usize, first: u8) -> InputTensor {
        let count = u8::try_from(shape.iter().product::<usize>()).unwrap();
        InputTensor {
            datatype: DataType::Uint8,
            shape: shape.to_vec(),
            axis: Some(axis),
            data: (first..first + count).collect::<Vec<_>>().into(),
            row_ends: Vec::new(),
            storage: Storage::Exact,
        }
    }

    fn gathered(a: &InputTensor, b: &InputTensor, rows: [(usize, usize); 2]) -> Vec<u8> {
        let inputs = |t: &InputTensor| Inputs { rows: t.rows(), tensors: vec![t.clone()] };
        let (a, b) = (inputs(a), inputs(b));
        let runs = [(&a, rows[0].0, rows[0].1), (&b, rows[1].0, rows[1].1)];
        let mut dest = vec![0; Inputs::batch_bytes(0, &runs)];
        Inputs::gather(0, &runs, &mut dest);
        dest
    }

    #[test]
    fn rows_on_the_first_axis_follow_one_another() {
        let (a, b) = (tensor(&[3, 2], 0, 0), tensor(&[1, 2], 0, 100));
        assert_eq!(gathered(&a, &b, [(1, 2), (0, 1)]), [2, 3, 4, 5, 100, 101]);
    }

    #[test]
    fn rows_on_a_later_axis_are_interleaved() {
        let (a, b) = (tensor(&[2, 2, 2], 1, 0), tensor(&[2, 1, 2], 1, 100));
        assert_eq!(gathered(&a, &b, [(1, 1), (0, 1)]), [2, 3, 100, 101, 6, 7, 102, 103]);
    }

    #[test]
    fn strings_are_cut_at_their_rows() {
        let strings = InputTensor {
            datatype: DataType::Bytes,
            shape: vec![2],
            axis: Some(0),
            data: Bytes::from_static(b"\x01\0\0\0a\x02\0\0\0bc"),
            row_ends: vec![5, 11],
            storage: Storage::Exact,
        };
        assert_eq!(gathered(&strings, &strings, [(1, 1), (0, 1)]), b"\x02\0\0\0bc\x01\0\0\0a");
        assert_eq!(strings.row_bytes(), 6);
    }
}
