//! The keys of sharing: what makes two rows equal, and what lets rows run together.
//!
//! A wrong equality is a wrong answer, so the digests are BLAKE3 over length-prefixed fields under a
//! domain of their own, and every field of the request that can change a result is in them.

use crate::id::{ClassKey, RowKey, Tenant};
use crate::rows::{InputTensor, Inputs};
use blake3::Hasher;

/// The digest of a stage: its model file and everything the file refers to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageDigest(pub [u8; 32]);

impl std::fmt::Debug for StageDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for StageDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex()[..16])
    }
}

/// The key of every row, and the class they all belong to.
///
/// # Cost
/// One pass over the bytes, one finalisation a row.
#[must_use]
pub fn keys(stage: &StageDigest, tenant: Tenant, inputs: &Inputs) -> (Vec<RowKey>, ClassKey) {
    // Everything but the rows' own bytes is hashed once and shared by all rows.
    let mut prefix = Hasher::new();
    prefix.update(b"graftd row 1\0\0\0").update(&stage.0).update(&tenant.0.to_le_bytes());
    let class = class_hash(inputs);
    prefix.update(class.as_bytes());
    let rows = (0..inputs.rows)
        .map(|row| {
            let mut hasher = prefix.clone();
            inputs.tensors.iter().for_each(|tensor| row_fields(&mut hasher, tensor, row));
            RowKey(*hasher.finalize().as_bytes())
        })
        .collect();
    (rows, short(&class))
}

/// The class of inputs alone, where they run otherwise than they came.
#[must_use]
pub fn class(inputs: &Inputs) -> ClassKey {
    short(&class_hash(inputs))
}

fn class_hash(inputs: &Inputs) -> blake3::Hash {
    let mut class = Hasher::new();
    class.update(b"graftd class 1\0");
    inputs.tensors.iter().for_each(|tensor| class_fields(&mut class, tensor));
    class.finalize()
}

fn short(class: &blake3::Hash) -> ClassKey {
    let mut short = [0; 16];
    short.copy_from_slice(&class.as_bytes()[..16]);
    ClassKey(short)
}

/// Datatype, row shape, and the whole tensor where it has no batch axis: all rows of a run share it.
fn class_fields(hasher: &mut Hasher, tensor: &InputTensor) {
    let InputTensor { datatype, shape, axis, data, row_ends: _, storage: _ } = tensor;
    hasher.update(&[*datatype as u8, u8::from(axis.is_some())]);
    hasher.update(&(shape.len() as u64).to_le_bytes());
    for (number, &dim) in shape.iter().enumerate() {
        let dim = if *axis == Some(number) { u64::MAX } else { dim as u64 };
        hasher.update(&dim.to_le_bytes());
    }
    if axis.is_none() {
        hasher.update(&(data.len() as u64).to_le_bytes()).update(data);
    }
}

fn row_fields(hasher: &mut Hasher, tensor: &InputTensor, row: usize) {
    if tensor.axis.is_none() {
        return;
    }
    let bytes: usize = tensor.pieces(row, 1).map(<[u8]>::len).sum();
    hasher.update(&(bytes as u64).to_le_bytes());
    tensor.pieces(row, 1).for_each(|piece| {
        hasher.update(piece);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;
    use std::collections::BTreeSet;

    fn inputs() -> Inputs {
        let x = InputTensor {
            datatype: DataType::Uint8,
            shape: vec![3, 2],
            axis: Some(0),
            data: vec![1, 2, 3, 4, 1, 2].into(),
            row_ends: Vec::new(),
            storage: crate::rows::Storage::Exact,
        };
        let rate = InputTensor { shape: vec![], axis: None, data: vec![7].into(), ..x.clone() };
        Inputs { tensors: vec![x, rate], rows: 3 }
    }

    const STAGE: StageDigest = StageDigest([9; 32]);

    #[test]
    fn equal_rows_have_equal_keys_wherever_they_stand() {
        let (rows, class) = keys(&STAGE, Tenant(0), &inputs());
        assert_eq!(rows[0], rows[2]);
        assert_ne!(rows[0], rows[1]);
        let mut alone = inputs();
        alone.rows = 1;
        alone.tensors[0].shape[0] = 1;
        alone.tensors[0].data = vec![1, 2].into();
        let (single, same_class) = keys(&STAGE, Tenant(0), &alone);
        assert_eq!((single[0], same_class), (rows[0], class));
    }

    #[test]
    fn any_field_that_can_change_a_result_changes_the_key() {
        let base = inputs();
        let change = |edit: &dyn Fn(&mut Inputs)| {
            let mut changed = base.clone();
            edit(&mut changed);
            keys(&STAGE, Tenant(0), &changed).0[0]
        };
        let keys = [
            keys(&STAGE, Tenant(0), &base).0[0],
            keys(&StageDigest([8; 32]), Tenant(0), &base).0[0],
            keys(&STAGE, Tenant(1), &base).0[0],
            change(&|i| i.tensors[0].datatype = DataType::Int8),
            change(&|i| i.tensors[0].data = vec![1, 3, 3, 4, 1, 2].into()),
            change(&|i| i.tensors[0].shape = vec![3, 2, 1]),
            change(&|i| i.tensors[1].data = vec![8].into()),
            change(&|i| i.tensors[1].shape = vec![1]),
            change(&|i| i.tensors.truncate(1)),
        ];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    }
}
