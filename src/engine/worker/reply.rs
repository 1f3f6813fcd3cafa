//! What the daemon believes of a worker: a batch's answer, read from memory that the worker can write to.
//!
//! Separate from the lane, so that every lie that a worker can tell can be tried on plain bytes.
//!
//! # Invariants
//! - The daemon's own record decides: the batch, its rows, the number of outputs, the room there is.
//! - Every output is copied out once and holds exactly the bytes of its shape and datatype.

use super::ring::{self, Answer, TensorPlace};
use crate::engine::{BatchPlan, EngineError};
use crate::id::BatchId;
use crate::rows::Block;
use crate::tensor::DataType;
use bytes::Bytes;
use std::time::Duration;

/// Reads what came of a batch: its outputs and how long the worker says that it ran.
///
/// `descriptor` and `outputs` are the slot's room for the two.
///
/// # Errors
/// What the worker reports of the batch; `Protocol` for an answer that makes no sense, belongs to another
/// batch or reaches outside its room.
///
/// # Cost
/// One copy of the outputs.
pub fn read(
    batch: BatchId,
    plan: &BatchPlan,
    descriptor: &[u8],
    outputs: &[u8],
) -> Result<(Block, Duration), EngineError> {
    let (said, answer) = ring::read_answer(descriptor)
        .ok_or_else(|| EngineError::Protocol("a descriptor that cannot be read".into()))?;
    if said != batch.0 {
        return Err(EngineError::Protocol(format!("batch {said} instead of {batch}")));
    }
    match answer {
        Answer::Failed { error } => Err(error),
        Answer::Outputs { service_ns, tensors } => {
            let mut free = 0;
            let tensors = tensors.into_iter().map(|tensor| output(tensor, outputs, &mut free));
            let block = plan.block(tensors.collect::<Result<_, _>>()?)?;
            Ok((block, Duration::from_nanos(service_ns)))
        }
    }
}

/// Copies an output out of the slot, which the worker will write to again.
///
/// `free` is where the output before it ends: outputs that lay over one another would be copied many times over.
fn output(
    tensor: TensorPlace,
    area: &[u8],
    free: &mut usize,
) -> Result<(DataType, Vec<usize>, Bytes), EngineError> {
    let TensorPlace { datatype, shape, offset, bytes } = tensor;
    let end = offset.checked_add(bytes).filter(|_| offset >= *free);
    let data = end.and_then(|end| area.get(offset..end)).ok_or_else(|| {
        EngineError::Protocol("an output outside the slot, or over another".into())
    })?;
    *free = offset + bytes;
    Ok((datatype, shape, Bytes::copy_from_slice(data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to batch 7 with tensors of bytes, each given by its shape, its offset and its length.
    fn answer(tensors: &[(&[u64], u64, u64)]) -> Vec<u8> {
        let mut bytes = [&7_u64.to_le_bytes()[..], &[0], &5_u64.to_le_bytes()].concat();
        bytes.extend(u32::try_from(tensors.len()).unwrap().to_le_bytes());
        for (shape, offset, length) in tensors {
            bytes.extend([DataType::Uint8 as u8, u8::try_from(shape.len()).unwrap()]);
            let numbers = shape.iter().chain([offset, length]);
            numbers.for_each(|number| bytes.extend(number.to_le_bytes()));
        }
        bytes
    }

    fn refused(descriptor: &[u8], outputs: usize) -> String {
        let plan = BatchPlan { output_axes: vec![None; outputs].into(), ..BatchPlan::default() };
        let found = read(BatchId(7), &plan, descriptor, &[0; 256]);
        match found.unwrap_err() {
            EngineError::Protocol(what) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn outputs_stay_in_their_slot_and_apart() {
        let misplaced = "an output outside the slot, or over another";
        assert_eq!(refused(&answer(&[(&[257], 0, 257)]), 1), misplaced);
        assert_eq!(refused(&answer(&[(&[1], u64::MAX, 1)]), 1), misplaced);
        assert_eq!(refused(&answer(&[(&[256], 0, 256), (&[256], 0, 256)]), 2), misplaced);
        assert_eq!(refused(&answer(&[(&[1], 0, 1)]), 2), "1 outputs instead of 2");
    }

    #[test]
    fn an_answer_must_make_sense_and_belong_to_its_batch() {
        let unread = "a descriptor that cannot be read";
        assert_eq!(refused(&[], 0), unread);
        assert_eq!(refused(&answer(&[(&[2], 0, 1)]), 1), unread);
        assert_eq!(refused(&answer(&[(&[1 << 40, 1 << 40], 0, 0)]), 1), unread);
        let mut other = answer(&[]);
        other[0] = 8;
        assert_eq!(refused(&other, 0), "batch 8 instead of 7");
    }
}
